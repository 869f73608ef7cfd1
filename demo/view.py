# SPDX-License-Identifier: Apache-2.0
"""The window of the demo: the guest's terminal, and beside it (below it in a narrow window) the host calls.

+------------------------------+--------------------+
| guest                        | panel              |
+------------------------------+--------------------+
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.bar import Bar
from rich.color import ColorSystem
from rich.console import Console, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from demo.stats import History

LEAVE = "ctrl-]"
_BESIDE_MIN = 72  # least columns for both parts
_PANEL_COLS = 34, 50
_BELOW_MIN = 24  # least rows for both parts in a narrow window
_PANEL_ROWS = 14
_TWO_COLS_MIN = 58  # least columns for a panel with two columns
_MANY = 1000.0  # calls that fill a bar, or the largest count
_BUSY = 100.0  # the same for calls in a second
_SPARKS = " ▁▂▃▄▅▆▇█"
_SPARKS_PLAIN = " ._-=+*#@"
_SYSTEMS = {"standard": ColorSystem.STANDARD, "256": ColorSystem.EIGHT_BIT, "truecolor": ColorSystem.TRUECOLOR}


@dataclass(frozen=True)
class Area:
    """A part of the window, in characters, counted from 0."""

    top: int
    left: int
    rows: int
    cols: int


@dataclass(frozen=True)
class Layout:
    """The positions of the parts. `panel` is None in a window that is too small for it."""

    guest: Area
    panel: Area | None


def layout(rows: int, cols: int) -> Layout:
    """Divide a window of any size; the guest has at least one character."""
    rows, cols = max(1, rows), max(1, cols)
    if cols >= _BESIDE_MIN:
        least, most = _PANEL_COLS
        width = min(most, max(least, cols * 2 // 5))
        return Layout(Area(0, 0, rows, cols - width - 1), Area(0, cols - width, rows, width))
    if rows >= _BELOW_MIN:
        height = min(_PANEL_ROWS, rows // 2)
        return Layout(Area(0, 0, rows - height - 1, cols), Area(rows - height, 0, height, cols))
    return Layout(Area(0, 0, rows, cols), None)


@dataclass(frozen=True)
class Status:
    """The panel's other values. `resident`: bytes of host memory that the VM uses, if known."""

    memory: str
    resident: int | None = None
    ended: int | None = None  # exit status


class View:
    """Renders the window's parts for one terminal, with its colors and encoding."""

    def __init__(self, colours: str | None, utf8: bool = True) -> None:
        self.colours = _SYSTEMS.get(colours or "")
        self.utf8 = utf8
        self._colour_name = colours if self.colours is not None else None

    def panel(self, history: History, status: Status, area: Area) -> list[str]:
        """Return the rows of the panel, each as wide as its area."""
        width = max(1, area.cols - 1)  # a margin at the left
        parts: list[RenderableType] = [Text("Linux, in one host process", style="bold"), Text()]
        if width >= _TWO_COLS_MIN:
            half = width // 2 - 1
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_row(
                self._calls(history, half), Group(self._status(history, status), Text(), self._sparkline(history, half))
            )
            parts.append(table)
        else:
            parts += [self._calls(history, width), Text(), self._status(history, status), Text()]
            parts.append(self._sparkline(history, width))
        end = Text(f"{LEAVE} leaves", style="dim")
        if status.ended is not None:
            end = Text(f"ended with status {status.ended}; any key leaves", style="bold")
        return self._join(self._lines([*parts], width), self._lines([end], width), area)

    def _calls(self, history: History, width: int) -> RenderableType:
        last = history.last.calls
        rates = {name: history.rate(name) for name in last}
        most = max([_MANY, *map(float, last.values())])
        name_width = max([9, *(len(name) for name in last)])
        room = width - name_width - 14
        table = Table.grid(padding=(0, 1, 0, 0))
        for size in (name_width, max(room, 1), 5):
            table.add_column(width=size, no_wrap=True)
        table.add_column(width=5, no_wrap=True, justify="right")
        table.columns[2].justify = "right"
        for column, header in zip(table.columns, ("host call", "", "per s", "count"), strict=True):
            column.header = header
        table.show_header = True
        table.header_style = "dim"
        for name, count in last.items():
            busy = rates[name] > 0
            style = "bold" if busy else "" if count else "dim"
            bar = self._bar(_part(count, most), max(room, 1), "bright_cyan" if busy else "blue")
            table.add_row(Text(name, style), bar, Text(short(rates[name]), style), Text(short(count), style))
        if not last:
            table.add_row(Text("…" if self.utf8 else "..."), "", "", "")
        return table

    def _bar(self, part: float, width: int, colour: str) -> RenderableType:
        if self.utf8:
            return Bar(1.0, 0, part, width=width, color=colour)
        return Text("#" * math.ceil(part * width), style=colour)

    def _sparkline(self, history: History, width: int) -> RenderableType:
        shown = list(history.totals)[-width:]
        sparks = _SPARKS if self.utf8 else _SPARKS_PLAIN
        most = max([_BUSY, *shown])
        line = "".join(sparks[math.ceil(_part(rate, most) * (len(sparks) - 1) - 0.5)] for rate in shown)
        now = f"{short(shown[-1])} calls per s" if shown else ""
        return Group(
            Text(f"all calls, last {max(1, width // 4)} s", style="dim"), Text(line.rjust(width), "green"), Text(now)
        )

    def _status(self, history: History, status: Status) -> RenderableType:
        boot = history.last.boot
        unknown = "–" if self.utf8 else "-"
        table = Table.grid(padding=(0, 1, 0, 0))
        resident = f"{status.resident / 2**20:.0f} MB of " if status.resident is not None else ""
        table.add_row("kinds", f"{history.used()} used, {len(history.last.calls)} allowed")
        table.add_row("up", clock(history.last.uptime))
        table.add_row("booted in", f"{boot * 1000:.1f} ms" if boot is not None else unknown)
        table.add_row("memory", f"{resident}{status.memory}")
        return table

    def _lines(self, parts: Iterable[RenderableType], width: int) -> list[str]:
        """Render with rich; each line is `width` wide."""
        stream = io.StringIO()
        console = Console(
            file=stream,
            width=max(1, width),
            height=1000,
            force_terminal=True,
            color_system=self._colour_name,  # type: ignore[arg-type]
            legacy_windows=False,
            highlight=False,
            emoji=False,
            markup=False,
            _environ={},
        )
        return ["".join(map(self._segment, line)) for line in console.render_lines(Group(*parts), pad=True)]

    def _segment(self, segment: Segment) -> str:
        return segment.style.render(segment.text, color_system=self.colours) if segment.style else segment.text

    def _join(self, lines: list[str], end: list[str], area: Area) -> list[str]:
        room = max(0, area.rows - len(end))
        blank = " " * max(1, area.cols - 1)
        rows = [*lines[:room], *[blank] * (room - len(lines)), *end][: area.rows]
        return [f" {row}" for row in rows]

    def frame(self, size: tuple[int, int], guest: Sequence[str], panel: Sequence[str]) -> list[str]:
        """Return the rows of the whole window. The panel keeps its column whatever the width of a character."""
        areas = layout(*size)
        if areas.panel is None:
            return list(guest)
        if areas.panel.top:
            line = "─" if self.utf8 else "-"
            return [*guest, line * areas.panel.cols, *panel]
        line = "│" if self.utf8 else "|"
        column = f"\x1b[{areas.panel.left}G"
        return [f"{left}{column}{line}{right}" for left, right in zip(guest, panel, strict=True)]


def _part(number: float, most: float) -> float:
    """Return the length of a bar, 0 to 1: logarithmic, because numbers of calls differ by powers of ten."""
    return min(1.0, math.log1p(max(0.0, number)) / math.log1p(most))


def short(number: float) -> str:
    """Return a number in at most five characters: 7, 0.3, 1234, 56k, 1.2M."""
    if 0 < number < 9.95 and number != int(number):
        return f"{number:.1f}"
    if number < 9999.5:
        return f"{number:.0f}"
    for unit in "kMGTPE":
        number /= 1000
        if number < 9.95:
            return f"{number:.1f}{unit}"
        if number < 999.5:
            return f"{number:.0f}{unit}"
    return "lots"


def clock(seconds: float) -> str:
    """Format a time: 3.2 s, 4:05 min, 2:03:04 h."""
    if seconds < 60:
        return f"{math.floor(seconds * 10) / 10:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02} h"
