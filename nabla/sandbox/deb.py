# SPDX-License-Identifier: Apache-2.0
"""Unpack Debian binary packages without dpkg, without root and without maintainer scripts.

The result depends only on the packages, not on user, umask, time zone or order. The caller owns all files, modes become
644 or 755, and paths follow the merged-/usr layout of Debian 12, as they do on a real system by links.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nabla.core.errors import LockError

MERGED = ("bin", "sbin", "lib", "lib64")

# A quarter of the entries, and no build needs them: documentation, translations, shell completions.
SKIPPED = tuple(
    f"usr/share/{name}/"
    for name in (
        "doc",
        "doc-base",
        "info",
        "lintian",
        "locale",
        "man",
        "bash-completion",
        "menu",
        "bug",
        "gdb",
        "pixmaps",
    )
)

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60


def ar_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each member of an ar archive. Raises `LockError` for a damaged archive."""
    if not data.startswith(_AR_MAGIC):
        raise LockError("not an ar archive")
    at = len(_AR_MAGIC)
    while at < len(data):
        header = data[at : at + _AR_HEADER]
        if len(header) < _AR_HEADER or header[58:60] != b"`\n":
            raise LockError("damaged ar archive")
        size = int(header[48:58])
        body = data[at + _AR_HEADER : at + _AR_HEADER + size]
        if len(body) < size:
            raise LockError("truncated ar archive")
        yield header[:16].decode().strip().rstrip("/"), body
        at += _AR_HEADER + size + (size & 1)


def data_archive(deb: Path) -> tarfile.TarFile:
    """Open the file tree of a .deb. Raises `LockError` for a damaged package or an unknown compression."""
    for name, body in ar_members(deb.read_bytes()):
        match name:
            case "data.tar.xz":
                return tarfile.open(fileobj=io.BytesIO(lzma.decompress(body)))
            case "data.tar.gz":
                return tarfile.open(fileobj=io.BytesIO(gzip.decompress(body)))
            case "data.tar":
                return tarfile.open(fileobj=io.BytesIO(body))
            case _ if name.startswith("data.tar"):
                raise LockError(f"{deb.name}: {name}: unknown compression")
    raise LockError(f"{deb.name}: no data.tar inside")


def tree_path(name: str) -> str:
    """Return the path of a package's member in the tree (relative, merged /usr); "" for the root."""
    path = PurePosixPath(name.removeprefix("./").lstrip("/"))
    if ".." in path.parts:
        raise LockError(f"unsafe path in package: {name}")
    text = "" if str(path) == "." else str(path)
    return f"usr/{text}" if path.parts and path.parts[0] in MERGED else text


def unpack(deb: Path, root: Path) -> list[str]:
    """Unpack one package into `root`; return the relative paths of its files and links, without directories.

    `root` must contain the merged-/usr links. The caller checks for files of several packages. Raises `LockError` for a
    member that is a device or has an unsafe path.
    """
    unpacked: list[str] = []
    with data_archive(deb) as archive:
        for member in archive:
            path = tree_path(member.name)
            if not path or f"{path}/".startswith(SKIPPED):
                continue
            target = root / path
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            _extract(archive, member, root, target, deb.name)
            unpacked.append(path)
    return unpacked


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path, target: Path, package: str) -> None:
    if not target.parent.resolve().is_relative_to(root.resolve()):
        raise LockError(f"{package}: {member.name} is outside of the tree")
    target.unlink(missing_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        os.link(root / tree_path(member.linkname), target, follow_symlinks=False)
    elif member.isfile():
        stream = archive.extractfile(member)
        assert stream is not None
        target.write_bytes(stream.read())
        target.chmod(0o755 if member.mode & 0o111 else 0o644)
        os.utime(target, (member.mtime, member.mtime))
    else:
        raise LockError(f"{package}: {member.name} is neither a file nor a link")
