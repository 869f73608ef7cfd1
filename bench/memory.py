# SPDX-License-Identifier: Apache-2.0
"""Processes that take all memory, round after round, and the VM's response time under this load.

python -m bench.memory [--rounds 1000] [--processes 50] [--memory 64M …]

In turn, malloc, mmap, forks, threads, /tmp, memfds, sockets, pipes, the page cache and shared mappings use up the
memory. Small processes must survive each round; otherwise the exit status is 1.
"""

from __future__ import annotations

import argparse
import re
import subprocess

from bench import common
from nabla.core import log
from nabla.core.errors import NablaError

PROGRAM = "/usr/lib/nabla-tests/hunger"
REPORT = re.compile(r"^mixed: worst answer (\d+) ms, (\d+) starts refused, (\d+) rounds failed$", re.MULTILINE)


def rounds_at(memory: str, rounds: int, processes: int) -> dict[str, int | str]:
    """Run the rounds in one VM. Raises `NablaError` if the program in it does not report."""
    words = common.machine("test", PROGRAM, "mixed", str(rounds), str(processes), memory=memory)
    finished = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    report = REPORT.search(finished.stdout)
    if not report:
        raise NablaError(f"{memory}: exit status {finished.returncode} without a report", finished.stdout[-500:])
    for line in finished.stdout.splitlines()[:-1]:
        print(f"{memory}: {line}")
    worst, refused, failed = map(int, report.groups())
    return {"memory": memory, "rounds": rounds, "worst_ms": worst, "refused": refused, "failed": failed}


def main() -> int:
    """Run, print, save."""
    parser = argparse.ArgumentParser(prog="bench.memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000, help="for each VM (1000)")
    parser.add_argument("--processes", type=int, default=50, help="at most, in a round (50)")
    parser.add_argument("--memory", action="append", help="of a VM; repeatable (64M)")
    options = parser.parse_args()
    results = [rounds_at(memory, options.rounds, options.processes) for memory in options.memory or ["64M"]]
    log.info(f"written to {common.save('memory', results)}")
    rows = [["memory", "rounds", "worst answer", "starts refused", "rounds failed"]]
    rows += [
        [str(r["memory"]), str(r["rounds"]), f"{r['worst_ms']} ms", str(r["refused"]), str(r["failed"])]
        for r in results
    ]
    print(common.table(rows))
    return 1 if any(r["failed"] for r in results) else 0


if __name__ == "__main__":
    common.start(main)
