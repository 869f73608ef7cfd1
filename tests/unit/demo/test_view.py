# SPDX-License-Identifier: Apache-2.0
"""The window of the demo: its layout, the panel of host calls, and the demo without a terminal."""

from __future__ import annotations

import os
import re

import pyte
import pytest

from demo import terminal
from demo.stats import History, Sample
from demo.view import Status, View, clock, layout, short
from nabla.core.errors import HostError


@pytest.mark.parametrize("cols", [1, 2, 19, 40, 71, 72, 80, 100, 132, 400, 2000])
@pytest.mark.parametrize("rows", [1, 2, 10, 23, 24, 30, 100, 999])
def test_layout_fills_the_window(rows: int, cols: int) -> None:
    areas = layout(rows, cols)
    guest, panel = areas.guest, areas.panel
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
        rows = view.panel(history, Status("256M", 23 << 20), area)
        plain = [ESCAPE.sub("", row) for row in rows]
        assert len(rows) == area.rows
        assert {len(row) for row in plain} <= {area.cols, 2}
        assert colors is not None or rows == plain
        assert utf8 or "".join(plain).isascii()


def test_panel_tells_everything() -> None:
    areas = layout(24, 80)
    assert areas.panel is not None
    text = "\n".join(View(None).panel(example(), Status("256M", 23 << 20), areas.panel))
    for name, rate, count in (
        ("preadv2", 4, 48),
        ("pwritev2", 4936, 9872),
        ("fdatasync", 0, 1),
        ("clock_gettime", 0, 0),
    ):
        assert re.search(rf"{name} +[█▉▊▋▌▍▎▏]* +{rate}(\.0)? +{count} *\n", text), text
    for fact in ("4 used, 5 allowed", "2.0 s", "7.5 ms", "23 MB of 256M", "ctrl-] leaves"):
        assert fact in text
    ended = "\n".join(View(None).panel(example(), Status("256M", ended=3), areas.panel))
    assert "ended with status 3" in ended


def test_histogram_has_the_right_lengths() -> None:
    """The greatest number has the longest bar, 0 has none, and a small number is visible beside a large one."""
    areas = layout(24, 132)
    assert areas.panel is not None
    rows = View(None, utf8=False).panel(example(), Status("256M"), areas.panel)
    bars = {row.split()[0]: row.count("#") for row in rows if "#" in row or "clock_gettime" in row}
    assert bars["pwritev2"] > bars["preadv2"] > bars["timer_settime"] > bars["fdatasync"] > bars["clock_gettime"] == 0


def test_frame() -> None:
    view, size = View(None, utf8=False), (24, 80)
    areas = layout(*size)
    assert areas.panel is not None
    guest, panel = ["g" * areas.guest.cols] * 24, ["p" * areas.panel.cols] * 24
    screen = pyte.Screen(80, 24)
    pyte.Stream(screen).feed("\r\n".join(view.frame(size, guest, panel)))
    assert set(screen.display) == {"g" * areas.guest.cols + "|" + "p" * areas.panel.cols}


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
        with pytest.raises(HostError, match="needs a terminal") as raised:
            terminal.check()
    finally:
        os.dup2(keep, 0)
        os.close(keep)
        os.close(null)
    assert raised.value.hint
