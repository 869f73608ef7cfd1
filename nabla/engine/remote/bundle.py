# SPDX-License-Identifier: Apache-2.0
"""Blobs of results: a file compressed by zstd, or a folder as a compressed tar archive.

The archive lists entries in the order of their paths, with modes, whole seconds and hard links, and without owners.
Unpacking accepts exactly this form: a member appears once, in a folder that appeared before, and is a folder, a file, a
symbolic link or a hard link to an earlier file. Nothing can therefore be written outside of the target.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tarfile
from pathlib import Path
from typing import Any

import zstandard

from nabla.core import files, manifest
from nabla.engine.remote.record import EntryError, Output

_LEVEL = 3
_CHUNK = 1 << 18
_ZEROS = bytes(_CHUNK)
_TYPES = (tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)


def pack(source: Path, blob: Path) -> Output:
    """Write a blob of a file or folder; return its description."""
    is_tree = source.is_dir()
    with blob.open("wb") as raw:
        compressor: Any = zstandard.ZstdCompressor(level=_LEVEL).stream_writer(raw, closefd=False)
        with compressor:
            stream = _Counter(compressor)
            if is_tree:
                _pack_tree(source, stream)
            else:
                with source.open("rb") as content:
                    _copy(content, stream)
    return Output(
        kind="tree" if is_tree else "file",
        digest=manifest.digest(source) if is_tree else manifest.file_sha256(source),
        mode=stat.S_IMODE(source.stat().st_mode) & 0o777,
        blob=manifest.file_sha256(blob),
        size=blob.stat().st_size,
        unpacked=stream.count,
    )


def unpack(blob: Path, output: Output, target: Path) -> None:
    """Write the file or folder of a blob to a new path; compare its digest. Raises `EntryError`, `DiskFullError`."""
    try:
        with blob.open("rb") as raw:
            reader: Any = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw)
            stream = _Limited(reader, output.unpacked)
            if output.kind == "tree":
                _unpack_tree(stream, target)
                target.chmod(output.mode)
            else:
                _write(stream, target, output.mode)
        digest = manifest.digest(target) if output.kind == "tree" else manifest.file_sha256(target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            files.raise_full(error, target)
        raise EntryError(f"the blob cannot be unpacked: {error}") from None
    except (zstandard.ZstdError, tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise EntryError(f"the blob cannot be unpacked: {error}") from None
    if digest != output.digest:
        raise EntryError("the digest of the blob's content differs from the record")


class _Counter:
    """Counts the bytes that pass to a writer."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.count = 0

    def write(self, data: bytes) -> int:
        self.count += len(data)
        self._stream.write(data)
        return len(data)


class _Limited:
    """Reads at most a number of bytes, since a small blob may decompress to any size."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int = -1) -> bytes:
        data = bytes(self._stream.read(min(size, _CHUNK) if size >= 0 else _CHUNK))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("it is longer than its record states")
        return data


def _pack_tree(source: Path, stream: Any) -> None:
    first: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path, status in sorted(manifest.entries(source), key=lambda item: os.fsencode(item[0])):
            member = tarfile.TarInfo(path)
            member.mode = stat.S_IMODE(status.st_mode)
            member.mtime = int(status.st_mtime)
            if stat.S_ISDIR(status.st_mode):
                member.type = tarfile.DIRTYPE
            elif stat.S_ISLNK(status.st_mode):
                member.type, member.linkname = tarfile.SYMTYPE, os.readlink(source / path)
            elif not stat.S_ISREG(status.st_mode):
                raise EntryError(f"{source / path} is neither a file nor a folder")
            elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in first:
                member.type, member.linkname = tarfile.LNKTYPE, first[status.st_dev, status.st_ino]
            else:
                first[status.st_dev, status.st_ino] = path
                member.size = status.st_size
                with (source / path).open("rb") as content:
                    archive.addfile(member, content)
                continue
            archive.addfile(member)


def _unpack_tree(stream: Any, target: Path) -> None:
    target.mkdir()
    known: dict[str, bytes] = {"": tarfile.DIRTYPE}
    folders: list[tuple[Path, tarfile.TarInfo]] = []
    with tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape") as archive:
        for member in archive:
            name = member.name
            if not name or name in known or posixpath.normpath(name) != name or name.startswith(("/", "../")):
                raise ValueError(f"it contains the path {name!r}")
            if known.get(posixpath.dirname(name)) != tarfile.DIRTYPE or member.type not in _TYPES or name == "..":
                raise ValueError(f"it contains {name!r}, which is of no known kind or in no folder")
            path = target / name
            _unpack_member(archive, member, path, known, target)
            if member.type == tarfile.DIRTYPE:
                folders.append((path, member))
            known[name] = member.type
            # tarfile remembers every member.
            vars(archive)["members"] = []
    for path, member in reversed(folders):
        path.chmod(member.mode & 0o7777)
        os.utime(path, (member.mtime, member.mtime))


def _unpack_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, known: dict[str, bytes], target: Path
) -> None:
    times = (member.mtime, member.mtime)
    if member.type == tarfile.DIRTYPE:
        path.mkdir(0o700)
    elif member.type == tarfile.SYMTYPE:
        path.symlink_to(member.linkname)
        os.utime(path, times, follow_symlinks=False)
    elif member.type == tarfile.LNKTYPE:
        if known.get(member.linkname) != tarfile.REGTYPE:
            raise ValueError(f"{member.name!r} is a link to something else than an earlier file")
        os.link(target / member.linkname, path)
    else:
        content = archive.extractfile(member)
        if content is None:
            raise ValueError(f"{member.name!r} has no content")
        _write(content, path, member.mode & 0o7777)
        os.utime(path, times)


def _write(source: Any, target: Path, mode: int) -> None:
    with target.open("xb") as stream:
        _copy(source, stream, sparse=True)
        stream.truncate(stream.tell())
    target.chmod(mode)


def _copy(source: Any, target: Any, *, sparse: bool = False) -> None:
    """Copy a stream; with `sparse`, blocks of zeros become holes, as in images."""
    while chunk := source.read(_CHUNK):
        if sparse and chunk == _ZEROS[: len(chunk)]:
            target.seek(len(chunk), os.SEEK_CUR)
        else:
            target.write(chunk)
