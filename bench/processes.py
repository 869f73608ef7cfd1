# SPDX-License-Identifier: Apache-2.0
"""The cost of fork, with the same static binary in the guest and on the host (bench/guest/processes.c).

    python -m bench.processes [--memory MB] [--commit]

`--memory` is the maximum memory of the measured process, 300 MB by default. `--commit` also writes
bench/results/processes.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from typing import Any

from bench import common
from nabla.core import log
from nabla.core.errors import NablaError
from nabla.core.paths import GUEST_TESTS

PROGRAM = "/usr/lib/nabla-tests/processes"


def measure(command: list[str]) -> dict[str, float]:
    """Run the program, pinned to one processor, and return its figures in microseconds."""
    finished = subprocess.run(
        ["taskset", "-c", "0", *command], capture_output=True, text=True, timeout=600, check=False
    )
    if finished.returncode != 0:
        raise NablaError(f"{command[0]}: exit status {finished.returncode}", finished.stderr.strip())
    figures: dict[str, float] = json.loads(finished.stdout)
    return figures


def main() -> int:
    """Measure both, save, print the table."""
    parser = argparse.ArgumentParser(prog="bench.processes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--memory", type=int, default=300, metavar="MB", help="maximum memory of a process")
    parser.add_argument("--commit", action="store_true", help="write bench/results/processes.json too")
    options = parser.parse_args()
    common.need(GUEST_TESTS / "processes")
    # A mapping needs a free stretch of the next power of two, in addition to the other memory.
    room = f"{4 * options.memory + 256}M"
    guest = measure(common.machine("test", PROGRAM, str(options.memory), memory=room))
    host = measure([str(GUEST_TESTS / "processes"), str(options.memory)])
    results: dict[str, Any] = {"unit": "us", "guest": guest, "host": host}
    log.info(f"written to {common.save('processes', results)}")
    if options.commit:
        log.info(f"written to {common.save('processes', results, common.COMMITTED)}")
    rows = [["operation, µs", "guest", "host", "host / guest"]]
    rows += [[name, f"{guest[name]:.1f}", f"{host[name]:.1f}", f"{host[name] / guest[name]:.1f}"] for name in guest]
    print(common.table(rows))
    return 0


if __name__ == "__main__":
    common.start(main)
