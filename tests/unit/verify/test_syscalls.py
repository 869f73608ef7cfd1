# SPDX-License-Identifier: Apache-2.0
"""verify.syscalls against objdump, on programs made for the test, on the build root's, and on damaged ones."""

from __future__ import annotations

import json
import random
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from nabla.core import paths
from nabla.sandbox import buildroot
from nabla.sandbox.bwrap import Bind, Sandbox
from verify import syscalls
from verify.contents import Contents

SOURCE = r"""
long raw(long n) { long r; __asm__ volatile("syscall" : "=a"(r) : "a"(n) : "rcx", "r11", "memory"); return r; }
long old(long n) { __asm__ volatile("int $0x80" : "+a"(n)); return n; }
long fast(long n) { __asm__ volatile("sysenter" : "+a"(n)); return n; }
/* Only the bytes: inside an operand, and in a string that is no code. */
long innocent(long n) { return n == 0x050f050f050fL || n == 0x80cd0134 || n == 0x340f; }
const char text[] = "\x0f\x05\xcd\x80";
__asm__(".text\n.globl hidden\n.type hidden, @function\nhidden:\n.byte 0x06,0x06,0x06\nsyscall\nret\n");
int main(void) { return (int)raw(39) + (int)innocent(1); }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, user_cache: Path) -> Path:
    """A program with one use of each kind, as compiled, and stripped, and as an object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLA_CACHE", str(user_cache))
        folder = tmp_path_factory.mktemp("program")
        (folder / "x.c").write_text(SOURCE)
        script = """
            gcc -O1 -fno-inline -w x.c -o x
            gcc -O1 -fno-inline -w -c x.c -o x.o
            cp x stripped && strip stripped
            for name in x stripped x.o; do objdump -d -w --no-show-raw-insn $name >$name.listing; done
        """
        Sandbox((Bind(folder, "/build", writable=True),)).run(script, title="compile")
    return folder


def uses(path: Path) -> list[syscalls.Use]:
    finding = syscalls.examine_bytes(str(path), path.read_bytes())
    assert not finding.problem, finding.problem
    return list(finding.uses)


def by_objdump(listing: str) -> set[int]:
    addresses = re.findall(r"^\s*([0-9a-f]+):\s+(?:syscall|sysenter|int\s+\$0x80)\s*$", listing, re.MULTILINE)
    return {int(address, 16) for address in addresses}


def test_each_kind_with_its_function(program: Path) -> None:
    kinds = {(use.function, use.instruction): use.sure for use in uses(program / "x")}
    assert kinds == {
        ("raw", "syscall"): True,
        ("old", "int 0x80"): True,
        ("fast", "sysenter"): True,
        # Invalid bytes precede it: in doubt it counts.
        ("hidden", "syscall"): False,
    }


@pytest.mark.parametrize("name", ["x", "stripped", "x.o"])
def test_agrees_with_objdump(program: Path, name: str) -> None:
    assert {use.address for use in uses(program / name)} == by_objdump((program / f"{name}.listing").read_text())


def test_agrees_with_objdump_on_the_build_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_cache: Path
) -> None:
    monkeypatch.setenv("NABLA_CACHE", str(user_cache))
    root = buildroot.ensure()
    names = ["bash", "make", "perl", "tar", "xz", "gawk", "mawk", "sed", "ccache"]
    files = [root / "usr/bin" / name for name in names if (root / "usr/bin" / name).is_file()]
    files += sorted((root / "usr/lib/x86_64-linux-gnu").glob("lib[pmg]*.so.*"))[:12]
    files += [(root / "usr/lib/x86_64-linux-gnu/libc.so.6")]
    assert len(files) > 15
    (tmp_path / "list").write_text("".join(f"/{path.relative_to(root)}\n" for path in files))
    script = 'while read -r x; do echo "@@$x"; objdump -d -w --no-show-raw-insn $x; done <list >out'
    Sandbox((Bind(tmp_path, "/build", writable=True),)).run(script, title="objdump")
    total = 0
    for part in (tmp_path / "out").read_text().split("@@/")[1:]:
        name, listing = part.split("\n", 1)
        addresses = {use.address for use in uses(root / name)}
        assert addresses == by_objdump(listing), name
        total += len(addresses)
    assert total > 300  # libc alone


def test_damaged_files_are_told(program: Path) -> None:
    """No damage crashes the checker, and a file that lost its code does not pass."""
    sound = (program / "x").read_bytes()
    chance = random.Random(4)
    for number in range(400):
        data = bytearray(sound[: chance.randrange(len(sound))] if number % 2 else sound)
        for _ in range(number % 7):
            if data:
                data[chance.randrange(min(len(data), 3000))] ^= 1 << chance.randrange(8)
        syscalls.examine_bytes("x", bytes(data))
    for size in (4, 17, 63, 100, 1000):
        assert syscalls.examine_bytes("x", sound[:size]).problem, size
    # Truncated in the middle of the code.
    first = min(use.address for use in uses(program / "x"))
    assert syscalls.examine_bytes("x", sound[: first + 1]).problem


def test_hostile_unwind_table(program: Path) -> None:
    """A table that claims more entries than there are."""
    sound = (program / "x").read_bytes()
    at = sound.index(b"\x01\x1b\x03\x3b")
    assert "truncated" in syscalls.examine_bytes("x", sound[: at + 8] + b"\xff\xff\xff\x7f" + sound[at + 12 :]).problem


def test_libc_does_not_count() -> None:
    """Each `syscall` of nabla's libc has the jump in front."""
    loader = paths.MUSL / "lib/ld-musl-x86_64.so.1"
    assert syscalls.examine_bytes("/lib/ld-musl-x86_64.so.1", loader.read_bytes()).uses == ()


def test_owner_and_forms(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = Contents("t", whole=True, files={"/bin/x": (program / "x").read_bytes}, owners={"/bin/x": "thing"})
    findings = syscalls.examine_all(contents)
    assert [finding.owner for finding in findings] == ["thing"]
    assert "/bin/x  thing    raw       1       syscall" in syscalls.as_table(findings)
    suite = ET.fromstring(syscalls.as_junit(findings))
    assert suite.get("failures") == "1"
    assert suite[0].get("classname") == "thing"
    assert suite[0][0].get("message") == "4 raw system calls"
    capsys.readouterr()
    assert syscalls.main(["--json", str(program / "x")]) == 1
    assert len(json.loads(capsys.readouterr().out)[0]["uses"]) == 4
    assert syscalls.main([str(program / "x.c")]) == 1
    assert syscalls.main([str(program / "absent")]) == 1
    assert syscalls.main([str(paths.MUSL / "lib")]) == 0
    empty = program / "empty"
    empty.mkdir()
    assert syscalls.main([str(empty)]) == 2
