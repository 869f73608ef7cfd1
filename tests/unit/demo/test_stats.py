# SPDX-License-Identifier: Apache-2.0
"""The demo's counters: lines of the launcher, hostile ones too, and rates."""

from __future__ import annotations

import json
import random

import pytest

from demo import stats
from demo.stats import History, Lines, Sample


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
