# SPDX-License-Identifier: Apache-2.0
"""Many boots in a row, each of which must end with the expected status and output.

python -m bench.soak [--boots 1000] [--jobs 1]
"""

from __future__ import annotations

import argparse
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from bench import common
from nabla.core import log


def boot(words: list[str], number: int) -> str | None:
    """Boot once; returns a description of the failure, or None."""
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
        output = (finished.stdout + finished.stderr).decode(errors="replace").strip()
        return f"boot {number}: exit status {finished.returncode} instead of {status}: {output[-500:]}"
    return None


def main() -> int:
    """Boot, count, save; exit status 1 if a boot failed."""
    parser = argparse.ArgumentParser(prog="bench.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--boots", type=int, default=1000, help="number of boots (1000)")
    parser.add_argument("--jobs", type=int, default=1, help="parallel VMs (1)")
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
