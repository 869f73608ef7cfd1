# SPDX-License-Identifier: Apache-2.0
"""Image descriptions: rootfs/<name>.toml lists the contents of an image; nabla.images.compose builds it.

    name, summary    the name, and a description in one line
    size             of the file, with K, M or G
    extends          a description to start from: its lists come first, its other keys are the defaults
    base             the recipe of the root file system to start from; without it the tree is empty
    parts            nabla's programs: init, musl, busybox; they replace those of the base
    packages         of the repository, installed by apk with their dependencies (docs/packages.md)
    drop             paths of the base to leave out; a folder includes its content
    [[archive]]      recipe, at, member, drop: unpack a source of a recipe below a folder
    [[tree]]         source, at: a folder below out/ that another task builds
    [[folder]]       path, mode, owner
    [[file]]         path, mode, owner, and either content or source (a file of this repository)
    [[link]]         path, target
    [[node]]         path, type (char or block), major, minor, mode

Later lists override earlier ones. A mode is a string of octal digits, an owner is "uid:gid".
"""

from __future__ import annotations

import uuid
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from nabla.core import toml
from nabla.core.errors import ImageError
from nabla.core.paths import OUT, ROOT, ROOTFS, relative
from nabla.sources import recipe

_UUIDS = uuid.UUID("6f9a6f8e-3a6b-5c0e-9d0b-0a5c2f6f3b1d")  # namespace of the images' UUIDs
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

Part = Literal["init", "musl", "busybox"]
Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,15}$", description="at most 16 lower-case characters")]
Inside = Annotated[str, msgspec.Meta(pattern=r"^(/(?!\.\.?(/|$))[^/\s]+)+$", description="an absolute path")]
PackageName = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9+._-]*$", description="the name of a package")]
Mode = Annotated[str, msgspec.Meta(pattern="^0?[0-7]{3,4}$", description="octal digits")]
Owner = Annotated[str, msgspec.Meta(pattern="^[0-9]+:[0-9]+$", description="uid:gid")]
Size = Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]*[KMG]$", description="a number with K, M or G")]


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of a recipe's source; with `member`, of this tar in the zip. `drop`: paths to leave out."""

    recipe: str
    at: Inside
    member: str | None = None
    drop: tuple[Inside, ...] = ()


class Folder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An empty folder, or the owner and mode of an existing one."""

    path: Inside
    mode: Mode = "0755"
    owner: Owner = "0:0"


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file with the given content, or with the content of a file of this repository."""

    path: Inside
    mode: Mode = "0644"
    owner: Owner = "0:0"
    content: str | None = None
    source: str | None = None


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A symbolic link."""

    path: Inside
    target: Annotated[str, msgspec.Meta(min_length=1)]


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A device node, for the time before devtmpfs is mounted."""

    path: Inside
    type: Literal["char", "block"]
    major: Annotated[int, msgspec.Meta(ge=0, le=255)]
    minor: Annotated[int, msgspec.Meta(ge=0, le=255)]
    mode: Mode = "0600"


class BuiltTree(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Files that a task builds: the folder `source`, below out/, is copied to `at`."""

    source: str
    at: Inside


class _DescriptionFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file rootfs/<name>.toml."""

    name: Name
    summary: Annotated[str, msgspec.Meta(min_length=1)]
    size: Size | None = None
    extends: Name | None = None
    base: str | None = None
    parts: tuple[Part, ...] | None = None
    packages: tuple[PackageName, ...] = ()
    drop: tuple[Inside, ...] = ()
    archive: tuple[Archive, ...] = ()
    tree: tuple[BuiltTree, ...] = ()
    folder: tuple[Folder, ...] = ()
    file: tuple[File, ...] = ()
    link: tuple[Link, ...] = ()
    node: tuple[Device, ...] = ()


class Description(_DescriptionFile, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file rootfs/<name>.toml, merged with the description that it extends."""

    size: Size
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        """Size of the image in bytes."""
        return size_bytes(self.size)

    @property
    def uuid(self) -> str:
        """UUID of the file system, derived from the name."""
        return seeds(self.name)[0]

    @property
    def hash_seed(self) -> str:
        """Seed of the file system's directory hashes."""
        return seeds(self.name)[1]

    def recipes(self) -> list[str]:
        """Return the recipes whose sources the image contains."""
        return sorted({*([self.base] if self.base else []), *(a.recipe for a in self.archive)})

    def sources(self) -> list[Path]:
        """Return the files of this repository that the image contains."""
        return sorted({ROOT / f.source for f in self.file if f.source is not None})

    def config(self) -> Any:
        """Return the description as JSON data."""
        return msgspec.to_builtins(self)


def seeds(name: str) -> tuple[str, str]:
    """Return UUID and seed of the directory hashes for the file system of that name."""
    return str(uuid.uuid5(_UUIDS, name)), str(uuid.uuid5(_UUIDS, f"{name}/hash"))


def size_bytes(size: str) -> int:
    """Return a `Size` in bytes."""
    return int(size[:-1]) * _UNITS[size[-1]]


def names() -> list[str]:
    """Return the names of all images, sorted."""
    return sorted(path.stem for path in ROOTFS.glob("*.toml"))


@cache
def load(name: str) -> Description:
    """Read and check rootfs/<name>.toml and the description that it extends. Raises `ImageError`."""
    path = ROOTFS / f"{name}.toml"
    if not path.is_file():
        raise ImageError(f"there is no image {name!r}", f"known images: {', '.join(names()) or 'none yet'}")
    return load_file(path)


def load_file(path: Path, loading: tuple[Path, ...] = ()) -> Description:
    """Read and check one file and the description beside it that it extends. Raises `ImageError`."""
    document = toml.read(path, ImageError)
    parsed = document.convert(_DescriptionFile)
    _check(parsed, document)
    values = msgspec.structs.asdict(parsed)
    if parsed.extends is not None:
        parent = path.with_name(f"{parsed.extends}.toml")
        if parent in (path, *loading):
            document.fail(("extends",), f"{parsed.extends!r} extends this image: a cycle")
        if not parent.is_file():
            document.fail(("extends",), f"there is no {relative(parent)}")
        values = _merge(load_file(parent, (path, *loading)), parsed)
    for key in ("size", "parts"):
        if values[key] is None:
            document.fail((key,), f"the key `{key}` is missing")
    return Description(**values)


def _merge(parent: Description, child: _DescriptionFile) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in child.__struct_fields__:
        own, inherited = getattr(child, field), getattr(parent, field)
        if field != "parts" and isinstance(own, tuple):
            values[field] = (*inherited, *own)
        else:
            values[field] = inherited if own is None and field != "extends" else own
    return values


def _check(description: _DescriptionFile, document: toml.Document) -> None:
    """Check what the types cannot express."""
    if description.name != document.path.stem:
        document.fail(("name",), f"the image's name {description.name!r} differs from its file {document.path.name!r}")
    known = recipe.names()
    if description.base is not None and description.base not in known:
        document.fail(("base",), f"there is no recipe {description.base!r}")
    for number, archive in enumerate(description.archive):
        if archive.recipe not in known:
            document.fail(("archive", number, "recipe"), f"there is no recipe {archive.recipe!r}")
    for number, file in enumerate(description.file):
        where = ("file", number)
        if (file.content is None) == (file.source is None):
            document.fail(where, "a file has either `content` or `source`")
        if file.source is not None and not _within(ROOT / file.source, ROOT):
            document.fail((*where, "source"), f"{file.source} is not in this repository")
        if file.source is not None and not (ROOT / file.source).is_file():
            document.fail((*where, "source"), f"there is no file {file.source}")
    for number, tree in enumerate(description.tree):
        if not _within(ROOT / tree.source, OUT):
            document.fail(("tree", number, "source"), f"{tree.source} is not below out/")


def _within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
