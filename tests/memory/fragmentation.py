# SPDX-License-Identifier: Apache-2.0
"""A mixture of programs, mappings, threads, files and sockets (bench/guest/mixture.c) in VMs of several sizes.

Every program must start while a quarter of the memory is free. At the end, half of what is free must fit in one
mapping. The result cache stores the outcome under the digest of image, kernel and launcher.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from nabla.core import digest, process
from nabla.core.errors import CommandError, NablaError
from nabla.core.paths import IMAGES, NABLA_RUN, OUT, VMLINUX
from nabla.engine import result_cache

IMAGE = IMAGES / "test.ext3"
RESULT = OUT / "check" / "fragmentation.json"
PROGRAM = "/usr/lib/nabla-tests/mixture"
MEMORIES = ("64M", "128M", "256M")
SECONDS = 1800
TIMEOUT = SECONDS * 10.0  # a busy host
REPORT = re.compile(r"^(\d+) actions, (\d+) failures; (\d+) MB free, the largest mapping (\d+) MB$", re.MULTILINE)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The report of the mixture in one VM; `free` and `largest` in MB."""

    memory: str
    actions: int
    failures: int
    free: int
    largest: int

    @property
    def passed(self) -> bool:
        """Whether all programs started, and memory is in large pieces."""
        return not self.failures and self.largest * 2 >= self.free


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome in each VM. `key`: digest of the inputs."""

    key: str
    outcomes: tuple[Outcome, ...]


class FragmentationError(NablaError):
    """A program did not start, or free memory is in small pieces."""


def parse(memory: str, output: str) -> Outcome:
    """Return the report of the mixture. Raises `FragmentationError` if the output has none."""
    report = REPORT.search(output)
    if not report:
        raise FragmentationError(f"{memory}: the mixture of programs ended without a report", output[-2000:])
    actions, failures, free, largest = map(int, report.groups())
    return Outcome(memory=memory, actions=actions, failures=failures, free=free, largest=largest)


def run(memory: str) -> Outcome:
    """Run the mixture in one VM. Raises `FragmentationError` if it fails there."""
    words = [str(NABLA_RUN), "--cold", "--ephemeral", "--memory", memory, str(IMAGE), "--", PROGRAM, str(SECONDS)]
    try:
        done = process.run(words, check=False, timeout=TIMEOUT)
    except CommandError as error:
        raise FragmentationError(f"{memory}: {error.message}", error.hint) from None
    outcome = parse(memory, done.stdout)
    if not outcome.passed:
        what = f"{outcome.failures} failures, {outcome.largest} of {outcome.free} MB of free memory in one piece"
        raise FragmentationError(f"{memory}: {what}", done.stdout[-2000:])
    return outcome


def check(result: Path) -> Result:
    """Run the mixture in all VMs at once, or restore the outcome from the cache; write it to `result`."""
    machine = [digest.sha256_file(path) for path in (IMAGE, VMLINUX, NABLA_RUN)]
    key = result_cache.key("fragmentation", machine, list(MEMORIES), SECONDS)
    return result_cache.outcome(key, "fragmentation", result, Result, lambda: _run_all(key))


def _run_all(key: str) -> Result:
    with ThreadPoolExecutor(len(MEMORIES)) as pool:
        return Result(key=key, outcomes=tuple(pool.map(run, MEMORIES)))
