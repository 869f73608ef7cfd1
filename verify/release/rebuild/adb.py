# SPDX-License-Identifier: Apache-2.0
"""The content of apk's files (version 3) without signatures.

A file is a stream of blocks, stored or deflated: the database of metadata, its signatures, and the content of files.
The signatures are part of the stream, so the size of a package depends on its signer, and an index lists the sizes.
The formats: apk-v3(5) and the schema of indexes in apk's source.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_STORED, _DEFLATED = b"ADB.", b"ADBd"
_INDEX = b"indx"
_DATABASE, _SIGNATURE, _EXTENDED = 0, 1, 3
_ALIGNMENT = 8
_CHUNK = 1 << 20
# An index is small. The limit prevents a malformed file from filling the memory.
_LARGEST_DATABASE = 64 << 20
_INT, _OBJECT, _TYPE, _VALUE = 0x1 << 28, 0xE << 28, 0xF << 28, (1 << 28) - 1
# Positions in the objects of an index and of a package.
_PACKAGES, _FILE_SIZE = 2, 0x0D


class AdbError(Exception):
    """A file does not have the format."""


def unsigned_sha256(path: Path) -> str:
    """Return the sha256 of a file's blocks without signatures; in an index also without the sizes of the packages.

    Raises `AdbError`, OSError.
    """
    with path.open("rb") as file:
        try:
            return _digest(_Stream(file))
        except (struct.error, zlib.error) as error:
            raise AdbError(f"{path.name} is damaged: {error}") from error


class _Stream:
    """The bytes behind the magic number of a file, inflated."""

    def __init__(self, file: BinaryIO) -> None:
        magic = file.read(4)
        if magic not in (_STORED, _DEFLATED):
            raise AdbError("this is not a file of apk 3, or its compression is unknown")
        self._file = file
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if magic == _DEFLATED else None
        self._buffer = _STORED if self._inflate is None else b""
        # A deflated stream repeats the magic number of a stored one.
        if self.read(4) != _STORED:
            raise AdbError("there is no database after the magic number")

    def read(self, size: int) -> bytes:
        """Return this number of bytes, or fewer at the end."""
        while len(self._buffer) < size:
            more = self._more(size - len(self._buffer))
            if not more:
                break
            self._buffer += more
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield exactly this number of bytes in pieces."""
        while size:
            data = self.read(min(size, _CHUNK))
            if not data:
                raise AdbError("the last block ends too early")
            yield data
            size -= len(data)

    def _more(self, size: int) -> bytes:
        if self._inflate is None:
            return self._file.read(size)
        while not self._inflate.eof:
            source = self._inflate.unconsumed_tail or self._file.read(_CHUNK // 16)
            if not source:
                raise AdbError("the compressed stream ends too early")
            data = self._inflate.decompress(source, _CHUNK)
            if data:
                return data
        if self._inflate.unused_data or self._file.read(1):
            raise AdbError("there is data behind the end")
        return b""


def _digest(stream: _Stream) -> str:
    schema = stream.read(4)
    digest = hashlib.sha256(schema)
    while head := stream.read(4):
        (word,) = struct.unpack("<I", head)
        kind, size, length = word >> 30, word & (1 << 30) - 1, 4
        if kind == _EXTENDED:
            more = stream.read(12)
            kind, length = size, 16
            (size,) = struct.unpack("<4xQ", more)
        if size < length:
            raise AdbError("a block is smaller than its head")
        body = size - length + -size % _ALIGNMENT
        if kind == _SIGNATURE:
            for _ in stream.pieces(body):
                pass
            continue
        digest.update(struct.pack("<IQ", kind, size))
        if kind == _DATABASE and schema == _INDEX:
            if body > _LARGEST_DATABASE:
                raise AdbError("the index is too large")
            digest.update(_without_sizes(bytearray().join(stream.pieces(body))))
        else:
            for piece in stream.pieces(body):
                digest.update(piece)
    return digest.hexdigest()


def _without_sizes(data: bytearray) -> bytearray:
    """Set the sizes of all packages in an index to zero."""
    root = _slots(data, struct.unpack_from("<I", data, 4)[0])
    if len(root) <= _PACKAGES:
        return data
    (packages,) = struct.unpack_from("<I", data, root[_PACKAGES])
    for slot in _slots(data, packages)[1:]:
        package = _slots(data, struct.unpack_from("<I", data, slot)[0])
        if len(package) > _FILE_SIZE:
            (size,) = struct.unpack_from("<I", data, package[_FILE_SIZE])
            if size & _TYPE == _INT:
                struct.pack_into("<I", data, package[_FILE_SIZE], _INT)
    return data


def _slots(data: bytearray, value: int) -> range:
    """Return the offsets of the values in an object or array; the first offset is that of their number."""
    if value & _TYPE != _OBJECT:
        raise AdbError("the index has an unexpected structure")
    start = value & _VALUE
    (number,) = struct.unpack_from("<I", data, start)
    if start + 4 * number > len(data):
        raise AdbError("the index has an unexpected structure")
    return range(start, start + 4 * number, 4)
