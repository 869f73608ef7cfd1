# SPDX-License-Identifier: Apache-2.0
"""Recipes: a folder `recipes/<name>/` with a `recipe.toml`, which lists locked sources and build commands.

The structures below are the schema: `load` rejects unknown keys, wrong types and malformed values with an error that
names file, line and key. docs/recipes.md describes the format.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec

from nabla.core import toml
from nabla.core.errors import RecipeError
from nabla.core.paths import KEYS, PATCHES, RECIPES, ROOT, relative

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", description="64 lower-case hexadecimal digits")]
Size = Annotated[int, msgspec.Meta(ge=1, description="bytes")]
Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9+.-]*$", description="lower-case name")]
Text = Annotated[str, msgspec.Meta(min_length=1)]
FileName = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][^/\\s]*$", description="a file name without folders")]
Url = Annotated[str, msgspec.Meta(pattern="^https?://[^\\s]+$", description="an http or https address")]
Dependency = Annotated[
    str,
    msgspec.Meta(pattern="^!?[a-z0-9/][a-z0-9+._:/-]*([<>=~]+[^\\s]+)?$", description="a package, as apk writes it"),
]
Pattern = Annotated[
    str, msgspec.Meta(pattern="^(?!.*(^|/)\\.\\.(/|$))[^/\\s][^\\s]*$", description="a path without leading slash")
]
Script = Literal[
    "pre-install", "post-install", "pre-upgrade", "post-upgrade", "pre-deinstall", "post-deinstall", "trigger"
]
Cve = Annotated[str, msgspec.Meta(pattern="^CVE-[0-9]{4}-[0-9]{4,}$", description="a number like CVE-2024-12345")]
Fingerprint = Annotated[str, msgspec.Meta(pattern="^[0-9A-F]{40}$", description="40 upper-case hexadecimal digits")]


# Suffixes of subpackages with default patterns.
DEFAULT_SUFFIXES = ("-dev", "-doc", "-libs", "-static", "-openrc")
APK_VERSION = r"\d+(\.\d+)*[a-z]?(_(alpha|beta|pre|rc|cvs|svn|git|hg|p)\d*)*"


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A detached OpenPGP signature by upstream.

    `key`: file in recipes/keys. `fingerprint`: the signer's certificate in it. `url`: addresses of the signature
    (origin `url`); `file`: its name beside the tarball (origin `debian`). `over`: whether the file itself is signed or
    the decompressed tar (as on kernel.org).
    """

    key: FileName
    fingerprint: Fingerprint
    url: tuple[Url, ...] = ()
    file: FileName | None = None
    over: Literal["file", "uncompressed"] = "file"

    @property
    def key_path(self) -> Path:
        """Absolute path of the public key."""
        return KEYS / self.key


class UrlOrigin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="url"):
    """A file on upstream's servers, at one or more addresses, which are tried in order.

    `size` is optional if there is a `signature`.
    """

    url: Annotated[tuple[Url, ...], msgspec.Meta(min_length=1)]
    sha256: Sha256
    size: Size | None = None
    signature: Signature | None = None

    @property
    def file(self) -> str:
        """File name in the first address."""
        return PurePosixPath(self.url[0].split("?")[0]).name


class DebianOrigin(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="debian"
):
    """A file of a Debian source package (usually the *.orig* tarball), fetched by apt from the host's mirror."""

    suite: Name
    package: Name
    version: Text
    file: FileName
    sha256: Sha256
    size: Size
    signature: Signature | None = None


class DebOrigin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="deb"):
    """A file in Debian's pool: a binary package `….deb` or an upstream tarball `….orig.tar.*`."""

    pool: Annotated[
        str,
        msgspec.Meta(
            pattern="^pool/[^\\s]+(\\.deb|\\.orig\\.tar\\.(gz|bz2|xz))$", description="a path like pool/main/…/x.deb"
        ),
    ]
    sha256: Sha256
    size: Size
    signature: None = None

    @property
    def file(self) -> str:
        """File name, the last part of the pool path."""
        return PurePosixPath(self.pool).name


class PypiOrigin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="pypi"):
    """A wheel of the Python package index, fetched by pip with the user's configuration."""

    package: Text
    version: Text
    file: FileName
    sha256: Sha256
    size: Size
    signature: None = None


Origin = UrlOrigin | DebianOrigin | DebOrigin | PypiOrigin


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One source of a recipe: either `local`, a folder of this repository, or a file with one or more origins."""

    name: Name
    unpack: bool = True
    strip: Annotated[int, msgspec.Meta(ge=0, le=9)] = 1
    local: str | None = None
    origin: tuple[Origin, ...] = ()

    @property
    def local_path(self) -> Path | None:
        """Absolute path of the folder of a `local` source, otherwise None."""
        return ROOT / self.local if self.local is not None else None


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shell scripts that run in the locked build root, in this order, in the source folder with `set -eu`."""

    configure: str = ""
    build: str = ""
    install: str = ""
    env: dict[str, str] = {}


class Subpackage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A separate package for a part of the installed files, which the patterns `files` select.

    Names that end in -dev, -doc, -libs, -static or -openrc have default patterns (nabla.packages.catalog.USUAL_FILES).
    """

    name: Name
    summary: Text | None = None
    files: tuple[Pattern, ...] = ()
    depends: tuple[Dependency, ...] = ()
    provides: tuple[Dependency, ...] = ()
    replaces: tuple[Name, ...] = ()
    scripts: dict[Script, FileName] = {}


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The packages of a recipe (docs/packages.md).

    `prepare`, `build`, `package`: shell scripts in the sandbox, in the folder of the source. `check`: a shell script in
    a VM (nabla.packages.upstream_tests). `makedepends`: packages whose files are in the sysroot. `depends`: packages to
    install with this one, without shared libraries. `scripts`: files beside the recipe that apk runs. If the recipe
    also has a [build], its output is at /extra. `options`: "!strip" does not strip programs and libraries, "bytecode"
    keeps Python's compiled files.
    """

    revision: Annotated[int, msgspec.Meta(ge=0, description="a number from 0")] = 0
    depends: tuple[Dependency, ...] = ()
    makedepends: tuple[Name, ...] = ()
    provides: tuple[Dependency, ...] = ()
    replaces: tuple[Name, ...] = ()
    scripts: dict[Script, FileName] = {}
    env: dict[str, str] = {}
    options: tuple[Literal["!strip", "bytecode"], ...] = ()
    prepare: str = ""
    build: str = ""
    check: str = ""
    package: Text
    subpackage: tuple[Subpackage, ...] = ()


class NotAffected(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why a vulnerability in a recipe's version does not affect what is built from it (OpenVEX)."""

    justification: Literal[
        "component_not_present",
        "vulnerable_code_not_present",
        "vulnerable_code_not_in_execute_path",
        "vulnerable_code_cannot_be_controlled_by_adversary",
        "inline_mitigations_already_exist",
    ]
    reason: Text


class _RecipeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Name
    version: Text
    license: Text
    summary: Text
    homepage: Url | None = None
    # Built if it is named; not in the repository's index, in releases and in the default build.
    optional: bool = False
    # Paths of license texts in the sources, if nabla.sbom.licenses does not find them by their names.
    license_files: tuple[Pattern, ...] = ()
    # CVE -> the patches of the series that fix it.
    fixes: dict[Cve, Annotated[tuple[FileName, ...], msgspec.Meta(min_length=1)]] = {}
    # Vulnerabilities of this version that do not affect the build.
    not_affected: dict[Cve, NotAffected] = msgspec.field(default_factory=dict, name="not-affected")
    source: tuple[Source, ...] = ()
    build: Build | None = None
    package: Package | None = None


class Recipe(_RecipeFile, frozen=True, kw_only=True, dict=True):
    """A validated recipe. `path`: its recipe.toml."""

    path: Path

    @cached_property
    def folder(self) -> Path:
        """The folder of the recipe, which may contain other files (for example a .config)."""
        return self.path.parent

    @cached_property
    def patches(self) -> tuple[Path, ...]:
        """The patch series patches/<name>/NNNN-*.patch, in order."""
        return tuple(sorted((PATCHES / self.name).glob("[0-9][0-9][0-9][0-9]-*.patch")))

    @property
    def is_remote(self) -> bool:
        """Whether a source must be fetched."""
        return any(source.local is None for source in self.source)

    def find_source(self, name: str) -> Source:
        """Return the source of that name. Raises `RecipeError` if there is none."""
        for source in self.source:
            if source.name == name:
                return source
        raise RecipeError(f"{relative(self.path)}: there is no source named {name!r}")

    def config(self) -> dict[str, Any]:
        """Return the keys that determine the bytes of the result, as JSON data, for a task's configuration.

        Origins are not included: the fetch task records the fetched file, which is a separate input.
        """
        return {
            "name": self.name,
            "version": self.version,
            "source": [{"name": s.name, "unpack": s.unpack, "strip": s.strip} for s in self.source],
            "build": msgspec.to_builtins(self.build) if self.build else None,
        }


class PackageRecipe(Recipe, frozen=True, kw_only=True, dict=True):
    """A recipe with a [package] table, which is built into packages of the repository."""

    package: Package


def names() -> list[str]:
    """Return the names of all recipes, sorted: the folders of recipes/ with a recipe.toml."""
    return sorted(path.parent.name for path in RECIPES.glob("*/recipe.toml"))


@cache
def load(name: str) -> Recipe:
    """Read and check recipes/<name>/recipe.toml; raises `RecipeError`."""
    path = RECIPES / name / "recipe.toml"
    if not path.is_file():
        known = ", ".join(names()) or "none yet"
        raise RecipeError(f"there is no recipe {name!r}", f"known recipes: {known}")
    return load_file(path)


def load_file(path: Path) -> Recipe:
    """Read and check one recipe file; raises `RecipeError`."""
    document = toml.read(path, RecipeError)
    parsed = document.convert(_RecipeFile)
    kind = Recipe if parsed.package is None else PackageRecipe
    recipe = kind(path=path, **{field: getattr(parsed, field) for field in parsed.__struct_fields__})
    _check(recipe, document)
    return recipe


def _check(recipe: Recipe, document: toml.Document) -> None:
    """Check what the types cannot express."""
    if recipe.name != recipe.folder.name:
        document.fail(("name",), f"the recipe's name {recipe.name!r} differs from its folder {recipe.folder.name!r}")
    if recipe.package is not None:
        _check_package(recipe, recipe.package, document)
    for cve, files in recipe.fixes.items():
        for file in files:
            if file not in [path.name for path in recipe.patches]:
                document.fail(("fixes", cve), f"there is no {relative(PATCHES)}/{recipe.name}/{file}")
    for cve in recipe.not_affected.keys() & recipe.fixes.keys():
        document.fail(("not-affected", cve), f"{cve} is also in [fixes]: a patch fixes it, or it has no effect")
    seen: set[str] = set()
    for number, source in enumerate(recipe.source):
        where: tuple[str | int, ...] = ("source", number)
        if source.name in seen:
            document.fail((*where, "name"), f"two sources are named {source.name!r}")
        seen.add(source.name)
        if (source.local is None) == (not source.origin):
            document.fail(where, "a source has either `local` or at least one [[source.origin]]")
        if source.local_path is not None and not source.local_path.is_dir():
            document.fail((*where, "local"), f"there is no folder {source.local!r} in this repository")
        for index, origin in enumerate(source.origin):
            _check_signature(origin, (*where, "origin", index), document)


def _check_package(recipe: Recipe, package: Package, document: toml.Document) -> None:
    if not re.fullmatch(APK_VERSION, recipe.version):
        document.fail(("version",), f"{recipe.version!r} is not a version that apk can compare")
    if not recipe.source:
        document.fail(("package",), "a package needs a source")
    seen = {recipe.name}
    for number, part in enumerate(package.subpackage):
        where = ("package", "subpackage", number)
        if part.name in seen:
            document.fail((*where, "name"), f"two packages are named {part.name!r}")
        seen.add(part.name)
        if not part.files and not part.name.endswith(DEFAULT_SUFFIXES):
            document.fail(where, f"the key `files` is missing: only {', '.join(DEFAULT_SUFFIXES)} have a default")
        _check_scripts(recipe, part.scripts, (*where, "scripts"), document)
    _check_scripts(recipe, package.scripts, ("package", "scripts"), document)


def _check_scripts(
    recipe: Recipe, scripts: dict[Script, FileName], where: tuple[str | int, ...], document: toml.Document
) -> None:
    for kind, name in scripts.items():
        if not (recipe.folder / name).is_file():
            document.fail((*where, kind), f"there is no file {name} beside the recipe")


def _check_signature(origin: Origin, where: tuple[str | int, ...], document: toml.Document) -> None:
    signature = origin.signature
    if signature is None:
        if origin.size is None:
            document.fail(where, "the key `size` is missing")
        return
    spot = (*where, "signature")
    if not signature.key_path.is_file():
        document.fail((*spot, "key"), f"there is no key file recipes/keys/{signature.key}")
    if isinstance(origin, UrlOrigin) and not signature.url:
        document.fail(spot, "the signature of a url origin needs `url`")
    if isinstance(origin, DebianOrigin) and not signature.file:
        document.fail(spot, "the signature of a debian origin needs `file`")
