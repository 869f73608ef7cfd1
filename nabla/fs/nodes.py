# SPDX-License-Identifier: Apache-2.0
"""File trees in memory, read from Alpine's root file system and from archives of recipes.

A tree is a dictionary from absolute path to `Node`. Owners, modes and times are values in it and not those of host
files, so no step needs root privileges or depends on the user.
"""

from __future__ import annotations

import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from nabla.core.errors import ImageError
from verify import ext
from verify.epoch import SOURCE_DATE_EPOCH
from verify.ext import Kind

# The exceptions of the readers for damaged archives; an encrypted zip is a RuntimeError.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
)


@dataclass(frozen=True)
class Node:
    """One entry of a tree. `mtime`: seconds since 1970. `data`: content of a file, or the host file with it.

    `inode`: entries with the same text are names of one file (hard links). A text that only one entry has is
    irrelevant.
    """

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = SOURCE_DATE_EPOCH
    data: bytes | Path = b""
    target: str = ""
    device: tuple[int, int] = (0, 0)
    inode: str = ""

    def content(self) -> bytes:
        """Return the content of a file."""
        return self.data.read_bytes() if isinstance(self.data, Path) else self.data


Tree = dict[str, Node]


def put(tree: Tree, path: str, node: Node) -> None:
    """Set one entry and create missing parent folders. Raises `ImageError` if a parent is not a folder.

    A folder replaces a folder; another entry replaces an entry that is not a folder.
    """
    for parent in reversed(PurePosixPath(path).parents[:-1]):
        above = tree.setdefault(str(parent), Node("dir", 0o755))
        if above.kind != "dir":
            raise ImageError(f"{path}: {parent} is a {above.kind}, not a folder")
    old = tree.get(path)
    if old is not None and (old.kind == "dir") != (node.kind == "dir"):
        raise ImageError(f"{path}: a {node.kind} cannot replace a {old.kind}")
    tree[path] = node


def drop(tree: Tree, path: str) -> None:
    """Remove an entry and everything below it. Raises `ImageError` if it does not exist."""
    names = [name for name in tree if name == path or name.startswith(f"{path}/")]
    if not names:
        raise ImageError(f"there is no {path} to drop")
    for name in names:
        del tree[name]


def read_base(wheel: Path) -> Tree:
    """Return the file tree of the one qcow2 image inside a wheel. Raises `ImageError`."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".qcow2")]
        if len(names) != 1:
            raise ImageError(f"{wheel.name} contains {len(names)} qcow2 images instead of one")
        disk = io.BytesIO(archive.read(names[0]))
    # Importing the parser takes longer than most tasks.
    from dissect.hypervisor.disk.qcow2 import QCow2

    try:
        return _tree(ext.read(QCow2(disk).open(), wheel.name))
    # The parsers of dissect raise many kinds of exceptions for damaged input.
    except Exception as error:
        raise ImageError(f"cannot read the file system in {wheel.name}: {error}") from error


def read_ext(image: Path) -> Tree:
    """Return the file tree of an ext2, ext3 or ext4 image (verify/ext.py). Raises `ImageError`."""
    try:
        return _tree(ext.read_image(image))
    except ext.ExtError as error:
        raise ImageError(str(error)) from error


def _tree(entries: Mapping[str, ext.Entry]) -> Tree:
    return {path: Node(**vars(entry)) for path, entry in entries.items()}


def read_archive(path: Path, member: str | None) -> Tree:
    """Return the files of a zip (a wheel) or tar; with `member`, those of the tar with this name in the zip.

    root owns all entries. The modes in a wheel only indicate which files are executable.
    """
    try:
        if member is None:
            return _read_zip(path) if zipfile.is_zipfile(path) else _read_tar(path.name, io.BytesIO(path.read_bytes()))
        with zipfile.ZipFile(path) as archive:
            if member not in archive.namelist():
                raise ImageError(f"{path.name} contains no {member}")
            data = archive.read(member)
        return _read_tar(member, io.BytesIO(data))
    except _DAMAGE as error:
        raise ImageError(f"{path.name} is damaged or cut off: {error or type(error).__name__}") from error


def _read_zip(path: Path) -> Tree:
    tree: Tree = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = _safe(path.name, info.filename)
            mode = info.external_attr >> 16
            if info.is_dir():
                put(tree, name, Node("dir", 0o755))
            elif stat.S_ISLNK(mode):
                put(tree, name, Node("link", 0o777, target=archive.read(info).decode(errors="surrogateescape")))
            else:
                put(tree, name, Node("file", 0o755 if mode & 0o111 else 0o644, data=archive.read(info)))
    return tree


def _read_tar(title: str, stream: io.BytesIO) -> Tree:
    tree: Tree = {}
    links: dict[str, str] = {}
    with tarfile.open(fileobj=stream) as archive:
        for info in archive:
            if info.name in (".", "./"):
                continue
            name = _safe(title, info.name)
            mode = info.mode & 0o7777
            if info.isdir():
                put(tree, name, Node("dir", mode, mtime=int(info.mtime)))
            elif info.issym():
                put(tree, name, Node("link", 0o777, mtime=int(info.mtime), target=info.linkname))
            elif info.islnk():
                links[name] = _safe(title, info.linkname)
            elif info.isfile():
                file = archive.extractfile(info)
                assert file is not None
                put(tree, name, Node("file", mode, mtime=int(info.mtime), data=file.read()))
            else:
                raise ImageError(f"{title}: {info.name} has an unsupported type")
            # A later entry replaces a link as well.
            if not info.islnk():
                links.pop(name, None)
        # tarfile takes a damaged header after the first one for the end, which is a block of zeros.
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("the end is missing")
    _link(tree, links, title)
    return tree


def _link(tree: Tree, links: Mapping[str, str], title: str) -> None:
    """Add additional names of files; a link may precede its file, or point to another link."""
    for name, first in links.items():
        target, passed = first, {name}
        while target in links and target not in passed:
            passed.add(target)
            target = links[target]
        node = tree.get(target) if target not in links else None
        if node is None or node.kind == "dir":
            raise ImageError(f"{title}: {name} is a hard link to {first}, which is no file of the archive")
        if node.kind == "file":
            node = replace(node, inode=f"{title}:{target}")
            tree[target] = node
        put(tree, name, node)


def _safe(title: str, name: str) -> str:
    """Return a name in an archive as an absolute path. Raises `ImageError` for a path outside of the tree."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ImageError(f"{title}: the entry {name!r} is outside of the tree")
    return f"/{path}"
