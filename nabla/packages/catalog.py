# SPDX-License-Identifier: Apache-2.0
"""The packages of the recipes with a [package] table: names, files, dependencies and the order of their builds.

    recipe --build--> the files of its packages, in the result cache
           --record-> out/packages/<recipe>.json: versions, digests, what each package provides and depends on
           --apk----> out/apk/x86_64/<package>-<version>.apk

Each recipe is built against the libc, libgcc and its `makedepends`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import msgspec

from nabla.core.artifacts import REPOSITORY, Tree, package_record
from nabla.core.errors import NablaError, RecipeError
from nabla.core.paths import OUT, relative
from nabla.packages.apkdb import Installed, bare
from nabla.sources import recipe
from nabla.sources.recipe import PackageRecipe, Recipe, Subpackage

# All recipes that are built after this one depend on it.
RUNTIME = "libgcc"
# The recipe whose [build] is the base of every sysroot.
LIBC = "musl"

# Suffix of a package name -> the default patterns of its files.
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
    """A package is invalid or cannot be built."""


class BinaryPackage(msgspec.Struct, frozen=True, kw_only=True):
    """One package after its build. `files`: paths without leading slash, without folders."""

    name: str
    version: str
    summary: str
    depends: tuple[str, ...]
    provides: tuple[str, ...]
    replaces: tuple[str, ...]
    files: tuple[str, ...]
    # Name of an apk script -> its text.
    scripts: dict[str, str]

    @property
    def apk(self) -> Path:
        """The package file in out/apk."""
        return REPOSITORY / f"{self.name}-{self.version}.apk"


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a recipe's build. `key`: digest of its inputs; `tree`: digest of the files of its packages."""

    recipe: str
    license: str
    homepage: str | None
    key: str
    tree: str
    parts: tuple[BinaryPackage, ...]


def names() -> list[str]:
    """Return the names of the recipes with a [package] table, sorted, without the optional ones."""
    return [each.name for each in recipes()]


def recipes() -> list[PackageRecipe]:
    """Return the recipes with a [package] table, sorted by name, without the optional ones."""
    return [each for each in all_recipes() if not each.optional]


def all_recipes() -> list[PackageRecipe]:
    """Return the recipes with a [package] table, sorted by name, with the optional ones."""
    return [each for each in map(recipe.load, recipe.names()) if isinstance(each, PackageRecipe)]


def load(name: str) -> PackageRecipe:
    """Return a recipe by name. Raises `RecipeError` if it has no [package] table."""
    loaded = recipe.load(name)
    if not isinstance(loaded, PackageRecipe):
        raise RecipeError(f"{relative(loaded.path)}: the recipe has no table [package]")
    return loaded


def read_build_record(name: str) -> BuildRecord:
    """Read the record of a recipe's build. Raises `PackageError` if it is missing or damaged."""
    try:
        return msgspec.json.decode(package_record(name).read_bytes(), type=BuildRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        raise PackageError(
            f"{relative(package_record(name))} is missing or damaged", f"run `doit packages:{name}`"
        ) from None


def apks(loaded: PackageRecipe) -> list[Path]:
    """Return the package files of a recipe."""
    return [REPOSITORY / f"{part}-{version(loaded)}.apk" for part in part_names(loaded)]


def all_apks() -> list[Path]:
    """Return the package files of all recipes except the optional ones."""
    return [path for loaded in recipes() for path in apks(loaded)]


def version(loaded: PackageRecipe) -> str:
    """Return the version of a recipe's packages in apk's format."""
    return f"{loaded.version}-r{loaded.package.revision}"


def part_names(loaded: PackageRecipe) -> list[str]:
    """Return the names of all packages of a recipe, the main one first."""
    return [loaded.name, *(part.name for part in loaded.package.subpackage)]


def built_tree(loaded: Recipe) -> Tree | None:
    """Return the output of a recipe's [build], if it has one besides [package]."""
    return Tree(OUT / loaded.name) if loaded.build is not None else None


def files_of(part: Subpackage) -> tuple[str, ...]:
    """Return the patterns of a subpackage's files."""
    return part.files or next(files for ending, files in USUAL_FILES.items() if part.name.endswith(ending))


@cache
def owners() -> dict[str, str]:
    """Return package -> recipe. Raises `RecipeError` if two recipes build packages with the same name."""
    recipes: dict[str, str] = {}
    for loaded in all_recipes():
        for part in part_names(loaded):
            if part in recipes:
                raise RecipeError(f"{relative(loaded.path)}: the recipe {recipes[part]} also builds the package {part}")
            recipes[part] = loaded.name
    return recipes


@cache
def needs(name: str) -> tuple[str, ...]:
    """Return the recipes that this one is built against directly. Raises `RecipeError` for an unknown name."""
    loaded = load(name)
    # A recipe with a [build] precedes the toolchain of packages: the libc is part of every sysroot.
    recipes = set() if name == RUNTIME or loaded.build is not None else {RUNTIME}
    for wanted in loaded.package.makedepends:
        if wanted not in owners():
            raise RecipeError(f"{relative(loaded.path)}: makedepends: there is no package {wanted!r}")
        if owners()[wanted] == LIBC:
            raise RecipeError(f"{relative(loaded.path)}: makedepends: every sysroot contains {wanted}")
        recipes.add(owners()[wanted])
    return tuple(sorted(recipes))


def closure(name: str) -> tuple[str, ...]:
    """Return all recipes that must be built before this one, in the order of their builds.

    Raises `RecipeError` that shows the cycle if there is one.
    """
    order: list[str] = []
    _visit(name, (), order)
    return tuple(order[:-1])


def depends(name: str) -> set[str]:
    """Return the recipes of the packages that this one lists in `depends`, which does not include libraries."""
    loaded = load(name)
    texts = [*loaded.package.depends, *(text for part in loaded.package.subpackage for text in part.depends)]
    return {owners()[bare(text)] for text in texts if bare(text) in owners()}


def check_graph() -> None:
    """Raise `RecipeError` if a recipe depends on itself or on an unknown package."""
    order: list[str] = []
    for loaded in all_recipes():
        _visit(loaded.name, (), order)
        for needed in () if loaded.optional else needs(loaded.name):
            if load(needed).optional:
                raise RecipeError(f"{relative(loaded.path)}: makedepends: {needed} is optional, and this recipe is not")


def _visit(name: str, path: tuple[str, ...], order: list[str]) -> None:
    if name in order:
        return
    if name in path:
        cycle = " -> ".join([*path[path.index(name) :], name])
        raise RecipeError(f"{relative(recipe.load(name).path)}: makedepends form a cycle: {cycle}")
    for needed in needs(name):
        _visit(needed, (*path, name), order)
    order.append(name)


def conflicts(built: Sequence[BuildRecord], base: Sequence[Installed]) -> Iterator[str]:
    """Yield a sentence for each file of two packages of which neither replaces the other.

    `base`: the packages of the Alpine base. A package with the name of one of them takes its place.
    """
    parts = [part for each in built for part in each.parts]
    own = {part.name for part in parts}
    theirs = {path: each.name for each in base if each.name not in own for path in each.files}
    owner: dict[str, BinaryPackage] = {}
    for part in parts:
        for path in part.files:
            other = owner.setdefault(path, part)
            if other is not part and other.name not in part.replaces and part.name not in other.replaces:
                yield f"/{path} is in two packages, {other.name} and {part.name}"
            alpine = theirs.get(f"/{path}")
            if alpine is not None and alpine not in part.replaces:
                yield f"/{path} is in two packages, Alpine's {alpine} and {part.name}"


def unmet(built: Sequence[BuildRecord], known: set[str]) -> Iterator[str]:
    """Yield a sentence for each dependency that no package provides and `known` does not contain."""
    parts = [part for each in built for part in each.parts]
    offered = {bare(text) for part in parts for text in part.provides} | {part.name for part in parts} | known
    for part in parts:
        for text in part.depends:
            if not text.startswith(("!", "/")) and bare(text) not in offered:
                yield f"{part.name} needs {text}, which no package provides"
