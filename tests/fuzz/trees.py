# SPDX-License-Identifier: Apache-2.0
"""Archives for nabla cp -r, found by coverage: trees.c, with the reader of archives and sanitizers."""

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

ARCHIVES = 4000
COMPILE = """
flags="-std=c11 -D_GNU_SOURCE -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
ccache gcc-12 $flags -fsanitize-coverage=trace-pc -c client_tar_read.c
ccache gcc-12 $flags -Wall -Wextra -Werror -c trees.c
gcc-12 $flags -static-libasan -static-libubsan *.o -o trees
"""


@cache
def compiled() -> Path:
    """Return the folder with the program."""
    folder = Path(tempfile.mkdtemp(prefix="nabla-trees-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("trees.c", "conversations.h", "coverage.h"):
        shutil.copy(Path(__file__).with_name(name), folder)
    (folder / "files").mkdir()  # a mount point
    for name in ("client_tar_read.c", "client_tar.h"):
        shutil.copy(LAUNCHER_SRC / name, folder)
    Sandbox((Bind(folder, "/build", writable=True),)).run(COMPILE, title="the fuzzer of archives")
    return folder


def archives(seed: int) -> Finding | None:
    """Archives from one seed; the first ones are short, the later ones what reached most code."""
    with tempfile.TemporaryDirectory() as files:
        box = Sandbox((Bind(compiled(), "/build"), Bind(Path(files), "/build/files", writable=True)))
        try:
            box.run(
                f"ASAN_OPTIONS=detect_leaks=1 ./trees /build/files {seed} {ARCHIVES}", title="the reader of archives"
            )
        except CommandError as error:
            return Finding("trees", seed, error.message, tuple(error.output)[-40:])
    return None


FUZZERS = (Fuzzer("trees", "archives", ARCHIVES, archives),)
