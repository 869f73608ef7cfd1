# SPDX-License-Identifier: Apache-2.0
"""The output of `nabla-run --stats-fd` about a running VM: its lines, and the rates computed from them.

The counters are in memory that the guest can write to. A line is therefore only trusted to be numbers; lines that are
malformed, too long or too large are dropped.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

LINE_MAX = 8192  # bytes; the launcher's own lines are shorter than 2048
CALLS_MAX = 16  # the page's capacity
KEPT = 512  # samples, four in a second
_WINDOW = 1.0  # seconds over which a rate is taken
_INTERVAL = 0.25  # seconds between two lines; the first and the last one are extra
_NUMBER_MAX = 2**64 - 1
_NAME = re.compile(r"[a-z0-9_]{1,32}")


class _Line(msgspec.Struct):
    uptime_us: int
    host_calls: dict[str, int]
    boot_us: int | None = None


@dataclass(frozen=True)
class Sample:
    """The counters at one moment.

    `uptime`: seconds since the launcher started. `boot`: seconds from the kernel's first instruction to that of the
    first program, None while unknown. `calls`: how often each host call was made, in the order of the VM's list.
    """

    uptime: float
    boot: float | None
    calls: Mapping[str, int]


def parse(line: bytes) -> Sample | None:
    """Parse a line; None if its values are impossible."""
    try:
        read = msgspec.json.decode(line, type=_Line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    numbers = [read.uptime_us, *read.host_calls.values(), *([read.boot_us] if read.boot_us is not None else [])]
    if len(read.host_calls) > CALLS_MAX or not all(0 <= number <= _NUMBER_MAX for number in numbers):
        return None
    if not all(_NAME.fullmatch(name) for name in read.host_calls):
        return None
    boot = read.boot_us / 1e6 if read.boot_us is not None else None
    return Sample(read.uptime_us / 1e6, boot, read.host_calls)


@dataclass
class Lines:
    """Splits the bytes of a pipe into lines and parses them."""

    _rest: bytes = b""
    _skip: bool = False  # in the middle of a line that is too long

    def feed(self, data: bytes) -> list[Sample]:
        """Return the samples of the complete lines."""
        *lines, rest = (self._rest + data).split(b"\n")
        if lines and self._skip:
            del lines[0]
            self._skip = False
        if self._skip or len(rest) > LINE_MAX:
            rest, self._skip = b"", True
        self._rest = rest
        samples = (parse(line) for line in lines if len(line) <= LINE_MAX)
        return [sample for sample in samples if sample is not None]


@dataclass
class History:
    """The last samples and the rates computed from them. Before the first one every counter was 0."""

    samples: deque[Sample] = field(default_factory=lambda: deque([Sample(0.0, None, {})], maxlen=KEPT))
    totals: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))  # calls in a second, between two samples

    @property
    def last(self) -> Sample:
        """The latest sample."""
        return self.samples[-1]

    def add(self, sample: Sample) -> None:
        """Add a sample; one that is not later than the last is ignored."""
        time = sample.uptime - self.last.uptime
        if time <= 0:
            return
        grown = sum(_grown(self.last, sample, name) for name in sample.calls)
        self.samples.append(sample)
        self.totals.append(grown / max(time, _INTERVAL))

    def rate(self, name: str) -> float:
        """Return the rate of a call per second, over the last second."""
        now = self.last
        for before in reversed(self.samples):
            if now.uptime - before.uptime >= _WINDOW * 0.9:
                break
        # Shortly after the start, extrapolating to a full second would exaggerate the rate.
        return _grown(before, now, name) / max(now.uptime - before.uptime, _WINDOW)

    def used(self) -> int:
        """Return the number of different calls that occurred."""
        return sum(count > 0 for count in self.last.calls.values())


def _grown(before: Sample, after: Sample, name: str) -> int:
    # If a counter decreases, the guest has forged it.
    return max(0, after.calls.get(name, 0) - before.calls.get(name, 0))
