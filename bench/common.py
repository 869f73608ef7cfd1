# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the measurements: repeated runs of commands, a description of the host, JSON results, tables."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from nabla.core.errors import NablaError
from nabla.core.paths import IMAGES, NABLA_RUN, OUT, VMLINUX, relative
from nabla.report import benchmarks

RESULTS = OUT / "bench"
COMMITTED = benchmarks.RESULTS


@dataclass(frozen=True)
class Timing:
    """Wall-clock times of repeated runs of one command, in milliseconds."""

    name: str
    command: tuple[str, ...]
    times: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """Return the figures for the JSON file, including every single time."""
        ordered = sorted(self.times)
        return {
            "name": self.name,
            "command": list(self.command),
            "unit": "ms",
            "runs": len(ordered),
            "median": round(statistics.median(ordered), 3),
            "mean": round(statistics.fmean(ordered), 3),
            "deviation": round(statistics.pstdev(ordered), 3),
            "min": round(ordered[0], 3),
            "p95": round(ordered[int(len(ordered) * 0.95)], 3),
            "max": round(ordered[-1], 3),
            "times": [round(each, 3) for each in self.times],
        }


def repeat(name: str, command: Sequence[str], *, runs: int, warmup: int, status: int | None = 0) -> Timing:
    """Run a command repeatedly with its streams at /dev/null. `status` None accepts any exit status."""
    times: list[float] = []
    for turn in range(warmup + runs):
        began = time.perf_counter_ns()
        finished = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        took = (time.perf_counter_ns() - began) / 1e6
        if status is not None and finished.returncode != status:
            message = finished.stderr.decode(errors="replace").strip()
            raise NablaError(f"{name}: exit status {finished.returncode} in run {turn + 1}", message)
        if turn >= warmup:
            times.append(took)
    return Timing(name, tuple(command), tuple(times))


def interleave(
    commands: Mapping[str, Sequence[str]], *, runs: int, warmup: int, any_status: Collection[str] = ()
) -> list[Timing]:
    """Time several commands in turns of ten, so that other load on the host affects all of them.

    Each must exit with status 0, except those in `any_status`. Raises `NablaError` otherwise.
    """
    gathered: dict[str, list[float]] = {name: [] for name in commands}
    for name, command in commands.items():
        repeat(name, command, runs=1, warmup=warmup, status=None if name in any_status else 0)
    while any(len(times) < runs for times in gathered.values()):
        for name, command in commands.items():
            left = min(10, runs - len(gathered[name]))
            if left > 0:
                status = None if name in any_status else 0
                gathered[name] += repeat(name, command, runs=left, warmup=0, status=status).times
    return [Timing(name, tuple(command), tuple(gathered[name])) for name, command in commands.items()]


def host_facts() -> dict[str, Any]:
    """Describe the properties of this host that affect the figures."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release().partition("-")[0],
        "load": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def need(*paths: Path) -> None:
    """Raise `NablaError` with a hint if an artifact to be measured is missing."""
    for path in paths:
        if not path.exists():
            raise NablaError(f"{relative(path)} is missing", "build it: ./doit.sh")


def machine(image: str, *command: str, memory: str = "64M", options: Sequence[str] = ()) -> list[str]:
    """Return the command line that boots a VM and runs a command in it."""
    need(NABLA_RUN, VMLINUX, IMAGES / f"{image}.ext3")
    words = [str(NABLA_RUN), "--cold", "--memory", memory, "--ephemeral", *options, str(IMAGES / f"{image}.ext3")]
    return [*words, "--", *command] if command else words


def save(name: str, results: Any, folder: Path = RESULTS) -> Path:
    """Write results with the description of the host to NAME.json in a folder: out/bench, or COMMITTED."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"bench": name, "host": host_facts(), "results": results}, indent=1) + "\n")
    return path


def table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a Markdown table with right-aligned numbers; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(_cell(text, width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def timings(title: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Format the records of timings, see `Timing.record`, as a table; `title` heads the column of names."""
    figures = ("median", "mean", "min", "p95")
    return table([[title, *figures], *([r["name"], *(f"{r[figure]:.2f}" for figure in figures)] for r in records)])


def _cell(text: str, width: int) -> str:
    return text.rjust(width) if text[:1].isdigit() else text.ljust(width)


def start(main: Callable[[], int]) -> NoReturn:
    """Run a measurement as a program; an error is one line on standard error."""
    try:
        sys.exit(main())
    except NablaError as error:
        sys.exit(error.render())
