# SPDX-License-Identifier: Apache-2.0
"""The built libc: its system calls, its binary interface compared with Alpine's, its programs on an ordinary kernel."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from nabla.core.paths import BUSYBOX_BIN, GUEST_TESTS, MUSL, NABLA_INIT, TESTS
from nabla.fs.nodes import read_base
from nabla.sources import fetch, recipe
from verify import entry

LOADER = MUSL / "lib" / "ld-musl-x86_64.so.1"
Symbol = tuple[str, str, str, int]

# Static programs, which execute themselves again; the others would execute the loader.
ON_HOST = ("static_cancel", "static_signals", "static_threads", "static_vectors")


def exported(image: bytes) -> dict[str, Symbol]:
    """Return what a library exports: name -> type, binding, visibility, and for data its size."""
    table = ELFFile(io.BytesIO(image)).get_section_by_name(".dynsym")
    assert isinstance(table, SymbolTableSection)
    symbols = {}
    for symbol in table.iter_symbols():
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol.name:
            info = symbol["st_info"]
            size = symbol["st_size"] if info["type"] == "STT_OBJECT" else 0
            symbols[symbol.name] = (info["type"], info["bind"], symbol["st_other"]["visibility"], size)
    return symbols


def alpine_loader() -> bytes:
    """Return the libc of the Alpine base, as Alpine built it."""
    base = read_base(fetch.fetch(recipe.load("alpine-base").source[0]))
    return base["/lib/ld-musl-x86_64.so.1"].content()


def test_same_interface_as_alpine() -> None:
    assert exported(LOADER.read_bytes()) == exported(alpine_loader())


@pytest.mark.parametrize("program", [LOADER, NABLA_INIT], ids=lambda path: path.name)
def test_every_system_call_can_jump(program: Path) -> None:
    finding = entry.examine(program)
    assert finding.sound, finding
    assert len(finding.calls) > 40


def test_alpine_has_bare_instructions(tmp_path: Path) -> None:
    """The checker detects the changes of nabla's series."""
    (tmp_path / "libc").write_bytes(alpine_loader())
    finding = entry.examine(tmp_path / "libc")
    assert not finding.calls
    assert len(finding.bare) > 300


@pytest.mark.parametrize("name", ON_HOST)
@pytest.mark.parametrize("way", ["instruction", "jump"])
def test_on_this_host(name: str, way: str) -> None:
    """The same binaries on an ordinary kernel, without and with an entry point that jumps to the instruction."""
    argv = [str(GUEST_TESTS / name)]
    if way == "jump":
        argv = [sys.executable, str(TESTS / "integration" / "jump_entry.py"), *argv]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    failed = [line for line in result.stdout.splitlines() if line.startswith("not ok")]
    assert result.returncode == 0, result.stdout + result.stderr
    assert not failed, result.stdout
    if way == "jump":
        assert int(result.stderr.split()[-2]) > 10, result.stderr


def test_loader_runs_programs_on_this_host() -> None:
    """Dynamic linking without the guest's kernel: libraries are mapped as usual."""
    argv = [str(LOADER), str(BUSYBOX_BIN), "expr", "3", "+", "4"]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "7\n"), result.stderr
