# SPDX-License-Identifier: Apache-2.0
"""verify.entry on code assembled for the test: the jump form and its possible defects."""

from __future__ import annotations

from pathlib import Path

import pytest

from nabla.sandbox.bwrap import Bind, Sandbox
from verify import entry

CALL = """
lea 1f(%rip),%rcx; mov __sysinfo(%rip),%r11; test %r11,%r11; jz 2f; jmp *%r11
2: syscall
1:
"""
SOURCES = {
    "good": CALL * 3,
    "none": "ret",
    "bare": CALL + "syscall",
    # The return address is behind another instruction: a restart would go to the wrong place.
    "late": CALL.replace("1:", "nop; 1:"),
    # A comparison instead of the test of the entry point.
    "other": CALL.replace("test %r11,%r11", "cmp $0,%r11"),
    "two": CALL + CALL.replace("__sysinfo", "another"),
    # The displacement to the variable happens to contain the bytes of a system call.
    "chance": CALL.replace("__sysinfo(%rip)", "0x50f00(%rip)").replace("mov", "mov"),
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, user_cache: Path) -> Path:
    """A folder of small libraries, one for each source."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLA_CACHE", str(user_cache))
        folder = tmp_path_factory.mktemp("entry")
        lines = []
        for name, code in SOURCES.items():
            data = ".data\n.hidden __sysinfo\n__sysinfo: .quad 0\nanother: .quad 0\n"
            (folder / f"{name}.s").write_text(f".text\n{code}\nret\n{data}")
            lines.append(f"gcc -shared -nostdlib {name}.s -o {name}")
        Sandbox((Bind(folder, "/build", writable=True),)).run("\n".join(lines), title="assemble")
    return folder


def test_good(programs: Path) -> None:
    finding = entry.examine(programs / "good")
    assert finding.sound
    assert len(finding.calls) == 3
    assert len(finding.variables) == 1


@pytest.mark.parametrize("name", ["bare", "late", "other"])
def test_bare(programs: Path, name: str) -> None:
    finding = entry.examine(programs / name)
    assert not finding.sound
    assert len(finding.bare) == 1


def test_two_variables(programs: Path) -> None:
    assert len(entry.examine(programs / "two").variables) == 2
    assert not entry.examine(programs / "two").sound


def test_bytes_by_chance(programs: Path) -> None:
    assert b"\x0f\x05" in (programs / "chance").read_bytes()
    finding = entry.examine(programs / "chance")
    assert finding.bare == ()
    assert len(finding.calls) == 1


def test_exit_status(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main([str(programs / "good")]) == 0
    assert entry.main([str(programs / "good"), str(programs / "bare")]) == 1
    assert entry.main([str(programs / "none")]) == 2
    assert entry.main(["--json", str(programs / "good.s")]) == 1
    assert "cannot be read" in capsys.readouterr().out
