# SPDX-License-Identifier: Apache-2.0
"""From what a recipe installed to the files of its packages: check, divide, find out who needs whom.

Each file goes to the first subpackage whose patterns take it, the rest to the main package. A `*` in a pattern stays
within one folder; a pattern that fits a folder takes all in it. Documentation that no -doc package takes is left out.
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
from nabla.packages.catalog import PackageError, Part, files_of, version
from nabla.sources.recipe import PackageRecipe, Subpackage
from verify import pie

_DOCUMENTATION = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/gtk-doc")
Note = Callable[[str], None]


def split(destination: Path, result: Path, loaded: PackageRecipe, sysroot: Path, note: Note) -> list[Part]:
    """Link the files below `destination` to `result`/<package>/ and return what each package is.

    `sysroot`: where needed libraries may be. Raises `PackageError`: nothing was installed, a subpackage gets no file, a
    program is not position-independent, a library is not to be had.
    """
    entries = _entries(destination)
    if not any(part.name.endswith("-doc") for part in loaded.package.subpackage):
        entries = [path for path in entries if not any(_fits(path, folder) for folder in _DOCUMENTATION)]
        # The folder above them, should it hold nothing else.
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
        mine = [path for path in entries if path not in claimed and any(_fits(path, p) for p in files_of(part))]
        if not mine and not part.depends:
            raise PackageError(
                f"{loaded.name}: no file fits the package {part.name}", f"its patterns: {files_of(part)}"
            )
        claimed.update(dict.fromkeys(mine, part.name))
    chosen = {
        part.name: (part, [p for p in entries if claimed.get(p) == part.name]) for part in loaded.package.subpackage
    }
    rest = [path for path in entries if path not in claimed and _is_own(destination, path, claimed)]
    made = [(main, rest), *chosen.values()] if rest or main.depends else list(chosen.values())
    if not rest:
        note(f"nothing is left for the main package {loaded.name}")
    facts = [(part, mine, _interface(destination, mine, part, loaded)) for part, mine in made]
    for part, mine, _ in facts:
        _link(destination, result / part.name, mine)
    return [_part(part, result, interface, loaded) for part, _, interface in facts]


def _part(part: Subpackage, result: Path, interface: elf.Interface, loaded: PackageRecipe) -> Part:
    return Part(
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
    """Refuse what could not run in the guest."""
    names = [path for path in entries if not _is_folder(destination / path)]
    if not names:
        raise PackageError(f"{loaded.name}: the step `package` installed nothing below $DESTDIR")
    for path in names:
        full = destination / path
        if not full.is_symlink() and not stat.S_ISREG(full.stat().st_mode):
            raise PackageError(f"{loaded.name}: /{path} is neither file nor link; apk cannot package it")
        if elf.is_elf(full):
            finding = pie.examine(full)
            if finding.problems:
                raise PackageError(f"{loaded.name}: /{path}: {', '.join(finding.problems)}", "see docs/packages.md")
    known = elf.libraries(sysroot)
    for path, library in elf.missing(destination, names, known):
        raise PackageError(
            f"{loaded.name}: /{path} needs {library}, which is in no package that it is built against",
            f"name the package that has it in makedepends of {relative(loaded.path)}",
        )


def _is_own(root: Path, path: str, claimed: dict[str, str]) -> bool:
    """Tell whether an entry that no subpackage took belongs to the main package: folders count if they are empty."""
    if not _is_folder(root / path):
        return True
    return not any(other.startswith(f"{path}/") for other in claimed) and not any((root / path).iterdir())


def _link(source: Path, target: Path, paths: list[str]) -> None:
    """Make entries again in another folder of the same file system, with the modes of the folders above them."""
    target.mkdir(parents=True)
    target.chmod(0o755)
    for path in paths:
        place = target / path
        _make_parents(source, target, path)
        if _is_folder(source / path):
            place.mkdir(exist_ok=True)
            place.chmod(stat.S_IMODE((source / path).stat().st_mode))
        else:
            os.link(source / path, place, follow_symlinks=False)


def _make_parents(source: Path, target: Path, path: str) -> None:
    for parent in reversed(Path(path).parents[:-1]):
        if not (target / parent).is_dir():
            (target / parent).mkdir()
            (target / parent).chmod(stat.S_IMODE((source / parent).stat().st_mode))


def _fits(path: str, pattern: str) -> bool:
    """Tell whether a pattern takes a path, or a folder above it."""
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
