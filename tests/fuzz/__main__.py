# SPDX-License-Identifier: Apache-2.0
"""Run fuzzers for as long as one likes: python -m tests.fuzz [NAME…] [--time SECONDS] [--seed N] [--jobs N] [--keep].

Findings are printed and, with --keep, become files in tests/fuzz/crashes/, which the tests read.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from . import files, rebuilds, sandboxes, stores
from .engine import for_seconds, keep, run
from .fuzzers import FUZZERS


def main() -> int:
    """Give each fuzzer its share of the time; the status says whether anything was found."""
    parser = argparse.ArgumentParser(prog="doit fuzz", description="Run the fuzzers of the VM and of the build.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(FUZZERS)}; default: all")
    parser.add_argument("--time", type=float, default=60.0, metavar="SECONDS", help="for each fuzzer (60)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the first round; default: a random one")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="rounds at a time (1); most of a round is waiting"
    )
    parser.add_argument("--keep", action="store_true", help="write findings to tests/fuzz/crashes/")
    words = parser.parse_args()
    unknown = [name for name in words.names if name not in FUZZERS]
    if unknown:
        parser.error(f"there is no fuzzer {unknown[0]}; there are {', '.join(FUZZERS)}")
    count = 0
    for name in words.names or FUZZERS:
        fuzzer = FUZZERS[name]
        seed = words.seed if words.seed is not None else random.randrange(1 << 32)
        began, rounds = time.monotonic(), 0
        jobs = (
            1
            if fuzzer in (*sandboxes.FUZZERS, *files.FUZZERS, *stores.FUZZERS, *rebuilds.FUZZERS)
            else max(words.jobs, 1)
        )
        for _, finding in run(fuzzer, seed, for_seconds(words.time), jobs):
            rounds += 1
            if finding:
                count += 1
                print(finding.text(), flush=True)
                if words.keep:
                    print(f"kept in {keep(finding)}", flush=True)
        took = time.monotonic() - began
        print(f"{name}: {rounds * fuzzer.each:,} {fuzzer.unit} in {took:.0f} s from seed {seed}", flush=True)
    return 1 if count else 0


sys.exit(main())
