# SPDX-License-Identifier: Apache-2.0
"""Create small Debian packages, valid and broken ones, for tests of the unpacker."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from nabla.sources.apt import DebFile


def ar(members: Mapping[str, bytes]) -> bytes:
    """Return an ar archive."""
    data = b"!<arch>\n"
    for name, body in members.items():
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode() + body
        data += b"\n" * (len(body) & 1)
    return data


def member(name: str, text: str = "", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """Return one tar member; `fields` are set on the TarInfo."""
    info = tarfile.TarInfo(name)
    info.size = len(text.encode())
    info.mode = 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, text.encode()


def deb(members: Sequence[tuple[tarfile.TarInfo, bytes]], data_name: str = "data.tar.xz") -> bytes:
    """Return a .deb with the given file tree."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for info, body in members:
            archive.addfile(info, io.BytesIO(body))
    body = lzma.compress(stream.getvalue()) if data_name.endswith(".xz") else stream.getvalue()
    return ar({"debian-binary": b"2.0\n", "control.tar.xz": lzma.compress(b""), data_name: body})


def add(cache: Path, name: str, data: bytes) -> DebFile:
    """Put a package into a download cache and return its line of a lock."""
    digest = hashlib.sha256(data).hexdigest()
    path = cache / "sha256" / digest[:2] / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return DebFile(name, "1.0", "all", len(data), digest, f"pool/main/{name[0]}/{name}/{name}_1.0_all.deb")
