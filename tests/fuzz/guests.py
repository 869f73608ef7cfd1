# SPDX-License-Identifier: Apache-2.0
"""Fuzzers that run inside the VM: the programs of tests/guest/fuzz, in the test image."""

from __future__ import annotations

from collections.abc import Sequence

from nabla.core.paths import IMAGES

from .engine import Finding, Fuzzer, boot, verdict

FOLDER = "/usr/lib/nabla-tests/fuzz"
IMAGE = IMAGES / "test.ext3"
# A VM that is this late has lost a wakeup or loops: rounds take seconds.
TIMEOUT = 180
PROCESSES = 6
CALLS, FILES, FRAMES, TRACES = 6000, 400, 200, 20


def _fuzz(name: str, seed: int, arguments: Sequence[object]) -> Finding | None:
    words = [f"{FOLDER}/{name}", *map(str, arguments)]
    status, output = boot(IMAGE, ["--memory", "256M"], words, TIMEOUT)
    return verdict(name, seed, status, output)


def calls(seed: int) -> Finding | None:
    """System calls from several processes, every other one an ordinary user's."""
    # Each process has a seed of its own, so rounds must not overlap.
    return _fuzz("calls", seed, [seed * PROCESSES, CALLS, PROCESSES])


def exec_(seed: int) -> Finding | None:
    """Damaged programs and interpreters."""
    return _fuzz("exec", seed, [seed * FILES, FILES])


def frames(seed: int) -> Finding | None:
    """Damaged signal frames."""
    return _fuzz("frames", seed, [seed * FRAMES, FRAMES])


def trace(seed: int) -> Finding | None:
    """A debugger that writes anything into registers."""
    return _fuzz("trace", seed, [seed, TRACES])


FUZZERS = (
    Fuzzer("calls", "system calls", CALLS * PROCESSES, calls),
    Fuzzer("exec", "ELF files", FILES, exec_),
    Fuzzer("frames", "programs with damaged frames", FRAMES, frames),
    Fuzzer("trace", "traced programs", TRACES, trace),
)
