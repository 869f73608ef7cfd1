# SPDX-License-Identifier: Apache-2.0
"""ELF files that may be damaged or hostile: the exceptions of pyelftools for them, and checks of oversized tables."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.constants import P_FLAGS, SH_FLAGS
from elftools.elf.elffile import ELFFile

# pyelftools passes errors of its parser on, and asserts properties that damaged files lack. All of these mean the same.
DAMAGE: tuple[type[Exception], ...] = (
    ELFError,
    ConstructError,
    struct.error,
    ValueError,
    AttributeError,
    LookupError,
    TypeError,
    ArithmeticError,
    AssertionError,
    OSError,
    EOFError,
    MemoryError,
    RecursionError,
)
_SIZES = {32: (32, 40), 64: (56, 64)}  # of a program header and a section header


def load(stream: BinaryIO) -> ELFFile:
    """Open an ELF file. Raises one of `DAMAGE`, also for tables that do not fit into the file."""
    elf = ELFFile(stream)
    size = stream.seek(0, os.SEEK_END)
    segment, section = _SIZES[elf.elfclass]
    for kind, offset, count, entry, expected in (
        ("program headers", elf["e_phoff"], elf.num_segments(), elf["e_phentsize"], segment),
        ("section headers", elf["e_shoff"], elf.num_sections(), elf["e_shentsize"], section),
    ):
        if count and (entry != expected or offset + count * entry > size):
            raise ELFError(f"the table of {kind} does not fit into the file")
    return elf


def reason(error: BaseException) -> str:
    """Return one line about an error; some have no text."""
    return " ".join(str(error).split()) or type(error).__name__


def is_debug_file(elf: ELFFile) -> bool:
    """Return whether it is a separate file of debug information, without the code of its program.

    A running program does not depend on its section headers, so no segment may contain code either.
    """
    code = [each for each in elf.iter_sections() if each["sh_flags"] & SH_FLAGS.SHF_EXECINSTR]
    if not code or any(each["sh_type"] != "SHT_NOBITS" for each in code):
        return False
    if not any(each.name.startswith((".debug_", ".zdebug_", ".symtab")) for each in elf.iter_sections()):
        return False
    return all(
        each["p_filesz"] == 0
        for each in elf.iter_segments()
        if each["p_type"] == "PT_LOAD" and each["p_flags"] & P_FLAGS.PF_X
    )
