# SPDX-License-Identifier: Apache-2.0
"""Find programs that enter the kernel without nabla's libc: `python -m verify.syscalls [--json] FILE|FOLDER|IMAGE|APK…`

A program with `syscall`, `sysenter` or `int 0x80` in its own code works, because the kernel traps it, but each such
call costs a signal instead of a jump. nabla's libc, shared or static, contains them only as the alternative to its jump
(verify.entry checks this form); these are ignored, as are a few others in the loader.

The checker searches executable segments for the bytes of these instructions, and disassembles from the start of the
function to decide whether they are an instruction or part of an operand. Symbols and the unwind table (.eh_frame_hdr)
provide the starts of functions. If the disassembly fails before it reaches the bytes, they are reported as uncertain. A
malformed file fails.

Exit status: 0 none except in the loader, 1 some, or a malformed file, 2 no file to check.
"""

from __future__ import annotations

import argparse
import bisect
import io
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from verify import contents, elf, entry, report
from verify.contents import Contents, ContentsError
from verify.pie import LOADER

_CANDIDATE = re.compile(rb"(?=\x0f\x05|\x0f\x34|\xcd\x80)")
_LONGEST = 15  # bytes of an instruction
_DW_EH_PE = (0x03, 0x3B)  # counts as udata4, table as datarel sdata4: the encoding of all linkers


@dataclass(frozen=True)
class Use:
    """One instruction that enters the kernel. `sure`: the disassembly reached it without an error."""

    address: int
    instruction: str
    function: str
    sure: bool = True


@dataclass(frozen=True)
class Finding:
    """The finding about one file."""

    path: str
    uses: tuple[Use, ...] = ()
    problem: str = ""
    owner: str | None = None

    @property
    def allowed(self) -> bool:
        """Whether the file is the loader, which is libc."""
        return self.path.endswith(LOADER)

    @property
    def sound(self) -> bool:
        """Whether there is no finding."""
        return not self.problem and (self.allowed or not self.uses)


def examine_bytes(path: str, data: bytes) -> Finding:
    """Check one ELF file. A malformed file is a finding with a problem, not an exception."""
    # Imported when needed: the import takes longer than most tasks.
    import capstone

    try:
        return Finding(path, tuple(_uses(elf.load(io.BytesIO(data)))))
    except (*elf.DAMAGE, capstone.CsError) as error:
        return Finding(path, problem=f"cannot be parsed: {elf.reason(error)}")


def examine_all(content: Contents) -> list[Finding]:
    """Check each ELF file of a folder, an image or a package."""
    return [replace(examine_bytes(path, data), owner=content.owners.get(path)) for path, data in content.programs()]


def _uses(file: ELFFile) -> Iterator[Use]:
    if file["e_machine"] != "EM_X86_64" or file.elfclass != 64:
        raise ELFError(f"not x86-64: {file['e_machine']}")
    names = _symbols(file)
    # In the form with a jump to the kernel's entry point.
    jumped = set(entry.examine_elf("", file).calls)
    for address, code in _code(file):
        hits = [match.start() for match in _CANDIDATE.finditer(code) if address + match.start() not in jumped]
        if not hits:
            continue
        starts = sorted({address, *(start for start in (*names, *_unwind_starts(file)) if start > address)})
        functions: dict[int, list[int]] = {}
        for hit in hits:
            begin = starts[bisect.bisect_right(starts, address + hit) - 1]
            functions.setdefault(begin, []).append(address + hit)
        for begin, addresses in functions.items():
            name = names.get(begin, f"{begin:#x}")
            yield from (replace(use, function=name) for use in _decide(code, address, begin, addresses))


def _decide(code: bytes, base: int, begin: int, hits: Sequence[int]) -> Iterator[Use]:
    """Disassemble from `begin` past the last hit; yield the hits that are instructions."""
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    waiting = list(reversed(hits))
    at, sure = begin, True
    while waiting:
        ended = at
        for address, size, mnemonic, operands in engine.disasm_lite(code[at - base : hits[-1] - base + _LONGEST], at):
            ended = address + size
            while waiting and waiting[-1] < ended:
                # The first instruction that ends after the hit contains it, or the hit is in skipped data.
                hit = waiting.pop()
                text = f"{mnemonic} {operands}".strip()
                if hit < address:
                    yield Use(hit, code[hit - base : hit - base + 2].hex(" "), "", sure=False)
                elif mnemonic in ("syscall", "sysenter") or text == "int 0x80":
                    yield Use(hit, text, "", sure)
            if not waiting:
                return
        while waiting and waiting[-1] <= ended:
            # The disassembler stopped at these bytes.
            hit = waiting.pop()
            yield Use(hit, code[hit - base : hit - base + 2].hex(" "), "", sure=False)
        # Data in the code: continue after it, and mark later hits as uncertain.
        at, sure = ended + 1, False


def _code(file: ELFFile) -> Iterator[tuple[int, bytes]]:
    """Yield address and bytes of all code: of executable segments; of executable sections of an object file."""
    if file["e_type"] == "ET_REL":
        for section in file.iter_sections():
            if section["sh_flags"] & 4 and section["sh_type"] == "SHT_PROGBITS":
                yield int(section["sh_addr"]), bytes(section.data())
        return
    for segment in file.iter_segments():
        if segment["p_type"] == "PT_LOAD" and segment["p_flags"] & P_FLAGS.PF_X:
            data = bytes(segment.data())
            if len(data) < int(segment["p_filesz"]):
                raise ELFError("a segment is truncated")
            yield int(segment["p_vaddr"]), data


def _symbols(file: ELFFile) -> dict[int, str]:
    """Return address -> name of functions in the symbol tables."""
    if file["e_type"] == "ET_REL":
        return {}
    names: dict[int, str] = {}
    for section in file.iter_sections():
        if isinstance(section, SymbolTableSection):
            for symbol in section.iter_symbols():
                if symbol["st_info"]["type"] in ("STT_FUNC", "STT_GNU_IFUNC") and symbol["st_value"]:
                    names.setdefault(int(symbol["st_value"]), str(symbol.name))
    return names


def _unwind_starts(file: ELFFile) -> list[int]:
    """Return the starts of functions in the sorted table of .eh_frame_hdr; none without a table."""
    segment: Any = next((s for s in file.iter_segments() if s["p_type"] == "PT_GNU_EH_FRAME"), None)
    if segment is None:
        return []
    data, base = bytes(segment.data()), int(segment["p_vaddr"])
    if len(data) < 12 or data[0] != 1 or (data[2], data[3]) != _DW_EH_PE:
        return []
    (count,) = struct.unpack_from("<I", data, 8)
    if 12 + 8 * count > len(data):
        raise ELFError(".eh_frame_hdr is truncated")
    return [base + start for start, _ in struct.iter_unpack("<ii", data[12 : 12 + 8 * count])]


def as_table(findings: Sequence[Finding]) -> str:
    """Return a line for each file and function with a finding."""
    rows = []
    for finding in findings:
        if finding.problem:
            rows.append([finding.path, finding.owner or "-", "-", "-", finding.problem])
        functions: dict[str, list[Use]] = {}
        for use in finding.uses:
            functions.setdefault(use.function, []).append(use)
        for name, uses in functions.items():
            words = sorted({use.instruction + ("" if use.sure else " (in doubt)") for use in uses})
            verdict = "libc" if finding.allowed else ", ".join(words)
            rows.append([finding.path, finding.owner or "-", name, str(len(uses)), verdict])
    return report.table(["file", "package", "function", "number", "what"], rows)


def as_junit(findings: Sequence[Finding]) -> str:
    """Return the findings as a test suite."""
    cases = [
        (f.owner or "-", f.path, "" if f.sound else f.problem or f"{len(f.uses)} raw system calls") for f in findings
    ]
    return report.as_junit("verify.syscalls", cases)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m verify.syscalls", description=__doc__.splitlines()[0].split("`")[0]
    )
    report.add_options(parser)
    parser.add_argument("path", nargs="+", type=Path, help="ELF file, folder to search, image, or package")
    options = parser.parse_args(argv)
    findings: list[Finding] = []
    for path in options.path:
        try:
            content = contents.read(path)
        except ContentsError as error:
            findings.append(Finding(str(path), problem=str(error)))
            continue
        if content.files.keys() == {str(path)}:
            # The argument is a single file, which must be an ELF file.
            findings.append(examine_bytes(str(path), content.files[str(path)]()))
        else:
            findings += examine_all(content)
    return report.conclude("verify.syscalls", options, findings, lambda finding: finding.sound, as_table, as_junit)


if __name__ == "__main__":
    sys.exit(main())
