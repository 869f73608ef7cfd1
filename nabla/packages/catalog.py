# SPDX-License-Identifier: Apache-2.0
"""Packages: what recipes with a [package] table become, in which order they are built, and what is known of each.

    recipe --build--> files of each of its packages, in the cache by the digest of all that went in (package_store)
           --record-> out/packages/<recipe>.json: versions, digests, what each provides and needs
           --apk----> out/apk/x86_64/<package>-<version>.apk

Every recipe is built against the libc, libgcc and what its `makedepends` name, and against nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import msgspec

from nabla.core.artifacts import REPOSITORY, Tree, package_record
from nabla.core.errors import NablaError, RecipeError
from nabla.core.paths import OUT, relative
from nabla.sources import recipe
from nabla.sources.recipe import PackageRecipe, Recipe, Subpackage

# The recipe that all others are built with, unless they come before it.
RUNTIME = "libgcc"
# The recipe whose [build] is the sysroot of all.
LIBC = "musl"

# Endings of package names and the files which such packages take where they say nothing else.
USUAL_FILES: dict[str, tuple[str, ...]] = {
    "-dev": (
        "usr/include",
        "usr/lib/*.a",
        "usr/lib/*.o",
        "usr/lib/*.so",
        "usr/lib/pkgconfig",
        "usr/lib/cmake",
        "usr/share/pkgconfig",
        "usr/share/cmake",
        "usr/share/aclocal",
        "usr/bin/*-config",
    ),
    "-doc": ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/gtk-doc"),
    "-libs": ("lib/*.so.*", "usr/lib/*.so.*"),
    "-static": ("usr/lib/*.a",),
    "-openrc": ("etc/init.d", "etc/conf.d"),
}


class PackageError(NablaError):
    """A package is not what it must be, or could not be made."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one package after its build. `files`: paths without leading slash, folders left out."""

    name: str
    version: str
    summary: str
    depends: tuple[str, ...]
    provides: tuple[str, ...]
    replaces: tuple[str, ...]
    files: tuple[str, ...]
    # Name of a script of apk -> its text.
    scripts: dict[str, str]

    @property
    def apk(self) -> Path:
        """The package file in out/apk."""
        return REPOSITORY / f"{self.name}-{self.version}.apk"


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What a recipe was built to. `key`: digest of what went in; `tree`: of the files that came out."""

    recipe: str
    license: str
    homepage: str | None
    key: str
    tree: str
    parts: tuple[Part, ...]


def names() -> list[str]:
    """Return the names of the recipes that become packages, sorted."""
    return [each.name for each in recipes()]


def recipes() -> list[PackageRecipe]:
    """Return the recipes that become packages, sorted by name."""
    return [each for each in map(recipe.load, recipe.names()) if isinstance(each, PackageRecipe)]


def load(name: str) -> PackageRecipe:
    """Return a recipe that becomes packages. Raises `RecipeError` if it has no [package] table."""
    loaded = recipe.load(name)
    if not isinstance(loaded, PackageRecipe):
        raise RecipeError(f"{relative(loaded.path)}: the recipe has no table [package]")
    return loaded


def read_built(name: str) -> Built:
    """Read what a recipe was built to; raises `PackageError` where that is not known."""
    try:
        return msgspec.json.decode(package_record(name).read_bytes(), type=Built)
    except (FileNotFoundError, msgspec.DecodeError):
        raise PackageError(
            f"{relative(package_record(name))} is missing or damaged", f"run `doit packages:{name}`"
        ) from None


def apks(loaded: PackageRecipe) -> list[Path]:
    """Return the package files of a recipe."""
    return [REPOSITORY / f"{part}-{version(loaded)}.apk" for part in part_names(loaded)]


def all_apks() -> list[Path]:
    """Return the files of all packages."""
    return [path for loaded in recipes() for path in apks(loaded)]


def version(loaded: PackageRecipe) -> str:
    """Return the version of all packages of a recipe, as apk writes it."""
    return f"{loaded.version}-r{loaded.package.revision}"


def part_names(loaded: PackageRecipe) -> list[str]:
    """Return the names of all packages of a recipe, the main one first."""
    return [loaded.name, *(part.name for part in loaded.package.subpackage)]


def built_tree(loaded: Recipe) -> Tree | None:
    """Return what the [build] of a recipe made, where it has one beside [package]."""
    return Tree(OUT / loaded.name) if loaded.build is not None else None


def files_of(part: Subpackage) -> tuple[str, ...]:
    """Return the patterns of the files that a subpackage takes."""
    return part.files or next(files for ending, files in USUAL_FILES.items() if part.name.endswith(ending))


@cache
def owners() -> dict[str, str]:
    """Return package -> recipe. Raises `RecipeError` when two recipes make packages of one name."""
    found: dict[str, str] = {}
    for loaded in recipes():
        for part in part_names(loaded):
            if part in found:
                raise RecipeError(
                    f"{relative(loaded.path)}: the package {part} is also made by the recipe {found[part]}"
                )
            found[part] = loaded.name
    return found


@cache
def needs(name: str) -> tuple[str, ...]:
    """Return the recipes that must be built right before this one. Raises `RecipeError` for a name nobody makes."""
    loaded = load(name)
    # What has a [build] comes before the toolchain of packages: the libc is part of every sysroot.
    found = set() if name == RUNTIME or loaded.build is not None else {RUNTIME}
    for wanted in loaded.package.makedepends:
        if wanted not in owners():
            raise RecipeError(f"{relative(loaded.path)}: makedepends: there is no package {wanted!r}")
        if owners()[wanted] == LIBC:
            raise RecipeError(f"{relative(loaded.path)}: makedepends: {wanted} is there without being named")
        found.add(owners()[wanted])
    return tuple(sorted(found))


def closure(name: str) -> tuple[str, ...]:
    """Return all recipes that must be built before this one, in an order in which that is possible.

    Raises `RecipeError` that shows the circle when there is one.
    """
    order: list[str] = []
    _visit(name, (), order)
    return tuple(order[:-1])


def depends(name: str) -> set[str]:
    """Return the recipes whose packages are named as needed beside those of this one, libraries left out."""
    loaded = load(name)
    texts = [*loaded.package.depends, *(text for part in loaded.package.subpackage for text in part.depends)]
    return {owners()[_bare(text)] for text in texts if _bare(text) in owners()}


def check_graph() -> None:
    """Raise `RecipeError` when a recipe needs itself, or something that is not there."""
    order: list[str] = []
    for name in names():
        _visit(name, (), order)


def _visit(name: str, path: tuple[str, ...], order: list[str]) -> None:
    if name in order:
        return
    if name in path:
        circle = " -> ".join([*path[path.index(name) :], name])
        raise RecipeError(f"{relative(recipe.load(name).path)}: makedepends go in a circle: {circle}")
    for needed in needs(name):
        _visit(needed, (*path, name), order)
    order.append(name)


def conflicts(built: Sequence[Built]) -> Iterator[str]:
    """Yield a sentence for each file that two packages own and neither replaces the other."""
    owner: dict[str, Part] = {}
    for part in (part for each in built for part in each.parts):
        for path in part.files:
            other = owner.setdefault(path, part)
            if other is not part and other.name not in part.replaces and part.name not in other.replaces:
                yield f"/{path} is in two packages, {other.name} and {part.name}"


def unmet(built: Sequence[Built], known: set[str]) -> Iterator[str]:
    """Yield a sentence for each library or other dependency that no package provides and `known` does not hold."""
    parts = [part for each in built for part in each.parts]
    offered = {_bare(text) for part in parts for text in part.provides} | {part.name for part in parts} | known
    for part in parts:
        for text in part.depends:
            if not text.startswith(("!", "/")) and _bare(text) not in offered:
                yield f"{part.name} needs {text}, which no package provides"


def _bare(text: str) -> str:
    """Return a dependency without its version."""
    for mark in "<>=~":
        text = text.split(mark, 1)[0]
    return text
