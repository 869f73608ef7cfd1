# SPDX-License-Identifier: Apache-2.0
"""Is each program and library position-independent and hardened? `python -m verify.pie [--json] FILE|DIRECTORY…`

A guest has one address space and no memory protection between programs, so a program with fixed addresses cannot run
at all, and one with text relocations would write into code which another process shares. Checked for every ELF file:

    type      ET_DYN; a program also says so by DF_1_PIE and has either an interpreter or none (static PIE)
    textrel   no DT_TEXTREL, no DF_TEXTREL
    stack     PT_GNU_STACK is there and not executable
    wx        no segment is both writable and executable
    relro     PT_GNU_RELRO is there
    now       no lazy binding: DT_BIND_NOW, DF_BIND_NOW or DF_1_NOW

A file that cannot be parsed fails. Folders are searched for ELF files; links in them are not followed, relocatable
objects (.o) in them are counted but not judged. Exit status: 0 all sound, 1 something failed, 2 nothing to check.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.constants import P_FLAGS
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from verify import report

DF_TEXTREL = 0x4
DF_BIND_NOW = 0x8
DF_1_NOW = 0x1
DF_1_PIE = 0x08000000


@dataclass(frozen=True)
class Finding:
    """What was found out about one file. `kind`: program, static program, library, object, or unknown."""

    path: str
    kind: str
    interpreter: str | None
    problems: tuple[str, ...]


def examine(path: Path) -> Finding:
    """Check one file. Anything that is no well-formed ELF file is a finding with a problem, not an exception."""
    try:
        with path.open("rb") as stream:
            return _examine(str(path), ELFFile(stream))
    except OSError as error:
        return Finding(str(path), "unknown", None, (f"cannot be read: {error.strerror}",))
    except (ELFError, ConstructError, ValueError, AttributeError, KeyError, UnicodeDecodeError, TypeError) as error:
        # pyelftools lets errors of its parser through for damaged files; for us each of them means the same.
        return Finding(str(path), "unknown", None, (f"cannot be parsed: {error or type(error).__name__}",))


def _examine(path: str, elf: ELFFile) -> Finding:
    if elf["e_type"] == "ET_REL":
        return Finding(path, "object", None, ())
    problems: list[str] = []
    if elf.elfclass != 64 or elf["e_machine"] != "EM_X86_64":
        problems.append(f"not x86-64: {elf['e_machine']}, {elf.elfclass} bits")
    if elf["e_type"] != "ET_DYN":
        problems.append(f"fixed addresses: {elf['e_type']}")
    segments = list(elf.iter_segments())
    interpreter = next((s.get_interp_name() for s in segments if isinstance(s, InterpSegment)), None)
    dynamic = next((s for s in segments if isinstance(s, DynamicSegment)), None)
    tags: dict[str, int] = {}
    if dynamic is not None:
        tags = {str(tag.entry.d_tag): int(tag.entry.d_val) for tag in dynamic.iter_tags()}
    flags, flags_1 = tags.get("DT_FLAGS", 0), tags.get("DT_FLAGS_1", 0)
    pie = bool(flags_1 & DF_1_PIE)
    if pie or elf["e_type"] == "ET_EXEC" or interpreter is not None:
        kind = "program" if interpreter is not None else "static program"
        if not pie and elf["e_type"] == "ET_DYN":
            problems.append("no DF_1_PIE")
    else:
        kind = "library"
    if dynamic is None:
        problems.append("no dynamic segment")
    if "DT_TEXTREL" in tags or flags & DF_TEXTREL:
        problems.append("text relocations")
    problems += _segment_problems([(str(s["p_type"]), int(s["p_flags"])) for s in segments])
    if not ("DT_BIND_NOW" in tags or flags & DF_BIND_NOW or flags_1 & DF_1_NOW):
        problems.append("lazy binding")
    return Finding(path, kind, interpreter, tuple(problems))


def _segment_problems(segments: Sequence[tuple[str, int]]) -> Iterator[str]:
    stacks = [flags for kind, flags in segments if kind == "PT_GNU_STACK"]
    if not stacks:
        yield "executable stack (no PT_GNU_STACK)"
    elif any(flags & P_FLAGS.PF_X for flags in stacks):
        yield "executable stack"
    both = P_FLAGS.PF_W | P_FLAGS.PF_X
    if any(kind == "PT_LOAD" and flags & both == both for kind, flags in segments):
        yield "writable code"
    if not any(kind == "PT_GNU_RELRO" for kind, _ in segments):
        yield "no RELRO"


def find(path: Path) -> Iterator[Path]:
    """Yield the files to check: `path` itself, or below a folder each ELF file, sorted."""
    if not path.is_dir():
        yield path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.is_symlink() and _is_elf(file):
            yield file


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"\x7fELF"
    except OSError:
        return True  # let it fail where failures are told


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m verify.pie", description=__doc__.splitlines()[0].split("`")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("path", nargs="+", type=Path, help="ELF file, or folder to search")
    options = parser.parse_args(argv)
    findings = [examine(file) for path in options.path for file in find(path)]
    for path in options.path:
        if not path.is_dir():
            # A single object file was named: the question was about it.
            findings = [
                Finding(f.path, f.kind, None, ("not linked",)) if f.path == str(path) and f.kind == "object" else f
                for f in findings
            ]
    if not findings:
        print("verify.pie: no ELF file found", file=sys.stderr)
        return 2
    if options.json:
        print(report.as_json([asdict(finding) for finding in findings]))
    else:
        rows = [[f.path, f.kind, f.interpreter or "-", ", ".join(f.problems) or "ok"] for f in findings]
        print(report.table(["file", "kind", "interpreter", "result"], rows))
    return 1 if any(finding.problems for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
