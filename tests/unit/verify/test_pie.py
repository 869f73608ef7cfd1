# SPDX-License-Identifier: Apache-2.0
"""verify.pie against readelf, on programs compiled for the test, on those of the build root, and on damaged ones."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from nabla.packages import elf
from nabla.sandbox import buildroot
from nabla.sandbox.bwrap import Bind, Sandbox
from verify import pie, syscalls

# name -> (compiler flags, problems)
PROGRAMS = {
    "good": ("-Wl,-z,now", ()),
    "good-static": ("-static-pie -Wl,-z,now", ()),
    "good-library": ("-shared -fPIC -Wl,-z,now", ()),
    "fixed": ("-no-pie -Wl,-z,now", ("fixed addresses: ET_EXEC",)),
    "lazy": ("-Wl,-z,lazy", ("lazy binding",)),
    "no-relro": ("-Wl,-z,now,-z,norelro", ("no RELRO",)),
    "stack": ("-Wl,-z,now,-z,execstack", ("executable stack",)),
    "text": ("-Wl,-z,now,-z,notext -DTEXTREL", ("text relocations",)),
    "mixed": ("-Wl,-z,now -DMIXED", ("writable code",)),
}
SOURCE = """
int main(void) { return 0; }
#ifdef TEXTREL
__asm__(".text\\n.globl here\\nhere: .quad main\\n");
#endif
#ifdef MIXED
__asm__(".section .mixed,\\"awx\\"\\n.quad 1\\n.text\\n");
#endif
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, user_cache: Path) -> Path:
    """A folder of small programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLA_CACHE", str(user_cache))
        folder = tmp_path_factory.mktemp("programs")
        (folder / "x.c").write_text(SOURCE)
        lines = [f"gcc -w -fPIE {flags} x.c -o {name}" for name, (flags, _) in PROGRAMS.items()]
        lines += ["gcc -c x.c -o object.o", "strip -s good -o stripped"]
        lines += ["for x in *; do readelf -lhdW $x >$x.readelf 2>/dev/null || true; done"]
        Sandbox((Bind(folder, "/build", writable=True),)).run("\n".join(lines), title="compile")
    return folder


@pytest.mark.parametrize("name", PROGRAMS)
def test_problems(programs: Path, name: str) -> None:
    assert set(PROGRAMS[name][1]) <= set(pie.examine(programs / name).problems)
    if not PROGRAMS[name][1]:
        assert pie.examine(programs / name).problems == ()


def test_kinds(programs: Path) -> None:
    kinds = {name: pie.examine(programs / name).kind for name in ("good", "good-static", "good-library", "object.o")}
    assert list(kinds.values()) == ["program", "static program", "library", "object"]
    assert pie.examine(programs / "good").interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert pie.examine(programs / "stripped").problems == ()


def by_readelf(text: str) -> set[str]:
    """Classify a file by readelf's output."""
    problems = set()
    stack = re.search(r"^\s+GNU_STACK\s.* ([RWE ]{3}) 0x", text, re.MULTILINE)
    if not re.search(r"Type:\s+DYN", text):
        problems.add("type")
    if "TEXTREL" in text:
        problems.add("text relocations")
    if stack is None or "E" in stack[1]:
        problems.add("stack")
    if re.search(r"^\s+LOAD\s.* RWE 0x", text, re.MULTILINE):
        problems.add("writable code")
    if "GNU_RELRO" not in text:
        problems.add("no RELRO")
    if not re.search(r"BIND_NOW|Flags: .*NOW", text):
        problems.add("lazy binding")
    return problems


def ours(finding: pie.Finding) -> set[str]:
    words = {"fixed": "type", "executable": "stack"}
    return {words.get(problem.split()[0], problem) for problem in finding.problems} - {
        "no DF_1_PIE",
        "no dynamic segment",
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_agrees_with_readelf_on_ours(programs: Path, name: str) -> None:
    assert ours(pie.examine(programs / name)) == by_readelf((programs / f"{name}.readelf").read_text())


def test_agrees_with_readelf_on_the_build_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_cache: Path
) -> None:
    monkeypatch.setenv("NABLA_CACHE", str(user_cache))
    root = buildroot.ensure()
    files = list(pie.find(root / "usr" / "bin"))
    files += [path for path in pie.find(root / "usr" / "lib" / "x86_64-linux-gnu") if path.suffix != ".o"][:60]
    assert len(files) > 100
    (tmp_path / "list").write_text("".join(f"/{path.relative_to(root)}\n" for path in files))
    script = 'while read -r x; do echo "@@$x"; readelf -lhdW $x; done <list >out 2>/dev/null'
    Sandbox((Bind(tmp_path, "/build", writable=True),)).run(script, title="readelf")
    dumps = {text.partition("\n")[0]: text for text in (tmp_path / "out").read_text().split("@@")[1:]}
    for path in files:
        assert ours(pie.examine(path)) == by_readelf(dumps[f"/{path.relative_to(root)}"]), path


def test_damaged_files_fail_and_never_crash(programs: Path, tmp_path: Path) -> None:
    sound = (programs / "good").read_bytes()
    chance = random.Random(1)
    for number in range(300):
        data = bytearray(sound[: chance.randrange(len(sound))] if number % 2 else sound)
        for _ in range(number % 5):
            data[chance.randrange(min(len(data), 2000))] ^= 1 << chance.randrange(8)
        path = tmp_path / "damaged"
        path.write_bytes(data)
        pie.examine(path)
    for size in (0, 3, 4, 17, 63, 100):
        path.write_bytes(sound[:size])
        assert pie.examine(path).problems, size


def test_command_line(programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pie.main([str(programs / "good")]) == 0
    assert pie.main(["--json", str(programs / "good"), str(programs / "lazy")]) == 1
    entries = json.loads(capsys.readouterr().out.split("\n", 2)[2])
    assert [entry["problems"] for entry in entries] == [[], ["lazy binding"]]
    assert pie.main([str(tmp_path / "absent")]) == 1
    assert pie.main([str(programs / "object.o")]) == 1
    assert pie.main([str(tmp_path)]) == 2
    capsys.readouterr()
    assert pie.main([str(programs)]) == 1
    table = capsys.readouterr().out
    assert "object.o" in table
    assert "x.c" not in table


def test_separate_debug_information_is_no_program(programs: Path, tmp_path: Path) -> None:
    script = """
        gcc -g -w -fPIE -Wl,-z,now x.c -o made
        objcopy --only-keep-debug made made.debug
        objcopy --only-keep-debug --compress-debug-sections made made.packed.debug
        objcopy --only-keep-debug good-library library.debug
    """
    Sandbox((Bind(programs, "/build", writable=True),)).run(script, title="split")
    for name in ("made.debug", "made.packed.debug", "library.debug"):
        finding = pie.examine(programs / name)
        assert (finding.kind, finding.problems) == ("debug information", ())
        assert elf.dynamic(programs / name) == (None, ())
        assert syscalls.examine_bytes(name, (programs / name).read_bytes()).sound
    # A program that runs does not become one by its section headers.
    data = bytearray((programs / "made").read_bytes())
    table, count = int.from_bytes(data[40:48], "little"), int.from_bytes(data[60:62], "little")
    for number in range(count):
        at = table + 64 * number
        if data[at + 8] & 4:  # SHF_EXECINSTR
            data[at + 4 : at + 8] = (8).to_bytes(4, "little")  # SHT_NOBITS
    assert pie.examine_bytes("disguised", bytes(data)).kind == "program"


def test_tables_that_do_not_fit(programs: Path) -> None:
    data = (programs / "good").read_bytes()
    for at, value in ((54, b"\0\0"), (58, b"\0\0"), (56, b"\xff\xff"), (60, b"\xff\x7f"), (32, b"\xff" * 8)):
        bad = data[:at] + value + data[at + len(value) :]
        assert pie.examine_bytes("bad", bad).problems
