# SPDX-License-Identifier: Apache-2.0
"""Check that programs are position-independent and hardened: `python -m verify.pie [--json] FILE|FOLDER|IMAGE|APK…`

A guest has one address space and no memory protection between programs. A program with fixed addresses cannot run, and
one with text relocations would write to code that other processes share. Checks of every ELF file:

    type      ET_DYN; a program also has DF_1_PIE, and an interpreter unless it is a static PIE
    textrel   no DT_TEXTREL, no DF_TEXTREL
    stack     PT_GNU_STACK exists and is not executable
    wx        no segment is both writable and executable
    relro     PT_GNU_RELRO exists
    now       no lazy binding: DT_BIND_NOW, DF_BIND_NOW or DF_1_NOW

In a root file system (an image, or a folder with --root) also

    interpreter   of a program is nabla's loader, and exists
    libraries     each needed library exists, in RPATH or in a folder of the loader

A malformed file fails. Folders are searched for ELF files, without following links; relocatable objects (.o) and
separate debug information are counted but not checked. Exit status: 0 all sound, 1 a file failed, 2 no file to check.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elftools.elf.constants import P_FLAGS
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from verify import contents, elf, report
from verify.contents import Contents, ContentsError

LOADER = "/lib/ld-musl-x86_64.so.1"
DF_TEXTREL = 0x4
DF_BIND_NOW = 0x8
DF_1_NOW = 0x1
DF_1_PIE = 0x08000000


@dataclass(frozen=True)
class Finding:
    """The finding about one file.

    `kind`: program, static program, library, object, debug information, or unknown.
    """

    path: str
    kind: str
    interpreter: str | None
    problems: tuple[str, ...]
    needed: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    owner: str | None = None


def examine(path: Path) -> Finding:
    """Check one file. A malformed file is a finding with a problem, not an exception."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Finding(str(path), "unknown", None, (f"cannot be read: {error.strerror}",))
    return examine_bytes(str(path), data)


def examine_bytes(path: str, data: bytes) -> Finding:
    """Check the content of one file. `path`: its name in the finding."""
    try:
        return _examine(path, elf.load(io.BytesIO(data)))
    except elf.DAMAGE as error:
        return Finding(path, "unknown", None, (f"cannot be parsed: {elf.reason(error)}",))


def _examine(path: str, file: ELFFile) -> Finding:
    if file["e_type"] == "ET_REL":
        return Finding(path, "object", None, ())
    if elf.is_debug_file(file):
        return Finding(path, "debug information", None, ())
    problems: list[str] = []
    if file.elfclass != 64 or file["e_machine"] != "EM_X86_64":
        problems.append(f"not x86-64: {file['e_machine']}, {file.elfclass} bits")
    if file["e_type"] != "ET_DYN":
        problems.append(f"fixed addresses: {file['e_type']}")
    segments = list(file.iter_segments())
    interpreter = next((s.get_interp_name() for s in segments if isinstance(s, InterpSegment)), None)
    dynamic = next((s for s in segments if isinstance(s, DynamicSegment)), None)
    tags: dict[str, int] = {}
    needed: list[str] = []
    runpath: list[str] = []
    tag: Any
    for tag in dynamic.iter_tags() if dynamic is not None else ():
        tags[str(tag.entry.d_tag)] = int(tag.entry.d_val)
        if tag.entry.d_tag == "DT_NEEDED":
            needed.append(str(tag.needed))
        elif tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
            runpath += str(tag.rpath if tag.entry.d_tag == "DT_RPATH" else tag.runpath).split(":")
    flags, flags_1 = tags.get("DT_FLAGS", 0), tags.get("DT_FLAGS_1", 0)
    pie = bool(flags_1 & DF_1_PIE)
    # A library may have an interpreter, too, to print its version when it is run.
    if pie or file["e_type"] == "ET_EXEC" or (interpreter is not None and "DT_SONAME" not in tags):
        kind = "program" if interpreter is not None else "static program"
        if not pie and file["e_type"] == "ET_DYN":
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
    return Finding(path, kind, interpreter, tuple(problems), tuple(needed), tuple(runpath))


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


def examine_all(content: Contents) -> list[Finding]:
    """Check each ELF file of a folder, an image or a package; in a root file system also their dependencies."""
    findings = [examine_bytes(path, data) for path, data in content.programs()]
    return [
        replace(
            finding,
            owner=content.owners.get(finding.path),
            problems=(*finding.problems, *(_unmet(finding, content) if content.whole else ())),
        )
        for finding in findings
    ]


def _unmet(finding: Finding, content: Contents) -> Iterator[str]:
    if finding.interpreter is not None:
        if finding.interpreter != LOADER:
            yield f"the interpreter is {finding.interpreter}"
        elif content.resolve(LOADER) is None:
            yield f"there is no {LOADER}"
    origin = finding.path.rpartition("/")[0]
    folders = [re.sub(r"\$(ORIGIN|\{ORIGIN\})", origin, folder) for folder in finding.runpath] + _searched(content)
    for name in finding.needed:
        # The loader is libc and accepts these names as itself.
        if name.startswith(("libc.so", "libc.musl-")):
            continue
        candidates = [name] if "/" in name else [f"{folder.rstrip('/')}/{name}" for folder in folders]
        # A library may be in the RPATH of a file that loads this one.
        if not any(content.resolve(path) for path in [*candidates, f"{origin}/{name}"]):
            yield f"{name} cannot be found"


def _searched(content: Contents) -> list[str]:
    """Return the folders of the loader."""
    file = content.resolve("/etc/ld-musl-x86_64.path")
    if file is None:
        return ["/lib", "/usr/local/lib", "/usr/lib"]
    return content.files[file]().decode(errors="replace").replace("\n", ":").split(":")


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
        return True  # `examine` reports the error


def _examine_path(path: Path, whole: bool) -> list[Finding]:
    try:
        content = contents.read(path, whole=whole)
    except ContentsError as error:
        return [Finding(str(path), "unknown", None, (str(error),))]
    if content.files.keys() == {str(path)}:
        # The argument itself is an object file.
        finding = examine(path)
        return [replace(finding, problems=("not linked",)) if finding.kind == "object" else finding]
    prefix = str(path) if path.is_dir() and not whole else ""
    return [replace(finding, path=prefix + finding.path) for finding in examine_all(content)]


def as_table(findings: Sequence[Finding]) -> str:
    """Return a line for each file."""
    rows = [[f.path, f.kind, f.interpreter or "-", f.owner or "-", ", ".join(f.problems) or "ok"] for f in findings]
    return report.table(["file", "kind", "interpreter", "package", "result"], rows)


def as_junit(findings: Sequence[Finding]) -> str:
    """Return the findings as a test suite."""
    return report.as_junit("verify.pie", [(f.owner or "-", f.path, ", ".join(f.problems)) for f in findings])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m verify.pie", description=__doc__.splitlines()[0].split("`")[0])
    report.add_options(parser)
    parser.add_argument("--root", action="store_true", help="each folder is a root file system")
    parser.add_argument("path", nargs="+", type=Path, help="ELF file, folder to search, image, or package")
    options = parser.parse_args(argv)
    findings: list[Finding] = []
    for path in options.path:
        findings += _examine_path(path, options.root)
    return report.conclude("verify.pie", options, findings, lambda finding: not finding.problems, as_table, as_junit)


if __name__ == "__main__":
    sys.exit(main())
