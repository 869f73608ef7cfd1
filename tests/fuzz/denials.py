# SPDX-License-Identifier: Apache-2.0
"""Logs of denied packets, found by coverage: denials.c, with nabla-run's reader of the log and sanitizers."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from nabla.core.errors import CommandError
from nabla.core.paths import LAUNCHER_SRC
from nabla.sandbox.bwrap import Bind, Sandbox

from .engine import Finding, Fuzzer

LOGS = 20000
COMPILE = """
flags="-std=c11 -D_GNU_SOURCE -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
ccache gcc-12 $flags -fsanitize-coverage=trace-pc -c denials_read.c
ccache gcc-12 $flags -Wall -Wextra -Werror -c denials.c
gcc-12 $flags -static-libasan -static-libubsan *.o -o denials
"""


@cache
def compiled() -> Path:
    """Return the folder with the program."""
    folder = Path(tempfile.mkdtemp(prefix="nabla-denials-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("denials.c", "conversations.h", "coverage.h"):
        shutil.copy(Path(__file__).with_name(name), folder)
    for name in ("denials_read.c", "denials.h"):
        shutil.copy(LAUNCHER_SRC / name, folder)
    Sandbox((Bind(folder, "/build", writable=True),)).run(COMPILE, title="the fuzzer of denied packets")
    return folder


def logs(seed: int) -> Finding | None:
    """Logs from one seed; the first ones are short, the later ones what reached most code."""
    script = f"ASAN_OPTIONS=detect_leaks=1 ./denials {seed} {LOGS}"
    try:
        Sandbox((Bind(compiled(), "/build"),)).run(script, title="the reader of denied packets")
    except CommandError as error:
        return Finding("denials", seed, error.message, tuple(error.output)[-40:])
    return None


FUZZERS = (Fuzzer("denials", "logs", LOGS, logs),)
