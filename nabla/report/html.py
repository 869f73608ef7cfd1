# SPDX-License-Identifier: Apache-2.0
"""Render the report: tables as data, and a template for one self-contained HTML file.

The template engine escapes all values. The page's content security policy forbids connections, and all scripts and
styles except its own, which it lists by digest.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import markupsafe

from nabla.policy.header import environment

TEMPLATES = Path(__file__).with_name("templates")

Kind = Literal["text", "number", "code", "bar"]
_BAR = 1000  # units of a whole bar
_MINIMUM = 4  # units of the smallest bar


@dataclass(frozen=True)
class Bar:
    """A bar of a chart. `part`: of the longest bar, from 0 to 1; `whole`: a paler bar behind it."""

    title: str
    part: float
    whole: float = 0.0

    @property
    def width(self) -> int:
        """Units of the bar, at least the minimum."""
        return max(_MINIMUM, round(self.part * _BAR))

    @property
    def track(self) -> int:
        """Units of the paler bar."""
        return round(self.whole * _BAR)


@dataclass(frozen=True)
class Cell:
    """One cell. `sort`: the sort key, if it is not the text."""

    text: str
    href: str | None = None
    sort: float | None = None
    bar: Bar | None = None
    mark: Literal["", "good", "bad"] = ""


@dataclass(frozen=True)
class Row:
    """A row of a table. `id`: the target of links."""

    cells: tuple[Cell, ...]
    id: str | None = None


@dataclass(frozen=True)
class Column:
    """The title of a column and the kind of its cells."""

    title: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """A table; the first column contains the names of rows."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sortable: bool = field(default=True)


def table(
    name: str, caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], **options: Any
) -> Table:
    """Return a table; a text stands for a cell."""
    full = tuple(Row(tuple(Cell(each) if isinstance(each, str) else each for each in row)) for row in rows)
    for row in full:
        if len(row.cells) != len(columns):
            raise ValueError(f"table {name}: {len(row.cells)} cells for {len(columns)} columns")
    return Table(name, caption, tuple(columns), full, **options)


def number(value: float, text: str | None = None) -> Cell:
    """Return a cell that sorts as a number."""
    return Cell(f"{value:,}" if text is None else text, sort=value)


def size(count: int) -> str:
    """Return a number of bytes as text, with decimal units: `125 kB`, `5.0 MB`."""
    for unit, width in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= width:
            value = count / width
            return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"
    return f"{count} B"


def anchor(text: str) -> str:
    """Return a name that is valid in an address; different texts have different names."""
    return re.sub(r"[^A-Za-z0-9._-]", lambda match: f"_{ord(match[0]):x}_", text)


def code(text: str) -> markupsafe.Markup:
    """Escape a text and mark parts in back-quotes as code."""
    return markupsafe.Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(text))))


def render(template: str, values: dict[str, Any]) -> str:
    """Return the page with its style and script. Raises jinja2's errors for an undefined name."""
    style, script = (TEMPLATES.joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    engine = environment(TEMPLATES).overlay(autoescape=True)
    engine.filters |= {"code": code, "size": size, "anchor": anchor}
    engine.globals |= {"BAR": _BAR}
    text: str = engine.get_template(template).render(
        **values,
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
    )
    return text


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
