# SPDX-License-Identifier: Apache-2.0
"""Run the VM's fuzzers for a given time: `doit fuzz[:NAME] [--time SECONDS] [--seed N] [--jobs N] [--keep]`.

The fuzzers themselves are in tests/fuzz; the tests run a few seconds of each.
"""

from __future__ import annotations

import sys

from nabla.core import process
from nabla.core.errors import CommandError
from nabla.core.paths import ROOT

# The same names as in tests/fuzz/fuzzers.py.
NAMES = (
    "calls",
    "families",
    "exec",
    "frames",
    "trace",
    "disks",
    "snapshots",
    "headers",
    "lists",
    "wires",
    "shares",
    "bundles",
    "control",
    "agent",
    "sessions",
    "denials",
    "sandboxes",
    "trees",
    "elves",
    "archives",
    "descriptions",
    "entries",
    "rebuilds",
)
PARAMS = [
    {"name": "time", "long": "time", "type": float, "default": 60.0, "help": "seconds for each fuzzer"},
    {"name": "seed", "long": "seed", "type": str, "default": "", "help": "seed of the first round; default: random"},
    {"name": "jobs", "long": "jobs", "type": int, "default": 1, "help": "rounds at a time"},
    {"name": "keep", "long": "keep", "type": bool, "default": False, "help": "turn findings into tests"},
]


def run_fuzzers(names: list[str], time: float, seed: str, jobs: int, keep: bool) -> None:
    """Run tests/fuzz on the caller's terminal. Raises `CommandError` if a fuzzer has findings."""
    words = [*names, "--time", str(time), "--jobs", str(jobs)]
    words += [*(["--seed", seed] if seed else []), *(["--keep"] if keep else [])]
    if process.interactive([sys.executable, "-m", "tests.fuzz", *words], cwd=ROOT) != 0:
        raise CommandError("the fuzzers have findings", "see above; --keep turns them into tests")
