# SPDX-License-Identifier: Apache-2.0
"""The guest's terminal: bytes go in, rows of styled text come out. The emulation is pyte's.

The guest's output is hostile. pyte stores strings of any length and raises exceptions for unexpected sequences, so it
only receives sequences that are complete, short and of a known form; all others are dropped, as in a terminal.
"""

from __future__ import annotations

import codecs
import functools
import inspect
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pyte
from pyte import modes
from pyte.screens import Char, StaticDefaultDict
from rich.color import ColorSystem
from rich.style import Style
from wcwidth import wcwidth

_SEQUENCE_MAX = 64  # characters
_SAVED_MAX = 16  # cursors
_COMBINING_MAX = 3  # accents on one letter
# A complete sequence: the palette of a Linux console, CSI, the start of a string, a character set, anything short.
_SEQUENCE = re.compile(
    r"\x1b(?:\](?:R|P[0-9a-fA-F]{7})|\[[0-?]*[ -/]*[@-~]|(?P<string>[\]PX^_k])|[ -/]+[0-~]|(?![\[\]PX^_k])[0-~])"
)
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[ -/]*|\](?:P[0-9a-fA-F]{0,6})?)")
_KNOWN = re.compile(r"\x1b(?:\[\??[0-9;]*[@-~]|[#%()][0-~]|[0-Z\\-~])")
_STRING_END = re.compile(r"\x07|\x1b\\|\x18|\x1a")
# Control characters that pyte treats as text. Terminals with UTF-8 ignore those of C1.
_CONTROLS = re.compile(r"[\x00-\x06\x10-\x17\x19\x1c-\x1f\x7f-\x9f]")
_CANCEL = re.compile(r"[\x18\x1a]")
_COLOURS = frozenset(("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"))
_ALTERNATE = frozenset(mode << 5 for mode in (47, 1047, 1049))


class Cleaner:
    """Removes from a stream of text everything that would make pyte fail."""

    def __init__(self) -> None:
        self._rest = ""
        self._in_string = False

    def clean(self, text: str) -> str:
        """Return the safe and complete part of the text; the beginning of a sequence waits for the next call."""
        text = self._rest + _CONTROLS.sub("", text)
        self._rest = ""
        out: list[str] = []
        at = 0
        while at < len(text):
            if self._in_string:
                end = _STRING_END.search(text, at)
                if end is None:
                    self._rest = "\x1b" if text.endswith("\x1b") else ""
                    break
                self._in_string = False
                at = end.end()
                continue
            escape = text.find("\x1b", at)
            if escape < 0:
                out.append(text[at:])
                break
            out.append(text[at:escape])
            if len(text) - escape < _SEQUENCE_MAX and _BEGUN.fullmatch(text, escape):
                self._rest = text[escape:]
                break
            match = _SEQUENCE.match(text, escape)
            if match is None:
                at = escape + 1
                continue
            at = match.end()
            if match["string"]:
                self._in_string = True
            elif len(match[0]) <= _SEQUENCE_MAX and _KNOWN.fullmatch(match[0]):
                out.append(match[0])
        return _CANCEL.sub("", "".join(out))


def _tolerant(method: Callable[..., None]) -> Callable[..., None]:
    """Make a handler of pyte ignore parameters that it does not know, instead of raising TypeError."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    kinds = {parameter.kind for parameter in parameters}
    most = (
        None
        if inspect.Parameter.VAR_POSITIONAL in kinds
        else sum(p.kind == p.POSITIONAL_OR_KEYWORD for p in parameters)
    )
    private = inspect.Parameter.VAR_KEYWORD in kinds or "private" in {p.name for p in parameters}

    @functools.wraps(method)
    def call(self: pyte.Screen, *numbers: int, **more: Any) -> None:
        if more and not private:
            return  # a private sequence differs from the plain one with the same letter
        # pyte fails on unknown values (`ESC [ 9 K`); a terminal ignores them.
        with suppress(LookupError, NameError):
            method(self, *numbers[:most], **more)

    return call


class Screen(pyte.Screen):
    """The guest's screen: pyte's, plus the alternate screen and a resize that keeps the rows near the cursor."""

    def __init__(self, rows: int, cols: int) -> None:
        self.replies: list[str] = []  # to the guest's queries of its terminal
        self._primary: tuple[dict[int, StaticDefaultDict[int, Char]], tuple[int, int]] | None = None
        self._accents = 0
        super().__init__(cols, rows)

    def write_process_input(self, data: str) -> None:
        """Called by pyte when it answers the guest."""
        if len(self.replies) < _SEQUENCE_MAX:
            self.replies.append(data)

    def reset(self) -> None:
        """Start over, on the primary screen."""
        self._primary = None
        super().reset()

    def save_cursor(self) -> None:
        """Save the cursor; the oldest one is dropped if there are too many."""
        super().save_cursor()
        del self.savepoints[:-_SAVED_MAX]

    def draw(self, data: str) -> None:
        """Show text, with a bounded number of accents on each letter."""
        if not data.isascii():
            super().draw("".join(self._visible(data)))
        elif modes.IRM in self.mode or modes.DECAWM not in self.mode:
            super().draw(data)
        else:
            self._draw_plain(data)

    def _draw_plain(self, data: str) -> None:
        """Like pyte's, but row by row: several times as fast, which matters for a guest that writes a lot."""
        cursor, at = self.cursor, 0
        self._accents = 0
        cells = {char: cursor.attrs._replace(data=char) for char in set(data)}
        while at < len(data):
            if cursor.x >= self.columns:
                self.carriage_return()
                self.linefeed()
            part = data[at : at + self.columns - cursor.x]
            self.buffer[cursor.y].update(zip(range(cursor.x, self.columns), map(cells.__getitem__, part), strict=False))
            self.dirty.add(cursor.y)
            cursor.x += len(part)
            at += len(part)

    def _visible(self, data: str) -> Iterator[str]:
        for char in data:
            if unicodedata.combining(char):
                self._accents += 1
                if self._accents <= _COMBINING_MAX:
                    yield char
            elif wcwidth(char) > 0:  # pyte would drop everything that follows
                self._accents = 0
                yield char

    def set_mode(self, *numbers: int, **more: Any) -> None:
        """Set modes, except for the width, which is the window's."""
        private = bool(more.get("private"))
        if private and _ALTERNATE.intersection(number << 5 for number in numbers) and self._primary is None:
            self._primary = dict(self.buffer), (self.cursor.y, self.cursor.x)
            self.buffer.clear()
            self.dirty.update(range(self.lines))
        super().set_mode(*self._without_width(numbers, private), **more)

    def reset_mode(self, *numbers: int, **more: Any) -> None:
        """Reset modes; leaving the alternate screen brings the primary one back."""
        private = bool(more.get("private"))
        if private and _ALTERNATE.intersection(number << 5 for number in numbers) and self._primary is not None:
            rows, (self.cursor.y, self.cursor.x) = self._primary
            self._primary = None
            self.buffer.clear()
            self.buffer.update(rows)
            self._fit()
        super().reset_mode(*self._without_width(numbers, private), **more)

    def _without_width(self, numbers: tuple[int, ...], private: bool) -> list[int]:
        return [number for number in numbers if not (private and number << 5 == modes.DECCOLM)]

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        """Resize, in characters. Rows are removed at the top only if the cursor requires it."""
        lines, columns = lines or self.lines, columns or self.columns
        above = max(0, self.cursor.y - lines + 1)
        if above:
            rows = {y - above: row for y, row in self.buffer.items() if y >= above}
            self.buffer.clear()
            self.buffer.update(rows)
            self.cursor.y -= above
        self.lines, self.columns = lines, columns
        self.margins = None
        self.tabstops = set(range(8, columns, 8))
        self._fit()

    def _fit(self) -> None:
        for y in [y for y in self.buffer if y >= self.lines]:
            del self.buffer[y]
        for row in self.buffer.values():
            for x in [x for x in row if x >= self.columns]:
                del row[x]
        self.cursor.x = min(self.cursor.x, self.columns - 1)
        self.cursor.y = min(self.cursor.y, self.lines - 1)
        self.dirty.clear()
        self.dirty.update(range(self.lines))


for _name in {*pyte.Stream.csi.values()}:
    setattr(Screen, _name, _tolerant(getattr(Screen, _name)))


class Terminal:
    """A terminal of `rows` x `cols` characters that shows the guest's bytes."""

    def __init__(self, rows: int, cols: int, colours: ColorSystem | None = None) -> None:
        self.screen = Screen(rows, cols)
        self._colours = colours  # the number that the host's terminal supports
        self._stream = pyte.Stream(self.screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._cleaner = Cleaner()
        self._rows: list[str] = []

    def feed(self, data: bytes) -> bytes:
        """Show bytes of the guest; returns the terminal's answers."""
        self._stream.feed(self._cleaner.clean(self._decoder.decode(data)))
        answer = "".join(self.screen.replies).encode()
        self.screen.replies.clear()
        return answer

    def resize(self, rows: int, cols: int) -> None:
        """Resize."""
        self.screen.resize(rows, cols)

    def cursor(self) -> tuple[int, int] | None:
        """Return row and column of the cursor, both from 0; None if the guest hides it."""
        cursor = self.screen.cursor
        return None if cursor.hidden else (cursor.y, min(cursor.x, self.screen.columns - 1))

    def text(self) -> list[str]:
        """Return the rows without style and trailing blanks."""
        screen = self.screen
        columns = range(screen.columns)
        return [
            "".join(_cell(screen.buffer[y], x, screen.columns) for x in columns).rstrip() for y in range(screen.lines)
        ]

    def rows(self) -> list[str]:
        """Return the rows with their styles as escape sequences, each exactly as wide as the screen."""
        screen = self.screen
        if len(self._rows) != screen.lines:
            self._rows = [""] * screen.lines
            screen.dirty.update(range(screen.lines))
        for y in screen.dirty:
            if 0 <= y < screen.lines:
                self._rows[y] = _render(screen.buffer[y], screen.columns, self._colours)
        screen.dirty.clear()
        return list(self._rows)


def _render(row: StaticDefaultDict[int, Char], columns: int, colours: ColorSystem | None) -> str:
    out: list[str] = []
    run: list[str] = []
    look: Char | None = None
    for x in range(columns):
        char = row[x]
        plain = char._replace(data="")
        if plain != look:
            if look is not None:
                out.append(_style(look).render("".join(run), color_system=colours))
            run, look = [], plain
        run.append(_cell(row, x, columns))
    if look is not None:
        out.append(_style(look).render("".join(run), color_system=colours))
    return "".join(out)


def _cell(row: StaticDefaultDict[int, Char], x: int, columns: int) -> str:
    """Return the text of a cell; half of a wide character whose other half was overwritten is a blank."""
    data = row[x].data
    width = _width(data)
    if width == 0:
        return "" if x and _width(row[x - 1].data) == 2 else " "
    if width == 2 and (x + 1 >= columns or _width(row[x + 1].data)):
        return " "
    return data


def _width(data: str) -> int:
    """Return the width of the character that starts in a cell: 0 in the second half of a wide one."""
    return 1 if data.isascii() and data else max(0, wcwidth(data[:1])) if data else 0


@functools.lru_cache(maxsize=1024)
def _style(char: Char) -> Style:
    return Style(
        color=_colour(char.fg),
        bgcolor=_colour(char.bg),
        bold=char.bold or None,
        italic=char.italics or None,
        underline=char.underscore or None,
        strike=char.strikethrough or None,
        reverse=char.reverse or None,
        blink=char.blink or None,
    )


def _colour(name: str) -> str | None:
    """Return rich's name for a color of pyte's; None for pyte's result of an invalid number."""
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    bright = name.startswith(("bright", "bfight"))  # the latter is a slip of pyte 0.8
    base = name[6:] if bright else name
    base = "yellow" if base == "brown" else base
    if base not in _COLOURS:
        return None
    return f"bright_{base}" if bright else base
