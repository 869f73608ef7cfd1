# SPDX-License-Identifier: Apache-2.0
"""Container configurations, guided by coverage: bundles.c, with nabla-oci's reader, json-c and sanitizers."""

from __future__ import annotations

import atexit
import shutil
import tarfile
import tempfile
from functools import cache
from pathlib import Path

from nabla.core.errors import CommandError
from nabla.core.paths import OCI_SRC
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources import fetch, recipe

from .engine import Finding, Fuzzer

CONFIGURATIONS = 5000
READER = ("json", "config", "config_process", "config_mounts", "config_linux", "config_resources", "rules", "hooks")
LIBRARY = "arraylist debug json_object json_tokener json_util linkhash printbuf random_seed strerror_override"
COMPILE = f"""
flags="-std=gnu11 -D_GNU_SOURCE -I. -Ijson_c -Ijson-c -g -O1 -fno-omit-frame-pointer"
flags="$flags -fsanitize=address,undefined -fno-sanitize-recover=all"
for name in {LIBRARY}; do ccache gcc-12 $flags -funsigned-char -fsanitize-coverage=trace-pc -c "json-c/$name.c"; done
for name in {" ".join(READER)}; do ccache gcc-12 $flags -fsanitize-coverage=trace-pc -c "$name.c"; done
ccache gcc-12 $flags -Wall -Wextra -Werror -c bundles.c
gcc-12 $flags -static-libasan -static-libubsan *.o -o bundles
"""


@cache
def compiled() -> Path:
    """Return the folder with the program."""
    folder = Path(tempfile.mkdtemp(prefix="nabla-bundles-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("bundles.c", "coverage.h"):
        shutil.copy(Path(__file__).with_name(name), folder)
    for source in (*(OCI_SRC / f"{name}.c" for name in READER), *OCI_SRC.glob("*.h")):
        shutil.copy(source, folder)
    shutil.copytree(OCI_SRC / "json_c", folder / "json_c")
    (archive,) = [source for source in recipe.load("nabla-oci").source if source.name == "json-c"]
    with tarfile.open(fetch.fetch(archive)) as content:
        content.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    unpacked.rename(folder / "json-c")
    Sandbox((Bind(folder, "/build", writable=True),)).run(COMPILE, title="the fuzzer of configurations")
    return folder


def configurations(seed: int) -> Finding | None:
    """Configurations from one seed; the first ones are nearly valid, later ones mutate those that reached most code."""
    script = f"ASAN_OPTIONS=detect_leaks=0 ./bundles {seed} {CONFIGURATIONS}"  # the reader never frees what it keeps
    try:
        Sandbox((Bind(compiled(), "/build"),)).run(script, title="the reader of configurations")
    except CommandError as error:
        return Finding("bundles", seed, error.message, tuple(error.output)[-40:])
    return None


FUZZERS = (Fuzzer("bundles", "configurations", CONFIGURATIONS, configurations),)
