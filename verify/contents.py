# SPDX-License-Identifier: Apache-2.0
"""Read the files to check: those of a folder, a disk image or a package, each with the package that owns it.

    folder     its files; lib/apk/db/installed determines the owners
    image      an ext2, ext3 or ext4 file system in a file, read by dissect.extfs
    package    .apk, in Alpine's older format (gzipped tars) or that of apk 3 (ADB)

Raises `ContentsError` for damaged input: a partial list of files must not pass as complete.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from verify import ext

DATABASES = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
ELF = b"\x7fELF"
_EXT_MAGIC = (1024 + 56, b"\x53\xef")


class ContentsError(Exception):
    """A file is malformed or cannot be read."""


@dataclass
class Contents:
    """Files and links by absolute path. `whole`: a complete root file system, which contains all dependencies."""

    title: str
    whole: bool
    files: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)

    def programs(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of each ELF file, sorted by path."""
        for path in sorted(self.files):
            data = self.files[path]()
            if data.startswith(ELF):
                yield path, data

    def resolve(self, path: str) -> str | None:
        """Resolve the links of a path; None if there is no such file."""
        parts = list(reversed(PurePosixPath(path).parts[1:]))
        done: list[str] = []
        for _ in range(200):
            if not parts:
                resolved = "/" + "/".join(done)
                return resolved if resolved in self.files else None
            part = parts.pop()
            if part == "..":
                done = done[:-1]
            elif part != ".":
                done.append(part)
            target = self.links.get("/" + "/".join(done))
            if target is not None:
                done = [] if target.startswith("/") else done[:-1]
                parts += reversed([p for p in PurePosixPath(target).parts if p != "/"])
        return None  # links form a cycle


def read(path: Path, *, whole: bool = False) -> Contents:
    """Read a folder, image or package. `whole`: treat a folder as a root file system."""
    try:
        if path.is_dir():
            return _finish(_folder(path, whole))
        with path.open("rb") as stream:
            head = stream.read(4)
            stream.seek(_EXT_MAGIC[0])
            magic = stream.read(2)
        if magic == _EXT_MAGIC[1]:
            return _finish(_image(path))
        if head[:3] == b"ADB":
            return _adb(path)
        if head[:2] == b"\x1f\x8b":
            return _old_package(path)
    except OSError as error:
        raise ContentsError(f"{path}: {error.strerror or error}") from error
    single = Contents(str(path), whole=False)
    single.files[str(path)] = path.read_bytes
    return single


def _finish(contents: Contents) -> Contents:
    """Determine the owners of files from apk's database."""
    for name in DATABASES:
        if name in contents.files:
            contents.owners |= owners(contents.files[name]().decode(errors="replace"))
    return contents


def owners(database: str) -> dict[str, str]:
    """Return path -> package from the text of apk's database of installed packages."""
    packages: dict[str, str] = {}
    package = folder = ""
    # Names may contain characters that str.splitlines treats as line ends.
    for line in database.split("\n"):
        kind, _, value = line.partition(":")
        if kind == "P":
            package = value
        elif kind == "F":
            folder = value
        elif kind == "R":
            packages[f"/{folder}/{value}" if folder else f"/{value}"] = package
    return packages


def _folder(root: Path, whole: bool) -> Contents:
    contents = Contents(str(root), whole)
    for folder, names, files in os.walk(root, onerror=_raise):
        for name in [*names, *files]:
            host = Path(folder) / name
            path = f"/{host.relative_to(root)}"
            mode = host.lstat().st_mode
            if stat.S_ISLNK(mode):
                contents.links[path] = os.readlink(host)
            elif stat.S_ISREG(mode):
                contents.files[path] = host.read_bytes
    return contents


def _raise(error: OSError) -> None:
    raise error


def _image(path: Path) -> Contents:
    contents = Contents(str(path), whole=True)
    try:
        entries = ext.read_image(path)
    except ext.ExtError as error:
        raise ContentsError(str(error)) from error
    for name, entry in entries.items():
        if entry.kind == "file":
            contents.files[name] = functools.partial(bytes, entry.data)
        elif entry.kind == "link":
            contents.links[name] = entry.target
    return contents


def _old_package(path: Path) -> Contents:
    """Signature, control and data are three gzip streams whose concatenation is one tar."""
    contents = Contents(str(path), whole=False)
    try:
        with tarfile.open(path, mode="r:gz", ignore_zeros=True) as archive:
            name = "?"
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                if member.name == ".PKGINFO" and stream is not None:
                    lines = stream.read().decode(errors="replace").split("\n")
                    name = next((line[10:] for line in lines if line.startswith("pkgname = ")), name)
                elif member.issym():
                    contents.links[f"/{member.name}"] = member.linkname
                elif stream is not None and not member.name.startswith("."):
                    contents.files[f"/{member.name}"] = io.BytesIO(stream.read()).getvalue
                    contents.owners[f"/{member.name}"] = name
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ContentsError(f"{path}: not a package: {error}") from error
    return contents


# The format of apk 3: `ADB` and a letter for the compression, a schema, then blocks: the database (folders, files), a
# signature, and one block of data for each file, which refers to the file by its numbers in the database.
_SCHEMA_PACKAGE = 0x676B6370
_BLOCK_ADB, _BLOCK_DATA = 0, 2
_BLOB_8, _BLOB_16, _BLOB_32, _ARRAY, _OBJECT = 0x8, 0x9, 0xA, 0xD, 0xE


def _adb(path: Path) -> Contents:
    contents = Contents(str(path), whole=False)
    try:
        data = _decompressed(path.read_bytes())
        if struct.unpack_from("<4sI", data) != (b"ADB.", _SCHEMA_PACKAGE):
            raise ContentsError(f"{path}: an ADB file, but not a package")
        names: list[list[str]] = []
        package = "?"
        for kind, body in _blocks(data, 8):
            if kind == _BLOCK_ADB:
                package, names = _database(body, contents)
                contents.owners |= {path: package for folder in names for path in folder if path in contents.files}
            elif kind == _BLOCK_DATA:
                folder, file = struct.unpack_from("<II", body)
                name = names[folder - 1][file - 1]
                contents.files[name] = io.BytesIO(body[8:]).getvalue
                contents.owners[name] = package
    except (struct.error, zlib.error, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise ContentsError(f"{path}: damaged package: {error}") from error
    return contents


def _decompressed(data: bytes) -> bytes:
    if data[:4] == b"ADBd":
        engine = zlib.decompressobj(-15)
        plain = engine.decompress(data[4:]) + engine.flush()
        if not engine.eof:
            raise ContentsError("damaged package: the compressed data is truncated")
        return plain
    if data[:4] == b"ADB.":
        return data
    raise ContentsError(f"a package with compression {data[3:6]!r}, which is not supported")


def _blocks(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at < len(data):
        (word,) = struct.unpack_from("<I", data, at)
        kind, size, head = word >> 30, word & 0x3FFFFFFF, 4
        if kind == 3:  # large: the kind is in the low bits, the size in 64 bits
            kind, size, head = size, struct.unpack_from("<Q", data, at + 8)[0], 16
        if size < head or at + size > len(data):
            raise ContentsError("damaged package: a block is truncated")
        yield kind, data[at + head : at + size]
        at += size + -size % 8


def _database(body: bytes, contents: Contents) -> tuple[str, list[list[str]]]:
    """Return the package's name and the paths of its files, by folder; adds links to `contents`."""
    root = _object(body, struct.unpack_from("<I", body, 4)[0])
    package = _blob(body, _object(body, root[1])[1]).decode()
    names: list[list[str]] = []
    for item in _object(body, root[2])[1:] if len(root) > 2 and root[2] else []:
        folder = _object(body, item)
        prefix = _blob(body, folder[1]).decode() if folder[1] else ""
        files = _object(body, folder[3])[1:] if len(folder) > 3 and folder[3] else []
        paths = []
        for each in files:
            entry = _object(body, each)
            name = f"/{prefix}/{_blob(body, entry[1]).decode()}".replace("//", "/")
            paths.append(name)
            target = _blob(body, entry[6]) if len(entry) > 6 and entry[6] else b""
            if target and stat.S_ISLNK(struct.unpack_from("<H", target)[0]):
                contents.links[name] = target[2:].decode()
            elif target and stat.S_ISREG(struct.unpack_from("<H", target)[0]):
                # Another name of a file: the block has the number of the first one.
                contents.files[name] = _other_name(contents, f"/{target[2:].decode()}")
            elif not target:
                contents.files[name] = bytes  # without a block: an empty file
        names.append(paths)
    return package, names


def _other_name(contents: Contents, first: str) -> Callable[[], bytes]:
    return lambda: contents.files[first]()


def _object(body: bytes, value: int) -> Sequence[int]:
    """Return the values of an object or array, starting with their count."""
    if value >> 28 not in (_ARRAY, _OBJECT):
        raise ContentsError("damaged package: a value has a wrong type")
    (count,) = struct.unpack_from("<I", body, value & 0x0FFFFFFF)
    return struct.unpack_from(f"<{count}I", body, value & 0x0FFFFFFF)


def _blob(body: bytes, value: int) -> bytes:
    form = {_BLOB_8: "<B", _BLOB_16: "<H", _BLOB_32: "<I"}.get(value >> 28)
    if form is None:
        raise ContentsError("damaged package: a value is not a text")
    at = value & 0x0FFFFFFF
    (size,) = struct.unpack_from(form, body, at)
    at += struct.calcsize(form)
    if at + size > len(body):
        raise ContentsError("damaged package: a text is truncated")
    return body[at : at + size]
