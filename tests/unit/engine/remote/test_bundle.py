# SPDX-License-Identifier: Apache-2.0
"""Blobs: unpacking restores the packed content, and no archive writes anywhere else."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import msgspec
import pytest
import zstandard

from nabla.core import manifest
from nabla.engine.remote import bundle
from nabla.engine.remote.record import EntryError, Output


def packed(source: Path, folder: Path) -> tuple[Path, Output]:
    blob = folder / "blob"
    return blob, bundle.pack(source, blob)


def test_folder_comes_back(tmp_path: Path, result: dict[str, Path]) -> None:
    os.utime(result["1"] / "file", (1_000_000, 1_000_000))
    blob, output = packed(result["1"], tmp_path)
    assert output.digest == manifest.digest(result["1"]) and output.size == blob.stat().st_size
    target = tmp_path / "target"
    bundle.unpack(blob, output, target)
    assert manifest.manifest(target) == manifest.manifest(result["1"])
    assert (target / "file").stat().st_mtime == 1_000_000
    assert (target / "file").samefile(target / "hard")
    again = tmp_path / "again"
    again.mkdir()
    assert packed(target, again)[1].blob == output.blob


def test_file_comes_back_with_holes(tmp_path: Path, result: dict[str, Path]) -> None:
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.write(b"head")
        stream.truncate(64 << 20)
    blob, output = packed(image, tmp_path)
    bundle.unpack(blob, output, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == image.read_bytes()
    assert (tmp_path / "target").stat().st_blocks * 512 < 8 << 20
    (tmp_path / "other").mkdir()
    blob, output = packed(result["0"], tmp_path / "other")
    bundle.unpack(blob, output, tmp_path / "program2")
    assert (tmp_path / "program2").stat().st_mode & 0o777 == 0o755


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


HOSTILE = {
    "absolute": [member("/tmp/nabla-escaped", content=b"x")],
    "parent": [member("../escaped", content=b"x")],
    "hidden parent": [member("a", tarfile.DIRTYPE), member("a/../../escaped", content=b"x")],
    "dot": [member("./a", content=b"x")],
    "through a link": [member("a", tarfile.SYMTYPE, ".."), member("a/escaped", content=b"x")],
    "over a link": [member("a", tarfile.SYMTYPE, "../escaped"), member("a", content=b"x")],
    "link to a link": [member("a", tarfile.SYMTYPE, "/etc/passwd"), member("b", tarfile.LNKTYPE, "a")],
    "link outside": [member("b", tarfile.LNKTYPE, "../outside")],
    "device": [member("a", tarfile.CHRTYPE)],
    "fifo": [member("a", tarfile.FIFOTYPE)],
    "no folder": [member("a/b", content=b"x")],
    "twice": [member("a", content=b"x"), member("a", content=b"y")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(tmp_path: Path, name: str) -> None:
    """Even with an allowed signer, nothing is written outside the folder."""
    (tmp_path / "outside").write_text("untouched")
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for info, content in HOSTILE[name]:
            archive.addfile(info, io.BytesIO(content))
    blob, inner = tmp_path / "blob", tmp_path / "inner"
    blob.write_bytes(zstandard.compress(raw.getvalue()))
    inner.mkdir()
    output = Output("tree", "0" * 64, 0o755, "0" * 64, 1, len(raw.getvalue()))
    with pytest.raises(EntryError, match="cannot be unpacked"):
        bundle.unpack(blob, output, inner / "target")
    assert {path.name for path in tmp_path.iterdir()} >= {"blob", "inner", "outside"}
    assert not any(path.name == "escaped" for path in tmp_path.rglob("*"))
    assert not Path("/tmp/nabla-escaped").exists()
    assert (tmp_path / "outside").read_text() == "untouched" and (tmp_path / "outside").stat().st_nlink == 1


@pytest.mark.parametrize("kind", ["file", "tree"])
def test_bombs_stop_at_the_signed_size(tmp_path: Path, kind: str) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(zstandard.compress(bytes(256 << 20)))
    output = msgspec.structs.replace(
        Output("file", "0" * 64, 0o644, "0" * 64, 1, 1 << 20), kind="tree" if kind == "tree" else "file"
    )
    with pytest.raises(EntryError):
        bundle.unpack(blob, output, tmp_path / "target")
    target = tmp_path / "target"
    assert target.is_dir() or target.stat().st_size <= 1 << 20


@pytest.mark.parametrize(
    "data", [b"", b"x" * 100, zstandard.compress(b"x" * 5000)[:-3], zstandard.compress(b"x" * 5000)]
)
def test_other_blobs(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "blob").write_bytes(data)
    for number, kind in enumerate(("file", "tree")):
        output = Output("tree" if kind == "tree" else "file", "0" * 64, 0o644, "0" * 64, 1, 5000)
        with pytest.raises(EntryError):
            bundle.unpack(tmp_path / "blob", output, tmp_path / f"target{number}")


def test_another_digest(tmp_path: Path, result: dict[str, Path]) -> None:
    blob, output = packed(result["1"], tmp_path)
    with pytest.raises(EntryError, match="differs from the record"):
        bundle.unpack(blob, msgspec.structs.replace(output, digest="0" * 64), tmp_path / "target")
