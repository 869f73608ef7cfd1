# SPDX-License-Identifier: Apache-2.0
"""Rules for the files of packages: problems that apk accepts but users do not expect.

`EXCEPTIONS` lists accepted files, each with its reason.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from elftools.elf.dynamic import DynamicSection

from nabla.packages import catalog, elf
from nabla.packages.builder import files_path
from nabla.packages.catalog import BinaryPackage, PackageError
from nabla.packages.lint.recipes import Finding
from verify.elf import DAMAGE, load

Rule = Callable[[BinaryPackage, str, Path], Iterator[str]]

# Folders of the build's sandbox, alone or after an option of the compiler; not `Tools/build/`.
_BUILD_PATHS = re.compile(rb"(?:(?<![\w./+-])|(?<=-[IL]))/(?:build|sysroot|tools/cross)/[\w.+-]+")
_OUTSIDE = ("usr/local/", "home/", "tmp/", "opt/", "root/", "run/", "dev/", "proc/", "sys/", "mnt/")
_USR = {"bin", "sbin", "lib", "libexec", "share", "include"}
_LEFTOVERS = (".debug", ".orig", ".rej", ".la", ".gcda", ".gcno", "~")


def _folders(_part: BinaryPackage, path: str, _full: Path) -> Iterator[str]:
    parts = path.split("/")
    if path.startswith(_OUTSIDE) or (parts[0] == "usr" and parts[1] not in _USR):
        yield "packages do not own files there"


def _leftovers(_part: BinaryPackage, path: str, _full: Path) -> Iterator[str]:
    if path.endswith(_LEFTOVERS):
        yield "a leftover of the build"


def _modes(_part: BinaryPackage, _path: str, full: Path) -> Iterator[str]:
    if full.is_symlink():
        return
    mode = full.stat().st_mode
    if mode & stat.S_IWOTH:
        yield "everyone may write to it"
    if mode & (stat.S_ISUID | stat.S_ISGID):
        yield "it runs with its owner's rights"


def _links(part: BinaryPackage, path: str, full: Path) -> Iterator[str]:
    if not full.is_symlink():
        return
    target = os.readlink(full)
    if target.startswith(("/build", "/sysroot", "/tools")):
        yield f"the link leads to {target}, a folder of the build"
        return
    target = os.path.normpath(target if target.startswith("/") else f"/{PurePosixPath(path).parent}/{target}")
    if target.lstrip("/") not in _all_files(part):
        yield f"the link leads to {target}, which neither its recipe nor a recipe that it depends on contains"


def _all_files(part: BinaryPackage) -> set[str]:
    """Return files and folders of the package's recipe and of those that it is built against."""
    name = catalog.owners()[part.name]
    recipes = [name, *catalog.closure(name), *catalog.depends(name)]
    paths = {path for each in recipes for other in catalog.read_build_record(each).parts for path in other.files}
    return paths | {str(parent) for path in paths for parent in PurePosixPath(path).parents}


def _run_paths(_part: BinaryPackage, _path: str, full: Path) -> Iterator[str]:
    if not elf.is_elf(full):
        return
    tag: Any
    try:
        with full.open("rb") as stream:
            for section in load(stream).iter_sections():
                if isinstance(section, DynamicSection):
                    for tag in section.iter_tags():
                        if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
                            text = str(getattr(tag, "rpath", "") or getattr(tag, "runpath", ""))
                            yield f"it has the run path {text}; the loader finds libraries in /lib and /usr/lib"
    except DAMAGE:
        yield "a damaged ELF file"


def _paths(_part: BinaryPackage, _path: str, full: Path) -> Iterator[str]:
    if full.is_symlink():
        return
    paths = sorted({match.group().decode() for match in _BUILD_PATHS.finditer(full.read_bytes())})
    if paths:
        yield f"it contains paths of the build: {', '.join(paths[:3])}"


RULES: Mapping[str, Rule] = {
    "folders": _folders,
    "leftovers": _leftovers,
    "modes": _modes,
    "links": _links,
    "run paths": _run_paths,
    "build paths": _paths,
}

# (package, rule, pattern of the path) -> the reason why these files are accepted.
EXCEPTIONS: Mapping[tuple[str, str, str], str] = {
    ("openssh", "modes", "usr/lib/ssh/ssh-keysign"): "it reads the host's key for users, as upstream installs it",
    (
        "py3-numpy",
        "run paths",
        "usr/lib/python3.13/site-packages/*",
    ): "the wheel's own libraries lie beside its modules",
    (
        "py3-pandas",
        "run paths",
        "usr/lib/python3.13/site-packages/*",
    ): "the wheel's own libraries lie beside its modules",
    (
        "python3",
        "build paths",
        "usr/lib/python3.13/*",
    ): "byte code names its source, and sysconfig the build's folders; "
    "Python corrects the former when it loads a module",
    ("python3-dev", "build paths", "usr/lib/python3.13/config-*/Makefile"): "upstream's file names the build's folders",
    ("readline", "run paths", "usr/lib/*"): "upstream's makefiles name a folder that the loader searches anyway",
    ("sqlite", "run paths", "usr/bin/sqlite3"): "upstream's makefiles name a folder that the loader searches anyway",
    ("tcl", "build paths", "usr/lib/libtcl8.6.so"): "a folder of the build that Tcl searches for scripts, the last one",
    ("tcl-dev", "build paths", "usr/lib/tclConfig.sh"): "upstream's file names the source beside the installed folders",
}


def examine(recipe: str, exceptions: Mapping[tuple[str, str, str], str] = EXCEPTIONS) -> Iterator[Finding]:
    """Yield the violations of a built recipe's packages.

    Raises `PackageError` if the result cache has evicted their files.
    """
    built = catalog.read_build_record(recipe)
    for part in built.parts:
        root = files_path(built.key, part.name)
        if not root.is_dir():
            again = f"build them again: ./doit.sh clean packages:{recipe} && ./doit.sh packages:{recipe}"
            raise PackageError(f"the files of {part.name} are no longer in the cache", again)
        for path in part.files:
            for rule, find in RULES.items():
                if not _is_excepted(part.name, rule, path, exceptions):
                    yield from (Finding(part.name, rule, f"/{path}: {text}") for text in find(part, path, root / path))


def _is_excepted(package: str, rule: str, path: str, exceptions: Collection[tuple[str, str, str]]) -> bool:
    return any((package, rule) == key[:2] and fnmatchcase(path, key[2]) for key in exceptions)
