# SPDX-License-Identifier: Apache-2.0
"""The demo's parts: lines of counters, rates, the guest's terminal, the layout of the window, the panel."""

from __future__ import annotations

import json
import os
import random
import re
import time

import pyte
import pytest
from rich.color import ColorSystem
from wcwidth import wcwidth

from demo import stats, terminal
from demo.screen import Terminal
from demo.stats import History, Lines, Sample
from demo.view import Facts, View, clock, layout, short
from nabla.core.errors import HostError

# Lines of counters


def line(uptime: object = 250_000, calls: object = None, **more: object) -> bytes:
    return json.dumps({"uptime_us": uptime, "host_calls": {"ppoll": 3} if calls is None else calls} | more).encode()


def test_a_line() -> None:
    sample = stats.parse(line(1_500_000, {"ppoll": 3, "preadv2": 0}, boot_us=7500, other=[1]))
    assert sample == Sample(1.5, 0.0075, {"ppoll": 3, "preadv2": 0})
    assert list(sample.calls) == ["ppoll", "preadv2"]
    unknown = stats.parse(line(boot_us=None))
    assert unknown is not None
    assert unknown.boot is None


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{}",
        b'{"uptime_us":1}',
        b'{"uptime_us":1,"host_calls":null}',
        b'{"uptime_us":NaN,"host_calls":{}}',
        b'{"uptime_us":1,"host_calls":{"a":1}}x',
        b"[" * 100_000,
        b'{"uptime_us":1,"host_calls":' + b'{"a":' * 5000,
        line(None),
        line("1"),
        line(1.5),
        line(-1),
        line(2**64),
        line(10**400),
        line(boot_us=-1),
        line(boot_us="fast"),
        line(calls={"ppoll": -1}),
        line(calls={"ppoll": 2**64}),
        line(calls={"ppoll": "3"}),
        line(calls={"ppoll": True}),
        line(calls={"\x1b[2J": 1}),
        line(calls={"": 1}),
        line(calls={"a b": 1}),
        line(calls={"a" * 33: 1}),
        line(calls={"ppoll\n": 1}),
        line(calls={f"call{n}": n for n in range(17)}),
    ],
)
def test_a_hostile_line(hostile: bytes) -> None:
    assert stats.parse(hostile) is None


def test_lines_come_in_pieces() -> None:
    data = b"".join(line(n * 1000) + b"\n" for n in range(1, 50))
    chosen = random.Random(5)
    lines, seen, at = Lines(), [], 0
    while at < len(data):
        size = chosen.randrange(1, 200)
        seen += [sample.uptime for sample in lines.feed(data[at : at + size])]
        at += size
    assert seen == [n / 1000 for n in range(1, 50)]


def test_a_line_without_end_takes_no_memory() -> None:
    lines = Lines()
    for _ in range(1000):
        assert lines.feed(b"x" * 5000) == []
        assert len(lines._rest) <= stats.LINE_MAX
    assert lines.feed(b"\n" + line() + b"\n") == [Sample(0.25, None, {"ppoll": 3})]
    # A line that is too long; the rest of a truncated line is not read as a separate line.
    assert lines.feed(line(other="x" * 9000) + b"\n" + line() + b"\n") == [Sample(0.25, None, {"ppoll": 3})]
    lines.feed(b"y" * 9000)
    assert lines.feed(line() + b"\n") == []


# Rates


def test_rates_are_over_the_last_second() -> None:
    history = History()
    for n in range(1, 13):
        history.add(Sample(n / 4, None, {"ppoll": 10 * n if n <= 8 else 80, "preadv2": 0}))
    assert history.last.uptime == 3.0
    assert history.rate("ppoll") == 0.0
    assert list(history.totals)[:8] == [40.0] * 8
    history.add(Sample(3.25, None, {"ppoll": 90, "preadv2": 0}))
    assert history.rate("ppoll") == pytest.approx(10.0)
    assert history.rate("unknown") == 0.0
    assert history.used() == 1


def test_rate_of_the_first_moments() -> None:
    history = History()
    history.add(Sample(0.02, None, {"ppoll": 40}))
    assert history.rate("ppoll") == 40.0
    assert list(history.totals) == [160.0]


def test_lies_about_time_and_counters() -> None:
    history = History()
    assert history.rate("ppoll") == 0.0
    history.add(Sample(1.0, None, {"ppoll": 100}))
    history.add(Sample(1.0, None, {"ppoll": 200}))  # not later
    history.add(Sample(0.5, None, {"ppoll": 200}))
    assert history.last.calls == {"ppoll": 100}
    history.add(Sample(2.0, None, {"ppoll": 5}))
    assert history.rate("ppoll") == 0.0
    assert min(history.totals) == 0.0
    for n in range(3 * stats.KEPT):
        history.add(Sample(3.0 + n, None, {"ppoll": 2**64 - 1}))
    assert len(history.samples) == len(history.totals) == stats.KEPT


# The guest's terminal


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


# The window


@pytest.mark.parametrize("cols", [1, 2, 19, 40, 71, 72, 80, 100, 132, 400, 2000])
@pytest.mark.parametrize("rows", [1, 2, 10, 23, 24, 30, 100, 999])
def test_layout_fills_the_window(rows: int, cols: int) -> None:
    place = layout(rows, cols)
    guest, panel = place.guest, place.panel
    assert (guest.top, guest.left) == (0, 0)
    if panel is None:
        assert (guest.rows, guest.cols) == (rows, cols)
    elif panel.top == 0:
        assert guest.cols + 1 == panel.left
        assert panel.left + panel.cols == cols
        assert guest.rows == panel.rows == rows
        assert guest.cols >= 36
    else:
        assert guest.rows + 1 == panel.top
        assert panel.top + panel.rows == rows
        assert guest.cols == panel.cols == cols
    assert (panel is None) == (cols < 72 and rows < 24)


def test_layout_of_no_window() -> None:
    assert layout(0, 0).guest.rows == layout(0, 0).guest.cols == 1


def example(count: int = 1234) -> History:
    history = History()
    for n in range(1, 9):
        calls = {"preadv2": 40 + n, "pwritev2": count * n, "fdatasync": 1, "timer_settime": 5, "clock_gettime": 0}
        history.add(Sample(n / 4, 0.0075, calls))
    return history


ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("size", [(24, 80), (50, 132), (30, 60), (24, 30), (24, 1), (1, 72), (10, 100)])
@pytest.mark.parametrize("colors", [None, "standard", "256", "truecolor"])
@pytest.mark.parametrize("utf8", [True, False])
def test_panel_fits_its_area(size: tuple[int, int], colors: str | None, utf8: bool) -> None:
    view, area = View(colors, utf8), layout(*size).panel
    assert area is not None
    for history in (History(), example(), example(2**60)):
        rows = view.panel(history, Facts("256M", 23 << 20), area)
        plain = [ESCAPE.sub("", row) for row in rows]
        assert len(rows) == area.rows
        assert {len(row) for row in plain} <= {area.cols, 2}
        assert colors is not None or rows == plain
        assert utf8 or "".join(plain).isascii()


def test_panel_tells_everything() -> None:
    place = layout(24, 80)
    assert place.panel is not None
    text = "\n".join(View(None).panel(example(), Facts("256M", 23 << 20), place.panel))
    for name, rate, count in (
        ("preadv2", 4, 48),
        ("pwritev2", 4936, 9872),
        ("fdatasync", 0, 1),
        ("clock_gettime", 0, 0),
    ):
        assert re.search(rf"{name} +[█▉▊▋▌▍▎▏]* +{rate}(\.0)? +{count} *\n", text), text
    for fact in ("4 used, 5 allowed", "2.0 s", "7.5 ms", "23 MB of 256M", "ctrl-] leaves"):
        assert fact in text
    ended = "\n".join(View(None).panel(example(), Facts("256M", ended=3), place.panel))
    assert "ended with status 3" in ended


def test_histogram_has_the_right_lengths() -> None:
    """The greatest number has the longest bar, 0 has none, and a small number is visible beside a large one."""
    place = layout(24, 132)
    assert place.panel is not None
    rows = View(None, utf8=False).panel(example(), Facts("256M"), place.panel)
    bars = {row.split()[0]: row.count("#") for row in rows if "#" in row or "clock_gettime" in row}
    assert bars["pwritev2"] > bars["preadv2"] > bars["timer_settime"] > bars["fdatasync"] > bars["clock_gettime"] == 0


def test_frame() -> None:
    view, size = View(None, utf8=False), (24, 80)
    place = layout(*size)
    assert place.panel is not None
    guest, panel = ["g" * place.guest.cols] * 24, ["p" * place.panel.cols] * 24
    screen = pyte.Screen(80, 24)
    pyte.Stream(screen).feed("\r\n".join(view.frame(size, guest, panel)))
    assert set(screen.display) == {"g" * place.guest.cols + "|" + "p" * place.panel.cols}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.31, "0.3"),
        (4, "4"),
        (9.96, "10"),
        (9999, "9999"),
        (9999.6, "10k"),
        (1_234_567, "1.2M"),
        (999_499, "999k"),
        (999_999, "1.0M"),
        (2**64, "18E"),
        (1e40, "lots"),
    ],
)
def test_short_numbers(number: float, text: str) -> None:
    assert short(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (59.99, "59.9 s"), (60, "1:00 min"), (3599, "59:59 min"), (7384, "2:03:04 h")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_without_a_terminal() -> None:
    """pytest's standard input is not a terminal."""
    keep, null = os.dup(0), os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    try:
        with pytest.raises(HostError, match="needs a terminal") as told:
            terminal.check()
    finally:
        os.dup2(keep, 0)
        os.close(keep)
        os.close(null)
    assert told.value.hint
