# SPDX-License-Identifier: Apache-2.0
"""Determine what the files of a package provide and require, in the notation of Alpine's packages.

so:libz.so.1=1.3.1     a shared library: SONAME, version in the file name
cmd:xz=5.8.1-r0        a program in one of the folders of commands
pc:zlib=1.3.1          a description for pkg-config
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile

from nabla.sources.recipe import APK_VERSION
from verify.elf import DAMAGE, is_debug_file, load, reason

LIBRARY_FOLDERS = ("lib", "usr/lib")
_COMMAND_FOLDERS = ("bin", "sbin", "usr/bin", "usr/sbin")
# nabla's programs name libc.so, Alpine's the other; the loader accepts both as itself.
LIBC = "libc.musl-x86_64.so.1"
_LIBC_NAMES = ("libc.so", LIBC)
_PC_FOLDERS = ("usr/lib/pkgconfig", "usr/share/pkgconfig")


@dataclass
class Interface:
    """The names that one package provides and depends on."""

    provides: set[str] = field(default_factory=set)
    depends: set[str] = field(default_factory=set)


def is_elf(path: Path) -> bool:
    """Return whether a host file is an ELF file."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def dynamic(path: Path) -> tuple[str | None, tuple[str, ...]]:
    """Return SONAME and NEEDED of an ELF file; objects, static programs and debug information have neither.

    Raises `ELFError` for a malformed file.
    """
    try:
        with path.open("rb") as stream:
            return _dynamic(load(stream))
    except DAMAGE as error:
        raise ELFError(f"{path.name}: {reason(error)}") from error


def _dynamic(file: ELFFile) -> tuple[str | None, tuple[str, ...]]:
    if is_debug_file(file):
        return None, ()
    for segment in file.iter_segments():
        if isinstance(segment, DynamicSegment):
            soname, needed = None, []
            tag: Any
            for tag in segment.iter_tags():
                if tag.entry.d_tag == "DT_SONAME":
                    soname = str(tag.soname)
                elif tag.entry.d_tag == "DT_NEEDED":
                    needed.append(str(tag.needed))
            return soname, tuple(needed)
    return None, ()


def interface(root: Path, files: Iterable[str], version: str) -> Interface:
    """Return what the files of a package (paths below `root`) provide and depend on.

    `version`: of the package, for its programs. Dependencies that the package itself provides are left out.
    """
    result = Interface()
    own: set[str] = set()
    for name in files:
        path, pure = root / name, PurePosixPath(name)
        folder = str(pure.parent)
        if folder in _COMMAND_FOLDERS and (path.is_symlink() or path.stat().st_mode & 0o111):
            result.provides.add(f"cmd:{pure.name}={version}")
        if folder in _PC_FOLDERS and pure.suffix == ".pc" and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            result.provides.add(f"pc:{pure.stem}={apk_version(pc_version(text) or '')}")
            result.depends |= {f"pc:{module}" for module in pc_requires(text)}
            own.add(f"pc:{pure.stem}")
        if path.is_symlink() and folder in LIBRARY_FOLDERS and pure.suffix == ".so":
            target = (path.parent / path.readlink()).resolve()
            if target.is_relative_to(root.resolve()) and is_elf(target):
                soname, _ = dynamic(target)
                result.depends |= {f"so:{soname}"} if soname else set()
        if not is_elf(path):
            continue
        soname, needed = dynamic(path)
        if soname and folder in LIBRARY_FOLDERS:
            result.provides.add(f"so:{soname}={_library_version(pure.name)}")
        # In another folder, only the package itself finds the library, by a run path.
        own |= {f"so:{soname or pure.name}", f"so:{pure.name}"}
        result.depends |= {f"so:{LIBC if each in _LIBC_NAMES else each}" for each in needed}
    result.depends -= own
    return result


def libraries(root: Path) -> dict[str, Path]:
    """Return SONAME -> file of the shared libraries in the library folders of a tree."""
    files = {}
    for folder in LIBRARY_FOLDERS:
        for path in sorted((root / folder).glob("*.so*")):
            if is_elf(path):
                try:
                    soname, _ = dynamic(path)
                except ELFError:
                    continue
                files[soname or path.name] = path
    return files


def missing(root: Path, files: Iterable[str], known: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Yield (file, library) for each library that a file needs and neither the tree nor `known` contains."""
    names = list(files)
    here = {PurePosixPath(name).name for name in names} | set(libraries(root)) | set(known) | set(_LIBC_NAMES)
    for name in names:
        if is_elf(root / name):
            yield from ((name, each) for each in dynamic(root / name)[1] if each not in here)


def pc_version(text: str) -> str | None:
    """Return the version in a .pc file, with its variables expanded."""
    return _pc_field(text, "Version")


def pc_requires(text: str) -> list[str]:
    """Return the modules that a .pc file requires, including private ones."""
    words = ",".join(filter(None, (_pc_field(text, "Requires"), _pc_field(text, "Requires.private"))))
    # Versions follow an operator: `zlib >= 1.2, libfoo`.
    return re.findall(r"[A-Za-z0-9][\w.+-]*", re.sub(r"[<>=!]+\s*[\w.+~-]+", " ", words))


def apk_version(text: str) -> str:
    """Return the beginning of a version that apk can write; 0 where there is none."""
    match = re.match(rf"{APK_VERSION}(?![0-9])", text)
    return match.group() if match else "0"


def _pc_field(text: str, name: str) -> str | None:
    variables = dict(re.findall(r"^(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE))
    match = re.search(rf"^{re.escape(name)}:[ \t]*(.*?)[ \t]*$", text, re.MULTILINE)
    if match is None:
        return None
    value = str(match.group(1))
    for _ in range(len(variables) + 1):
        value = re.sub(r"\$\{(\w+)\}", lambda m: variables.get(m.group(1), ""), value)
    return value.strip() or None


def _library_version(name: str) -> str:
    """Return the version at the end of a library's file name; 0 if there is none."""
    match = re.search(r"\.so\.(\d+(\.\d+)*)$", name)
    return match.group(1) if match else "0"
