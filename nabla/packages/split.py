# SPDX-License-Identifier: Apache-2.0
"""Split the installed files of a recipe into packages: check them, divide them, determine their dependencies.

Each file goes to the first subpackage with a matching pattern, or else to the main package. A `*` in a pattern matches
within one folder; a pattern that matches a folder includes all its files. Documentation is dropped if there is no -doc
subpackage.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from elftools.common.exceptions import ELFError

from nabla.core.paths import relative
from nabla.packages import elf
from nabla.packages.catalog import BinaryPackage, PackageError, files_of, version
from nabla.sources.recipe import PackageRecipe, Subpackage
from verify import pie

_DOCUMENTATION = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/gtk-doc")
Note = Callable[[str], None]


def split(destination: Path, result: Path, loaded: PackageRecipe, sysroot: Path, note: Note) -> list[BinaryPackage]:
    """Link the files below `destination` to `result`/<package>/ and return the packages.

    `sysroot`: the tree with the needed libraries. Raises `PackageError` if no file is installed, a subpackage has no
    file, a program is not position-independent, or a library is missing.
    """
    entries = _entries(destination)
    if not any(part.name.endswith("-doc") for part in loaded.package.subpackage):
        entries = [path for path in entries if not any(_fits(path, folder) for folder in _DOCUMENTATION)]
        # Drop their parent folder if it contains nothing else.
        entries = [p for p in entries if p != "usr/share" or any(other.startswith("usr/share/") for other in entries)]
    _check(destination, entries, loaded, sysroot)
    main = Subpackage(
        name=loaded.name,
        summary=loaded.summary,
        depends=loaded.package.depends,
        provides=loaded.package.provides,
        replaces=loaded.package.replaces,
        scripts=loaded.package.scripts,
    )
    claimed: dict[str, str] = {}
    for part in loaded.package.subpackage:
        own = [path for path in entries if path not in claimed and any(_fits(path, p) for p in files_of(part))]
        if not own and not part.depends:
            raise PackageError(
                f"{loaded.name}: no file matches the package {part.name}", f"its patterns: {files_of(part)}"
            )
        claimed.update(dict.fromkeys(own, part.name))
    chosen = {
        part.name: (part, [p for p in entries if claimed.get(p) == part.name]) for part in loaded.package.subpackage
    }
    rest = [path for path in entries if path not in claimed and _is_own(destination, path, claimed)]
    contents = [(main, rest), *chosen.values()] if rest or main.depends else list(chosen.values())
    if not rest:
        note(f"no file is left for the main package {loaded.name}")
    interfaces = [_interface(destination, paths, part, loaded) for part, paths in contents]
    for part, paths in contents:
        _link(destination, result / part.name, paths)
    return [
        _package(part, result, interface, loaded) for (part, _), interface in zip(contents, interfaces, strict=True)
    ]


def _package(part: Subpackage, result: Path, interface: elf.Interface, loaded: PackageRecipe) -> BinaryPackage:
    return BinaryPackage(
        name=part.name,
        version=version(loaded),
        summary=part.summary or f"{loaded.summary} ({part.name.rpartition('-')[2]})",
        depends=tuple(sorted({*part.depends, *interface.depends})),
        provides=tuple(sorted({*part.provides, *interface.provides})),
        replaces=part.replaces,
        files=tuple(files(result / part.name)),
        scripts={kind: (loaded.folder / name).read_text(encoding="utf-8") for kind, name in part.scripts.items()},
    )


def _interface(root: Path, paths: list[str], part: Subpackage, loaded: PackageRecipe) -> elf.Interface:
    try:
        return elf.interface(root, (path for path in paths if not _is_folder(root / path)), version(loaded))
    except ELFError as error:
        raise PackageError(f"{part.name}: a file cannot be read as ELF: {error}") from error


def _check(destination: Path, entries: list[str], loaded: PackageRecipe, sysroot: Path) -> None:
    """Raise `PackageError` for a file that cannot run in the guest."""
    names = [path for path in entries if not _is_folder(destination / path)]
    if not names:
        raise PackageError(f"{loaded.name}: the step `package` installed no file below $DESTDIR")
    for path in names:
        full = destination / path
        if not full.is_symlink() and not stat.S_ISREG(full.stat().st_mode):
            raise PackageError(f"{loaded.name}: /{path} is neither a file nor a link; apk cannot package it")
        if elf.is_elf(full):
            finding = pie.examine(full)
            if finding.problems:
                raise PackageError(f"{loaded.name}: /{path}: {', '.join(finding.problems)}", "see docs/packages.md")
    known = elf.libraries(sysroot)
    for path, library in elf.missing(destination, names, known):
        raise PackageError(
            f"{loaded.name}: /{path} needs {library}, which no build dependency contains",
            f"add the package with it to makedepends in {relative(loaded.path)}",
        )


def _is_own(root: Path, path: str, claimed: dict[str, str]) -> bool:
    """Return whether an entry of no subpackage belongs to the main package. A folder does if it is empty."""
    if not _is_folder(root / path):
        return True
    return not any(other.startswith(f"{path}/") for other in claimed) and not any((root / path).iterdir())


def _link(source: Path, target: Path, paths: list[str]) -> None:
    """Hard-link entries to another folder of the same file system, and copy the modes of their parent folders."""
    target.mkdir(parents=True)
    target.chmod(0o755)
    for path in paths:
        _make_parents(source, target, path)
        if _is_folder(source / path):
            (target / path).mkdir(exist_ok=True)
            (target / path).chmod(stat.S_IMODE((source / path).stat().st_mode))
        else:
            os.link(source / path, target / path, follow_symlinks=False)


def _make_parents(source: Path, target: Path, path: str) -> None:
    for parent in reversed(Path(path).parents[:-1]):
        if not (target / parent).is_dir():
            (target / parent).mkdir()
            (target / parent).chmod(stat.S_IMODE((source / parent).stat().st_mode))


def _fits(path: str, pattern: str) -> bool:
    """Return whether a pattern matches a path or one of its parent folders."""
    parts, wanted = path.split("/"), pattern.rstrip("/").split("/")
    return len(parts) >= len(wanted) and all(map(fnmatchcase, parts, wanted))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _entries(root: Path) -> list[str]:
    """Return all paths below a folder, relative to it, sorted."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def files(root: Path) -> list[str]:
    """Return the paths of all files and links below a folder, relative to it, sorted."""
    return [path for path in _entries(root) if not _is_folder(root / path)]
