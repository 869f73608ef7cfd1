# SPDX-License-Identifier: Apache-2.0
"""The guest's terminal in the demo: text, colors, hostile and endless output."""

from __future__ import annotations

import random
import time

import pyte
import pytest
from rich.color import ColorSystem
from wcwidth import wcwidth

from demo.screen import Terminal


def shown(data: bytes, rows: int = 4, cols: int = 10) -> list[str]:
    terminal = Terminal(rows, cols)
    terminal.feed(data)
    return terminal.text()


def test_text_cursor_and_colours() -> None:
    terminal = Terminal(3, 8, ColorSystem.STANDARD)
    terminal.feed(b"\x1b[1;31mred\x1b[0m\r\n" + "é語".encode())
    assert terminal.text() == ["red", "é語", ""]
    assert terminal.cursor() == (1, 3)
    red, wide, blank = terminal.rows()
    assert red == "\x1b[1;31mred\x1b[0m     "
    assert wide == "é語     "
    assert blank == " " * 8
    terminal.feed(b"\x1b[?25l")
    assert terminal.cursor() is None
    terminal.feed(b"\x1b[?25h\x1b[2J\x1b[Habcdefgh")
    assert terminal.cursor() == (0, 7)  # there is no column behind the last


@pytest.mark.parametrize("color", range(256))
def test_every_colour_has_a_name(color: int) -> None:
    terminal = Terminal(1, 20, ColorSystem.TRUECOLOR)
    terminal.feed(f"\x1b[38;5;{color};48;5;{color}ma\x1b[{30 + color % 8};{100 + color % 8}mb".encode())
    assert terminal.rows()[0].count("\x1b[0m") == 2


def test_it_answers_the_guest() -> None:
    """The shell asks for the cursor's position."""
    terminal = Terminal(5, 20)
    assert terminal.feed(b"ab\x1b[6n") == b"\x1b[1;3R"
    assert terminal.feed(b"\x1b[c").startswith(b"\x1b[?")
    assert terminal.feed(b"\x1b[>c\x1b[?6n\x1b]10;?\x07\x1bP$qm\x1b\\") == b""
    assert len(terminal.feed(b"\x1b[6n" * 10_000)) < 1000


def test_alternate_screen_comes_and_goes() -> None:
    terminal = Terminal(3, 10)
    terminal.feed(b"shell\r\n$ vi\x1b[?1049h\x1b[Hfile")
    assert terminal.text() == ["file", "", ""]
    terminal.feed(b"\x1b[?1049l")
    assert terminal.text() == ["shell", "$ vi", ""]
    assert terminal.cursor() == (1, 4)
    terminal.feed(b"\x1b[?1049h")
    terminal.resize(2, 3)
    terminal.feed(b"\x1b[?1049l")
    assert terminal.text() == ["she", "$ v"]


def test_strings_and_unknown_sequences_are_not_shown() -> None:
    assert shown(b"a\x1b]0;title\x07b\x1bPq#data\x1b\\c\x1b_x\x1b\\d")[0] == "abcd"
    assert shown(b"a\x1b]Rb\x1b]P3ffeeddc")[0] == "abc"  # the palette of a Linux console ends by itself
    assert shown(b"a\x1b[>4;2mb\x1b[=1ub\x1b[2 qc\x1b Fd")[0] == "abbcd"
    assert shown(b"a\x1b[?3hb")[0] == "ab"  # no other width
    assert shown("a\u200db\ufe0fc\x01d".encode())[0] == "abcd"


def test_sequences_come_in_pieces() -> None:
    data = "\x1b[31mré\x1b]0;t\x07d\x1b[0m\x1b[2;3H語\x1b]P1ffffffx\x1b(B\x1b[1mend".encode()
    whole = Terminal(3, 20, ColorSystem.STANDARD)
    whole.feed(data)
    pieces = Terminal(3, 20, ColorSystem.STANDARD)
    for byte in data:
        pieces.feed(bytes([byte]))
    assert pieces.rows() == whole.rows()
    assert pieces.cursor() == whole.cursor()


def test_quick_way_of_drawing_is_that_of_pyte() -> None:
    chosen = random.Random(3)
    pieces = [b"\r\n", b"\x1b[31m", b"\x1b[0m", b"\x1b[4h", b"\x1b[4l", b"\x1b[?7l", b"\x1b[?7h", b"ab\b\b", b"\t"]
    pieces += [b"\x1b[2K", b"\x1b[3;6r", b"\x1b[5;17H", b"x" * 9, b"y" * 20, b"z" * 55, "語é".encode()]
    for _ in range(100):
        ours, theirs = Terminal(8, 20), pyte.Screen(20, 8)
        stream = pyte.ByteStream(theirs)
        for _ in range(30):
            data = chosen.choice(pieces)
            ours.feed(data)
            stream.feed(data)
        assert ours.screen.display == theirs.display
        assert (ours.screen.cursor.y, ours.screen.cursor.x) == (theirs.cursor.y, theirs.cursor.x)
        cells = [(y, x) for y in range(8) for x in range(20)]
        assert all(ours.screen.buffer[y][x] == theirs.buffer[y][x] for y, x in cells)


def test_resize_keeps_what_is_at_the_cursor() -> None:
    terminal = Terminal(10, 20)
    terminal.feed(b"one\r\ntwo\r\nthree three")
    terminal.resize(5, 8)
    assert terminal.text() == ["one", "two", "three th", "", ""]
    terminal.resize(2, 8)
    assert terminal.text() == ["two", "three th"]
    assert terminal.cursor() == (1, 7)
    terminal.resize(4, 30)
    terminal.feed(b"\r\nfour")
    assert terminal.text() == ["two", "three th", "four", ""]


def test_hostile_output() -> None:
    """Any output of a guest: no exception, rows as wide as the screen, a cursor within it, bounded memory."""
    chosen = random.Random(1)
    words = (
        "\x1b[|\x1b]|\x1b|?|;|1|99999|m|H|h|l|1049|47|3|\n|\r|\x07|\x1b\\|語|é|é\u0301\u0301\u0301\u0301\u0301|\x18|A|J"
    )
    words += "|K|L|M|P|@|r|c|n|6|38;5;|48;2;1;2;3|\x1b7|\x1b8|\x1bM|\t|\b|👍🏽|\u200d|#8|g|X|G|d|\x1b(0|5|\x0e|>|=| |$"
    pieces = [word.encode() for word in words.split("|")] + [b"\xff", b"\x9b", b"\xc2\x9b", b"\xc2\x9d"]
    for _ in range(150):
        terminal = Terminal(chosen.randrange(1, 30), chosen.randrange(1, 60))
        for _ in range(20):
            data = b"".join(chosen.choice(pieces) for _ in range(chosen.randrange(60)))
            terminal.feed(data if chosen.random() < 0.8 else chosen.randbytes(60))
            if chosen.random() < 0.2:
                terminal.resize(chosen.randrange(1, 30), chosen.randrange(1, 60))
            rows, cursor, screen = terminal.rows(), terminal.cursor(), terminal.screen
            assert len(rows) == len(terminal.text()) == screen.lines
            assert {sum(map(wcwidth, row)) for row in rows} == {screen.columns}
            assert cursor is None or (cursor[0] < screen.lines and cursor[1] < screen.columns)


@pytest.mark.parametrize(
    "endless", [b"\x1b]0;" + b"x" * 999, b"\x1b[" + b"1" * 999, b"e" + "\u0301".encode() * 499, b"\x1b7"]
)
def test_endless_output_takes_no_memory(endless: bytes) -> None:
    terminal = Terminal(4, 10)
    begin = time.process_time()
    terminal.feed(endless)
    for _ in range(300):
        terminal.feed(endless[2:] if endless[1:2] in b"[]" else endless)
    assert len(terminal._cleaner._rest) <= 64
    assert len(terminal.screen.savepoints) <= 16
    assert all(len(cell.data) <= 4 for row in terminal.screen.buffer.values() for cell in row.values())
    assert time.process_time() - begin < 60  # quadratic growth takes far longer
