# SPDX-License-Identifier: Apache-2.0
"""Read apk's database of installed packages from a root file system."""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.core.errors import ImageError
from nabla.fs.nodes import Tree
from verify.contents import DATABASES


@dataclass(frozen=True)
class Installed:
    """One package of the database. `origin`: its source package."""

    name: str
    version: str
    license: str
    summary: str
    homepage: str | None
    origin: str
    depends: tuple[str, ...]
    provides: tuple[str, ...]
    files: tuple[str, ...]


def parse(text: str) -> tuple[Installed, ...]:
    """Parse a database in its text format (apk-installed(5))."""
    return tuple(_block(block) for block in text.split("\n\n") if block.strip())


def read_tree(tree: Tree) -> tuple[Installed, ...]:
    """Return the packages in the database of a root file system. Raises `ImageError` for a damaged database."""
    return tuple(each for path in DATABASES if path in tree for each in parse(tree[path].content().decode()))


def read_image(image: Path) -> tuple[tuple[Installed, ...], frozenset[str]]:
    """Return the packages of an ext image, and those of their files that exist.

    An image without a database has no packages. Raises `ImageError` for a damaged image.
    """
    from dissect.extfs import ExtFS
    from dissect.extfs.exceptions import Error

    try:
        with image.open("rb") as stream:
            system = ExtFS(stream)
            present = _lookup(system)
            for path in DATABASES:
                if present(path):
                    installed = parse(bytes(system.get(path).open().read()).decode())
                    return installed, frozenset(file for each in installed for file in each.files if present(file))
    except (Error, OSError) as error:
        raise ImageError(f"cannot read the file system in {image.name}: {error}") from error
    return (), frozenset()


def _lookup(system: Any) -> Callable[[str], bool]:
    """Return a function that checks whether a path exists.

    It reads each folder once; dissect reads all parent folders again for each file.
    """

    @functools.cache
    def listing(folder: str) -> dict[str, Any]:
        if folder == "/":
            return dict(system.root.listdir())
        above, _, name = folder.rpartition("/")
        entry = listing(above or "/").get(name)
        if entry is not None and entry.filetype == stat.S_IFLNK:
            return listing(os.path.normpath(os.path.join(above or "/", entry.link)))
        return dict(entry.listdir()) if entry is not None and entry.filetype == stat.S_IFDIR else {}

    def present(path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in listing(folder or "/")

    return present


def bare(word: str) -> str:
    """Return a dependency or provided name without its version."""
    return re.split("[<>=~]", word)[0]


def resolve(depends: Sequence[str], providers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the references of the packages that provide the dependencies; omits unknown ones."""
    wanted = {bare(word) for word in depends if not word.startswith("!")}
    return tuple(sorted({providers[word] for word in wanted if word in providers}))


def _block(text: str) -> Installed:
    fields: dict[str, str] = {}
    files: list[str] = []
    folder = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == "F":
            folder = value
        elif key == "R":
            files.append(f"/{folder}/{value}" if folder else f"/{value}")
        elif key not in ("M", "a", "Z"):
            fields[key] = value
    try:
        return Installed(
            name=fields["P"],
            version=fields["V"],
            license=fields.get("L", ""),
            summary=fields.get("T", ""),
            homepage=fields.get("U") or None,
            origin=fields.get("o", fields["P"]),
            depends=tuple(fields.get("D", "").split()),
            provides=tuple(fields.get("p", "").split()),
            files=tuple(files),
        )
    except KeyError as error:
        raise ImageError(f"the database of installed packages is damaged: no {error} in\n{text[:200]}") from None
