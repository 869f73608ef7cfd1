# SPDX-License-Identifier: Apache-2.0
"""Many boots in a row, each of which must end with the status it was asked for and the right output.

python -m bench.soak [--boots 1000] [--jobs 1]
"""

from __future__ import annotations

import argparse
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from bench import common
from nabla import log


def boot(words: list[str], number: int) -> str | None:
    """Boot once; returns what went wrong, or None."""
    status = number % 256
    script = f"echo boot {number}; exit {status}"
    try:
        finished = subprocess.run(
            [*words, "--", "/bin/sh", "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"boot {number}: no end within 60 s"
    if finished.returncode != status or finished.stdout != f"boot {number}\n".encode():
        told = (finished.stdout + finished.stderr).decode(errors="replace").strip()
        return f"boot {number}: exit status {finished.returncode} instead of {status}: {told[-500:]}"
    return None


def main() -> int:
    """Boot, count, save; exit status 1 when one boot went wrong."""
    parser = argparse.ArgumentParser(prog="bench.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--boots", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--jobs", type=int, default=1, help="machines at the same time (1)")
    options = parser.parse_args()
    words = common.machine("minimal")
    began = time.perf_counter()
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(partial(boot, words), range(options.boots)))
    took = time.perf_counter() - began
    wrong = [outcome for outcome in outcomes if outcome]
    results = {"boots": options.boots, "jobs": options.jobs, "seconds": round(took, 2), "wrong": wrong}
    log.info(f"written to {common.save('soak', results)}")
    for line in wrong[:20]:
        print(line)
    print(f"{options.boots - len(wrong)} of {options.boots} boots right, {took / options.boots * 1000:.1f} ms each")
    return 1 if wrong else 0


if __name__ == "__main__":
    common.start(main)
