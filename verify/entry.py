# SPDX-License-Identifier: Apache-2.0
"""Check that each system call of a program uses the kernel's entry point: `python -m verify.entry [--json] FILE…`

nabla's libc jumps to the address in AT_SYSINFO, and uses the `syscall` instruction only if there is none
(docs/libc-abi.md). Each system call must have this form, and no other code may contain a `syscall`:

    lea  1f(%rip),%rcx          the return address, directly after the instruction
    mov  __sysinfo(%rip),%r11   the same variable everywhere in a file
    test %r11,%r11
    jz   2f
    jmp  *%r11
 2: syscall
 1:

The checker searches bytes and does not disassemble: it accepts 0f 05 in an operand only if the instruction belongs to
such a form. A correct file can therefore fail, but a wrong one never passes. Exit status: 0 sound, 1 not sound, 2 no
system call.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile

from verify import elf, report

SYSCALL = b"\x0f\x05"
_CALL = re.compile(
    rb"\x48\x8d\x0d(?P<back>....)\x4c\x8b\x1d(?P<sysinfo>....)\x4d\x85\xdb\x74\x03\x41\xff\xe3\x0f\x05", re.DOTALL
)
# Offsets of the ends of the two instructions with a displacement, and the length of the form.
_LEA, _MOV, _WHOLE = 7, 14, 24


@dataclass(frozen=True)
class Finding:
    """The finding about one file. `calls`: addresses of calls in this form. `bare`: of other `syscall` bytes."""

    path: str
    calls: tuple[int, ...] = ()
    bare: tuple[int, ...] = ()
    variables: tuple[int, ...] = ()
    error: str = ""

    @property
    def sound(self) -> bool:
        """Whether every system call has this form and all read the same variable."""
        return not self.error and not self.bare and len(self.variables) <= 1


def examine(path: Path) -> Finding:
    """Check the executable segments of one file."""
    try:
        with path.open("rb") as stream:
            return examine_elf(str(path), elf.load(stream))
    except elf.DAMAGE as error:
        return Finding(str(path), error=f"cannot be read: {elf.reason(error)}")


def examine_elf(path: str, file: ELFFile) -> Finding:
    """Check the executable segments of an open file. `path`: its name in the finding."""
    segments = [
        (int(segment["p_vaddr"]), bytes(segment.data()))
        for segment in file.iter_segments()
        if segment["p_type"] == "PT_LOAD" and segment["p_flags"] & P_FLAGS.PF_X
    ]
    calls: list[int] = []
    bare: list[int] = []
    variables: set[int] = set()
    for base, data in segments:
        covered: set[int] = set()
        for match in _CALL.finditer(data):
            start = base + match.start()
            if start + _LEA + _signed(match["back"]) != start + _WHOLE:
                continue
            calls.append(start + _WHOLE - len(SYSCALL))
            variables.add(start + _MOV + _signed(match["sysinfo"]))
            covered.update(range(match.start(), match.end()))
        bare += [base + at for at in _occurrences(data) if at not in covered]
    return Finding(path, tuple(calls), tuple(bare), tuple(sorted(variables)))


def _occurrences(data: bytes) -> list[int]:
    return [match.start() for match in re.finditer(rb"(?=\x0f\x05)", data)]


def _signed(field: bytes) -> int:
    return int.from_bytes(field, "little", signed=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m verify.entry", description=__doc__.splitlines()[0].split("`")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("path", nargs="+", type=Path, help="ELF file")
    options = parser.parse_args(argv)
    findings = [examine(path) for path in options.path]
    if options.json:
        print(report.as_json([asdict(finding) for finding in findings]))
    else:
        rows = [
            [f.path, str(len(f.calls)), f.error or ", ".join(f"bare syscall at {at:#x}" for at in f.bare) or "ok"]
            for f in findings
        ]
        print(report.table(["file", "calls", "result"], rows))
    if not all(finding.sound for finding in findings):
        return 1
    return 0 if any(finding.calls for finding in findings) else 2


if __name__ == "__main__":
    sys.exit(main())
