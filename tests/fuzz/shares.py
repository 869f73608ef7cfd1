# SPDX-License-Identifier: Apache-2.0
"""Conversations with the file server of shared directories, guided by coverage: shares.c, with sanitizers.

It runs in the sandbox of builds, where a server that leaves its share finds nothing.
"""

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

CONVERSATIONS = 4000
SERVER = ("wire", "nodes", "fids", "server", "files", "names")
COMPILE = """
flags="-std=c11 -D_GNU_SOURCE -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
for name in share_*.c; do ccache gcc-12 $flags -fsanitize-coverage=trace-pc -c "$name"; done
ccache gcc-12 $flags -Wall -Wextra -Werror -c shares.c
gcc-12 $flags -static-libasan -static-libubsan *.o -o shares
"""


@cache
def compiled() -> Path:
    """Return the folder with the program."""
    folder = Path(tempfile.mkdtemp(prefix="nabla-shares-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("shares.c", "conversations.h", "coverage.h"):
        shutil.copy(Path(__file__).with_name(name), folder)
    for source in (*(LAUNCHER_SRC / f"share_{name}.c" for name in SERVER), *LAUNCHER_SRC.glob("share_*.h")):
        shutil.copy(source, folder)
    (folder / "share").mkdir()  # a mount point
    Sandbox((Bind(folder, "/build", writable=True),)).run(COMPILE, title="the fuzzer of the file server")
    return folder


def conversations(seed: int) -> Finding | None:
    """Conversations from one seed; the first ones are short, later ones mutate those that reached most code."""
    with tempfile.TemporaryDirectory() as share:
        box = Sandbox((Bind(compiled(), "/build"), Bind(Path(share), "/build/share", writable=True)))
        script = f"ASAN_OPTIONS=detect_leaks=1 ./shares /build/share {seed} {CONVERSATIONS}"
        try:
            box.run(script, title="the file server")
        except CommandError as error:
            return Finding("shares", seed, error.message, tuple(error.output)[-40:])
    return None


FUZZERS = (Fuzzer("shares", "conversations", CONVERSATIONS, conversations),)
