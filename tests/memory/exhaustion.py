# SPDX-License-Identifier: Apache-2.0
"""Processes that take all memory, in 1,000 rounds (bench/guest/hunger.c): small processes and the VM survive.

In turn, memory goes by malloc, mmap, forks, threads, /tmp, memfds, sockets, pipes, the page cache and shared mappings,
each with 1 to 50 processes. Processes that have little must outlive each round, whether they are older or younger than
those that eat. `python -m bench.memory` measures the same rounds. The result cache stores the outcome under the digest
of image, kernel and launcher.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from nabla.core import digest, process
from nabla.core.errors import CommandError, NablaError
from nabla.core.paths import IMAGES, NABLA_RUN, OUT, VMLINUX
from nabla.engine import result_cache

IMAGE = IMAGES / "test.ext3"
RESULT = OUT / "check" / "exhaustion.json"
PROGRAM = "/usr/lib/nabla-tests/hunger"
MEMORY = "64M"
ROUNDS = 1000
PROCESSES = 50
TIMEOUT = 7200.0  # seconds; a round takes less than one
REPORT = re.compile(r"^mixed: worst answer (\d+) ms, (\d+) starts refused, (\d+) rounds failed$", re.MULTILINE)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The program's report. `key`: digest of the inputs; `worst`: the longest wait for an answer in milliseconds."""

    key: str
    rounds: int
    worst: int
    refused: int
    failed: int


class ExhaustionError(NablaError):
    """A round ended a process that had little, or the machine."""


def parse(key: str, output: str) -> Result:
    """Return what the program reports. Raises `ExhaustionError` if there is no report, or a round failed."""
    report = REPORT.search(output)
    if not report:
        raise ExhaustionError("the rounds ended without a report", output[-2000:])
    worst, refused, failed = map(int, report.groups())
    if failed:
        raise ExhaustionError(f"{failed} of {ROUNDS} rounds failed", output[-2000:])
    return Result(key=key, rounds=ROUNDS, worst=worst, refused=refused, failed=failed)


def check(result: Path) -> Result:
    """Run the rounds, or restore their outcome from the cache; write it to `result`. Raises `ExhaustionError`."""
    machine = [digest.sha256_file(path) for path in (IMAGE, VMLINUX, NABLA_RUN)]
    key = result_cache.key("exhaustion", machine, MEMORY, ROUNDS, PROCESSES)
    return result_cache.outcome(key, "exhaustion", result, Result, lambda: _run(key))


def _run(key: str) -> Result:
    words = [str(NABLA_RUN), "--cold", "--ephemeral", "--memory", MEMORY, str(IMAGE), "--"]
    words += [PROGRAM, "mixed", str(ROUNDS), str(PROCESSES)]
    try:
        done = process.run(words, check=False, timeout=TIMEOUT)
    except CommandError as error:
        raise ExhaustionError(error.message, error.hint) from None
    return parse(key, done.stdout)
