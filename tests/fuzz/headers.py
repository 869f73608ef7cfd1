# SPDX-License-Identifier: Apache-2.0
"""The pages of snapshots that nabla-run reads, found by coverage: headers.c, with the launcher and sanitizers."""

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

FILES = 4000
COMPILE = """
flags="-std=c11 -D_GNU_SOURCE -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
make -s CC=gcc-12 call_names.inc
for name in *.c; do
	case $name in
	headers.c) more="-Wall -Wextra -Werror" ;;
	snapshot.c | instant.c | fit.c | cache.c) more=-fsanitize-coverage=trace-pc ;;
	*) more= ;;
	esac
	ccache gcc-12 $flags $more -c "$name"
done
gcc-12 $flags -static-libasan -static-libubsan *.o -o headers
"""
LEFT_OUT = ("main.c", "diag.c")


@cache
def compiled() -> Path:
    """Return the folder with the program."""
    folder = Path(tempfile.mkdtemp(prefix="nabla-headers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for source in (*LAUNCHER_SRC.glob("*.[ch]"), LAUNCHER_SRC / "Makefile"):
        if source.name not in LEFT_OUT and not source.name.startswith("client"):
            shutil.copy(source, folder)
    for name in ("headers.c", "coverage.h"):
        shutil.copy(Path(__file__).with_name(name), folder)
    (folder / "files").mkdir()  # a mount point
    Sandbox((Bind(folder, "/build", writable=True),)).run(COMPILE, title="the fuzzer of headers")
    return folder


def headers(seed: int) -> Finding | None:
    """Files from one seed; the first ones are nearly sound, the later ones what reached most code."""
    with tempfile.TemporaryDirectory() as files:
        box = Sandbox((Bind(compiled(), "/build"), Bind(Path(files), "/build/files", writable=True)))
        try:
            box.run(f"./headers /build/files {seed} {FILES}", title="the launcher")
        except CommandError as error:
            return Finding("headers", seed, error.message, tuple(error.output)[-40:])
    return None


FUZZERS = (Fuzzer("headers", "headers", FILES, headers),)
