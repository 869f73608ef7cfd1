# SPDX-License-Identifier: Apache-2.0
"""Unpack Debian binary packages without dpkg, without root and without maintainer scripts.

The result depends on the packages alone: not on the user, the umask, the time zone or the order of unpacking. Owners
are dropped (everything belongs to the caller), modes become 644 or 755, and the merged-/usr layout of Debian 12 is
applied to the paths, as the real system does by links.
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

# Not needed to build anything, and a quarter of the entries: texts for people, translations, shell comforts.
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
    """Yield name and content of each member of an ar archive. Raises `LockError` when it is none or is cut off."""
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
            raise LockError("ar archive is cut off")
        yield header[:16].decode().strip().rstrip("/"), body
        at += _AR_HEADER + size + (size & 1)


def data_archive(deb: Path) -> tarfile.TarFile:
    """Open the file tree of a .deb. Raises `LockError` when the package is not one that we can read."""
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
    """Return where a member of a package belongs in the tree (relative, merged /usr); "" for the root itself."""
    path = PurePosixPath(name.removeprefix("./").lstrip("/"))
    if ".." in path.parts:
        raise LockError(f"unsafe path in package: {name}")
    text = "" if str(path) == "." else str(path)
    return f"usr/{text}" if path.parts and path.parts[0] in MERGED else text


def unpack(deb: Path, root: Path) -> list[str]:
    """Unpack one package into `root` and return the paths of its files and links (directories not), relative to it.

    `root` must have its merged-/usr links already. Two packages that hold the same path are the caller's to find.
    Raises `LockError` for a member that has no place in a build root (device, unsafe path).
    """
    made: list[str] = []
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
            _place(archive, member, root, target, deb.name)
            made.append(path)
    return made


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path, target: Path, package: str) -> None:
    if not target.parent.resolve().is_relative_to(root.resolve()):
        raise LockError(f"{package}: {member.name} would leave the tree")
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
        raise LockError(f"{package}: {member.name} is neither file nor link")
