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


def _fuzz(
    name: str, seed: int, arguments: Sequence[object], *, program: str = "", memory: str = "256M"
) -> Finding | None:
    words = [f"{FOLDER}/{program or name}", *map(str, arguments)]
    status, output = boot(IMAGE, ["--memory", memory], words, TIMEOUT)
    return verdict(name, seed, status, output)


def calls(seed: int) -> Finding | None:
    """System calls from several processes, every other one an ordinary user's."""
    # Each process has its own seed, so rounds must not overlap.
    return _fuzz("calls", seed, [seed * PROCESSES, CALLS, PROCESSES])


def families(seed: int) -> Finding | None:
    """System calls from processes that fork between them."""
    return _fuzz("families", seed, [seed * PROCESSES, CALLS, PROCESSES, "fork"], program="calls", memory="128M")


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
    Fuzzer("families", "system calls", CALLS * PROCESSES, families),
    Fuzzer("exec", "ELF files", FILES, exec_),
    Fuzzer("frames", "programs with damaged frames", FRAMES, frames),
    Fuzzer("trace", "traced programs", TRACES, trace),
)
