# SPDX-License-Identifier: Apache-2.0
"""What was measured, for the report: the committed files of bench/results/, as tables.

A release must come out the same twice, so that nothing of it is timed while it is made: these files are inputs like any
other, written by the programs in bench/ on a machine that they describe.

    build.json           seconds of each step of a build from nothing   python -m bench.build_times LOG
    boot.json            milliseconds from start to exit                python -m bench.boot --commit
    latency.json         nanoseconds of single operations               python -m bench.latency --commit
    network.json         a server in the guest and on the host          python -m bench.network (then copied)
    host-syscalls.json   host calls a second                            python -m bench.host_calls --commit
    upstream-tests.json  what came of upstream's own tests              python -m bench.upstream_tests
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from nabla.core.errors import ConfigError
from nabla.core.paths import ROOT, relative
from nabla.core.results import read
from nabla.policy.document import Rates

RESULTS = ROOT / "bench" / "results"
BUILD = RESULTS / "build.json"
BOOT = RESULTS / "boot.json"
LATENCY = RESULTS / "latency.json"
NETWORK = RESULTS / "network.json"
UPSTREAM = RESULTS / "upstream-tests.json"
# Written by `doit check:busybox`, committed as a page of the documentation.
BUSYBOX = ROOT / "docs" / "busybox-testsuite.md"

_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of a measurement. `load`: its load average when the measurement ended, where that is known."""

    cpu: str
    cores: int
    kernel: str
    date: str
    load: float | None = None


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One task of doit, and the seconds that it took."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    seconds: _Seconds


class BuildTimes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The steps of one build, in the order in which they ended."""

    host: Host
    steps: Annotated[tuple[Step, ...], msgspec.Meta(min_length=1)]


class UpstreamTests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What came of the tests of one package. `tree`: digest of the files that were tested, as in its record."""

    recipe: str
    version: str
    tree: str
    tests: int
    failed: int


class _Timing(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    runs: int
    median: float
    min: float
    p95: float


class _BootFile(msgspec.Struct, frozen=True, kw_only=True):
    host: Host
    results: tuple[_Timing, ...]


class _Latencies(msgspec.Struct, frozen=True, kw_only=True):
    guest: dict[str, float]
    host: dict[str, float]


class _LatencyFile(msgspec.Struct, frozen=True, kw_only=True):
    host: Host
    results: _Latencies


class _Pair(msgspec.Struct, frozen=True, kw_only=True):
    guest: float
    host: float


class _Throughput(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    unit: str
    best: _Pair


class _Throughputs(msgspec.Struct, frozen=True, kw_only=True):
    runs: int
    measurements: tuple[_Throughput, ...]


class _NetworkFile(msgspec.Struct, frozen=True, kw_only=True):
    host: Host
    results: _Throughputs


@dataclass(frozen=True)
class Benchmark:
    """A table of the report: the first column holds names, the others numbers. `command`: what measures it."""

    title: str
    about: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    host: Host
    command: str


def read_build(path: Path) -> BuildTimes:
    """Read how long a build took. Raises `ConfigError`."""
    return read(path, BuildTimes, "measure: ./doit.sh 2>&1 | tee LOG; python -m bench.build_times LOG")


def read_upstream(path: Path) -> tuple[UpstreamTests, ...]:
    """Read what came of upstream's own tests. Raises `ConfigError`."""
    return read(path, tuple[UpstreamTests, ...], "run: ./doit.sh check; python -m bench.upstream_tests")


def read_busybox(path: Path) -> tuple[int, int, int]:
    """Read what came of busybox's own suite in the guest: passed, failed, skipped. Raises `ConfigError`."""
    match = re.search(r"^\| guest, ours \| (\d+) \| (\d+) \| (\d+) \|", path.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise ConfigError(f"{relative(path)} has no row about the guest", "run `doit check:busybox`")
    return int(match[1]), int(match[2]), int(match[3])


def benchmarks(boot: Path, latency: Path, network: Path) -> list[Benchmark]:
    """Return the tables of what was measured. Raises `ConfigError`."""
    return [_boot(boot), _latency(latency), _network(network)]


def host_calls(rates: Rates) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return head and rows of a table: host calls a second by kind, for each load."""
    names = dict.fromkeys(name for load in rates.loads for name in load.calls)
    rows = [(name, *(load.rate(name) for load in rates.loads)) for name in names]
    rows.append(("all", *(load.total() for load in rates.loads)))
    return ("call", *(load.name for load in rates.loads)), rows


def _boot(path: Path) -> Benchmark:
    found = read(path, _BootFile, "measure: python -m bench.boot --commit")
    return Benchmark(
        title="Start to exit",
        about="Milliseconds from the start of the process to its end, 64 MB. First the kernel with an init that exits "
        "at once; then launcher, kernel, our init and a dynamic program; to compare, that program in new namespaces.",
        head=("what", "median", "least", "95 of 100", "runs"),
        rows=tuple((r.name, f"{r.median:.2f}", f"{r.min:.2f}", f"{r.p95:.2f}", str(r.runs)) for r in found.results),
        host=found.host,
        command="python -m bench.boot",
    )


def _latency(path: Path) -> Benchmark:
    found = read(path, _LatencyFile, "measure: python -m bench.latency --commit")
    guest, host = found.results.guest, found.results.host
    if guest.keys() != host.keys():
        raise ConfigError(f"{relative(path)}: guest and host did not measure the same")
    return Benchmark(
        title="Operations of the kernel",
        about="Nanoseconds of one operation, the best of several batches; the same program runs in the guest and on "
        "the host. Below 1 in the last column the guest is the faster one.",
        head=("operation", "guest", "host", "guest / host"),
        rows=tuple((n.replace("_", " "), _ns(guest[n]), _ns(host[n]), _ratio(guest[n] / host[n])) for n in guest),
        host=found.host,
        command="python -m bench.latency",
    )


def _network(path: Path) -> Benchmark:
    found = read(path, _NetworkFile, "measure: python -m bench.network")
    return Benchmark(
        title="A server behind a published port",
        about=f"The client runs on the host, the same server in the guest and on the host; the best of "
        f"{found.results.runs} runs.",
        head=("what", "unit", "guest", "host", "guest / host"),
        rows=tuple(
            (m.name, m.unit, f"{m.best.guest:,.0f}", f"{m.best.host:,.0f}", _ratio(m.best.guest / m.best.host))
            for m in found.results.measurements
        ),
        host=found.host,
        command="python -m bench.network",
    )


def _ns(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _ratio(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def as_json(value: Any) -> bytes:
    """Return results as the text of a file: one space of indent, a line end at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
