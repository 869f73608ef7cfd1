# SPDX-License-Identifier: Apache-2.0
"""The measurements of the report: tables from the committed files in bench/results/.

A release is reproducible, so its build measures nothing: these files are inputs, which the programs in bench/ write on
a machine that the files describe.

    build.json           seconds of each step of a build from nothing   python -m bench.build_times LOG
    boot.json            milliseconds from start to exit                python -m bench.boot --commit
    latency.json         nanoseconds of single operations               python -m bench.latency --commit
    network.json         a server in the guest and on the host          python -m bench.network (then copied)
    host-syscalls.json   host calls per second                          python -m bench.host_calls --commit
    upstream-tests.json  results of upstream's tests                    python -m bench.upstream_tests
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
    """The machine of a measurement. `load`: its load average at the end of the measurement, if known."""

    cpu: str
    cores: int
    kernel: str
    date: str
    load: float | None = None


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One task of doit and its duration."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    seconds: _Seconds


class BuildTimes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The steps of one build, in the order of their ends."""

    host: Host
    steps: Annotated[tuple[Step, ...], msgspec.Meta(min_length=1)]


class UpstreamTests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The result of one package's tests. `tree`: digest of the tested files, as in its record."""

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
    """A table of the report: names in the first column, numbers in the others. `command`: measures it."""

    title: str
    about: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    host: Host
    command: str


def read_build(path: Path) -> BuildTimes:
    """Read the durations of a build. Raises `ConfigError`."""
    return read(path, BuildTimes, "measure: ./doit.sh 2>&1 | tee LOG; python -m bench.build_times LOG")


def read_upstream(path: Path) -> tuple[UpstreamTests, ...]:
    """Read the results of upstream's tests. Raises `ConfigError`."""
    return read(path, tuple[UpstreamTests, ...], "run: ./doit.sh check; python -m bench.upstream_tests")


def read_busybox(path: Path) -> tuple[int, int, int]:
    """Read the results of busybox's suite in the guest: passed, failed, skipped. Raises `ConfigError`."""
    match = re.search(r"^\| guest, ours \| (\d+) \| (\d+) \| (\d+) \|", path.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise ConfigError(f"{relative(path)} has no row about the guest", "run `doit check:busybox`")
    return int(match[1]), int(match[2]), int(match[3])


def benchmarks(boot: Path, latency: Path, network: Path) -> list[Benchmark]:
    """Return the tables of measurements. Raises `ConfigError`."""
    return [_boot(boot), _latency(latency), _network(network)]


def host_calls(rates: Rates) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return head and rows of a table: host calls per second by kind, for each load."""
    names = dict.fromkeys(name for load in rates.loads for name in load.calls)
    rows = [(name, *(load.rate(name) for load in rates.loads)) for name in names]
    rows.append(("all", *(load.total() for load in rates.loads)))
    return ("call", *(load.name for load in rates.loads)), rows


def _boot(path: Path) -> Benchmark:
    results = read(path, _BootFile, "measure: python -m bench.boot --commit")
    return Benchmark(
        title="Start to exit",
        about="Milliseconds from the start of the process to its end, 64 MB. First the kernel with an init that exits "
        "at once; then launcher, kernel, nabla-init and a dynamic program; for comparison the program in namespaces.",
        head=("operation", "median", "minimum", "95 of 100", "runs"),
        rows=tuple((r.name, f"{r.median:.2f}", f"{r.min:.2f}", f"{r.p95:.2f}", str(r.runs)) for r in results.results),
        host=results.host,
        command="python -m bench.boot",
    )


def _latency(path: Path) -> Benchmark:
    results = read(path, _LatencyFile, "measure: python -m bench.latency --commit")
    guest, host = results.results.guest, results.results.host
    if guest.keys() != host.keys():
        raise ConfigError(f"{relative(path)}: guest and host measured different operations")
    return Benchmark(
        title="Operations of the kernel",
        about="Nanoseconds of one operation, the best of several batches; the same program runs in the guest and on "
        "the host. If the last column is below 1, the guest is faster.",
        head=("operation", "guest", "host", "guest / host"),
        rows=tuple((n.replace("_", " "), _ns(guest[n]), _ns(host[n]), _ratio(guest[n] / host[n])) for n in guest),
        host=results.host,
        command="python -m bench.latency",
    )


def _network(path: Path) -> Benchmark:
    results = read(path, _NetworkFile, "measure: python -m bench.network")
    return Benchmark(
        title="A server behind a published port",
        about=f"The client runs on the host, the same server in the guest and on the host; the best of "
        f"{results.results.runs} runs.",
        head=("operation", "unit", "guest", "host", "guest / host"),
        rows=tuple(
            (m.name, m.unit, f"{m.best.guest:,.0f}", f"{m.best.host:,.0f}", _ratio(m.best.guest / m.best.host))
            for m in results.results.measurements
        ),
        host=results.host,
        command="python -m bench.network",
    )


def _ns(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _ratio(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def as_json(value: Any) -> bytes:
    """Return results as the text of a file, with an indent of one space and a line feed at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
