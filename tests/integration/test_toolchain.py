# SPDX-License-Identifier: Apache-2.0
"""The compiler for guest programs: its output is position-independent and uses nabla's libc; refused options."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from nabla.core import paths
from nabla.core.errors import CommandError
from nabla.sandbox.bwrap import Bind, Sandbox
from verify import pie

CACHE = paths.cache_dir()
PROGRAM = """
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <linux/futex.h>

static __thread int local = 40;
static void *thread(void *arg) { local += *(int *)arg; return (void *)(long)local; }

int main(int argc, char **argv) {
    pthread_t t;
    void *result;
    pthread_create(&t, 0, thread, &argc);
    pthread_join(t, &result);
    return printf("%ld %d %.1f %d\\n", (long)result, local, sqrt(argc * 4.0), FUTEX_WAIT) < 0;
}
"""


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox with nabla's libc as sysroot and a program to compile."""
    monkeypatch.setenv("NABLA_CACHE", str(CACHE))
    (tmp_path / "x.c").write_text(PROGRAM)
    return Sandbox((Bind(tmp_path, "/build", writable=True), Bind(paths.MUSL, "/sysroot")))


def needed(path: Path) -> list[str]:
    with path.open("rb") as stream:
        section = next(s for s in ELFFile(stream).iter_sections() if isinstance(s, DynamicSection))
        tags: Iterator[Any] = section.iter_tags("DT_NEEDED")
        return [tag.needed for tag in tags]


def test_dynamic_program(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.run("x86_64-linux-musl-gcc -O2 -fstack-protector-strong x.c -lm -lpthread -o x", title="compile")
    finding = pie.examine(tmp_path / "x")
    assert finding.problems == ()
    assert finding.interpreter == "/lib/ld-musl-x86_64.so.1"
    assert needed(tmp_path / "x") == ["libc.so"]
    loader = paths.MUSL / "lib" / "ld-musl-x86_64.so.1"
    result = subprocess.run([loader, tmp_path / "x"], capture_output=True, text=True, check=True)
    assert result.stdout == "41 40 2.0 0\n"


def test_static_program_runs_on_the_host(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.run("musl-gcc -static-pie x.c -o x", title="compile")
    finding = pie.examine(tmp_path / "x")
    assert finding.problems == ()
    assert finding.kind == "static program"
    result = subprocess.run([tmp_path / "x", "2", "3", "4"], capture_output=True, text=True, check=True)
    assert result.stdout == "44 40 4.0 0\n"


def test_library(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.run("musl-gcc -fPIC -shared -Dmain=other x.c -o libx.so", title="compile")
    finding = pie.examine(tmp_path / "libx.so")
    assert finding.problems == ()
    assert finding.kind == "library"


@pytest.mark.parametrize("flags", ["-no-pie", "-static", "-fno-pie -c", "-fno-PIC -c", "-m32 -c"])
def test_refused(sandbox: Sandbox, tmp_path: Path, flags: str) -> None:
    with pytest.raises(CommandError) as caught:
        sandbox.run(f"x86_64-linux-musl-gcc {flags} x.c -o x", title="compile", log=tmp_path / "log")
    assert "x86_64-linux-musl-gcc: error: " in caught.value.hint
    assert not (tmp_path / "x").exists()


def test_headers_and_libraries_of_the_other_libc_are_not_found(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "y.c").write_text("#include <gnu/libc-version.h>\n")
    with pytest.raises(CommandError):
        sandbox.run("musl-gcc -c y.c", title="compile")
    sandbox.run("musl-gcc -M x.c > deps", title="list")
    for word in (tmp_path / "deps").read_text().split():
        if word.startswith("/"):
            assert word.startswith(("/sysroot/", "/usr/lib/gcc/")), word
