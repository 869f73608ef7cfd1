# SPDX-License-Identifier: Apache-2.0
"""The report as a page: tables as data, and the template that draws them as one HTML file that needs no other.

Whatever is put into the page is escaped by the template engine; the page besides forbids itself (by its content
security policy) every script and style but its own, known by their digests, and every connection.
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
_LEAST = 4  # so that a small number is still a bar


@dataclass(frozen=True)
class Bar:
    """A bar of a chart: `part` of the longest one, from 0 to 1; `whole` a paler one behind it. `title` says it."""

    title: str
    part: float
    whole: float = 0.0

    @property
    def width(self) -> int:
        """Units of the drawing; never nothing."""
        return max(_LEAST, round(self.part * _BAR))

    @property
    def track(self) -> int:
        """Units of the paler bar."""
        return round(self.whole * _BAR)


@dataclass(frozen=True)
class Cell:
    """One field. `sort`: what counts when the column is sorted, where that is not the text."""

    text: str
    href: str | None = None
    sort: float | None = None
    bar: Bar | None = None
    mark: Literal["", "good", "bad"] = ""


@dataclass(frozen=True)
class Row:
    """A line of a table; links lead to its `id`."""

    cells: tuple[Cell, ...]
    id: str | None = None


@dataclass(frozen=True)
class Column:
    """The head of a column, and how its fields look."""

    title: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """A table; the first column names what the row is about."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sortable: bool = field(default=True)


def table(
    name: str, caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], **options: Any
) -> Table:
    """Return a table of cells, or of texts where a cell is nothing else."""
    full = tuple(Row(tuple(Cell(each) if isinstance(each, str) else each for each in row)) for row in rows)
    for row in full:
        if len(row.cells) != len(columns):
            raise ValueError(f"table {name}: {len(row.cells)} cells for {len(columns)} columns")
    return Table(name, caption, tuple(columns), full, **options)


def number(value: float, text: str | None = None) -> Cell:
    """Return a cell that sorts as a number."""
    return Cell(f"{value:,}" if text is None else text, sort=value)


def size(count: int) -> str:
    """Return a number of bytes in words, in powers of ten: `125 kB`, `5.0 MB`."""
    for unit, width in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= width:
            value = count / width
            return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"
    return f"{count} B"


def anchor(text: str) -> str:
    """Return a name that may stand in an address; different texts of package and file names stay different."""
    return re.sub(r"[^A-Za-z0-9._-]", lambda match: f"_{ord(match[0]):x}_", text)


def code(text: str) -> markupsafe.Markup:
    """Escape a text and show what stands between back-quotes as code."""
    return markupsafe.Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(text))))


def render(template: str, facts: dict[str, Any]) -> str:
    """Return the page: the template with its style and script inside. Raises jinja2's errors for a name not set."""
    style, script = (TEMPLATES.joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    engine = environment(TEMPLATES).overlay(autoescape=True)
    engine.filters |= {"code": code, "size": size, "anchor": anchor}
    engine.globals |= {"BAR": _BAR}
    text: str = engine.get_template(template).render(
        **facts,
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
    )
    return text


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
