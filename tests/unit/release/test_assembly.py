# SPDX-License-Identifier: Apache-2.0
"""nabla.release.assembly with small files: the same bytes, modes and times for any umask and order."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from nabla.core import manifest
from nabla.release import assembly, signing
from nabla.release.assembly import ReleaseError
from verify.epoch import SOURCE_DATE_EPOCH
from verify.release import consistency, layout
from verify.release.statement import Dependency

LOCKS = (Dependency("requirements.txt", "sha256", "1" * 64),)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("NABLA_KEYS", str(tmp_path / "keys"))
    return signing.ensure_key()


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    """Files of a release, with modes and times that must not matter."""
    parts = {}
    for number, name in enumerate((*layout.PROGRAMS, "apk/x86_64/a.apk", "licenses.md")):
        parts[name] = tmp_path / f"part{number}"
        parts[name].write_text(name * 100)
        parts[name].chmod(0o600)
    return parts


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "some.ext3"
    path.write_bytes(b"x" * 5000 + bytes(1 << 20) + b"y" + bytes(70_000))
    return path


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _state(folder: Path) -> dict[str, tuple[int, int, str]]:
    return {
        name: (
            status.st_mode,
            status.st_mtime_ns,
            "" if (folder / name).is_dir() else manifest.file_sha256(folder / name),
        )
        for name, status in manifest.entries(folder)
    }


def test_same_bytes_modes_and_times(
    tmp_path: Path, keys: tuple[Path, Path], parts: dict[str, Path], image: Path
) -> None:
    with _umask(0o077):
        assembly.make("1.2.3", parts, [image], LOCKS, keys, tmp_path / "one")
    for path in parts.values():
        path.chmod(0o755)
        os.utime(path, (1, 1))
    with _umask(0):
        assembly.make("1.2.3", dict(reversed(list(parts.items()))), [image], LOCKS, keys, tmp_path / "a b" / "two")
    one, two = _state(tmp_path / "one"), _state(tmp_path / "a b" / "two")
    assert one == two
    assert {time for _, time, _ in one.values()} == {SOURCE_DATE_EPOCH * 10**9}
    assert {name for name, (mode, _, digest) in one.items() if digest and mode & 0o111} == set(layout.PROGRAMS)


def test_layout(tmp_path: Path, keys: tuple[Path, Path], parts: dict[str, Path], image: Path) -> None:
    assembly.make("1.2.3", parts, [image], LOCKS, keys, tmp_path / "one")
    own = {layout.SUMS, layout.SIGNATURE, layout.STATEMENT, layout.IMAGE_SUMS, layout.SIGNERS}
    assert assembly.digests(tmp_path / "one").keys() == {*parts, "images/some.ext3.zst", *own}
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", layout.SUMS], cwd=tmp_path / "one", check=True)


def test_image_comes_back(tmp_path: Path, keys: tuple[Path, Path], image: Path) -> None:
    """By the checker, in pieces and with holes; by the library, at once."""
    assembly.make("1.2.3", {}, [image], LOCKS, keys, tmp_path / "one")
    packed = tmp_path / "one" / "images" / "some.ext3.zst"
    assert not consistency.decompress(packed, tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == image.read_bytes()
    assert zstandard.ZstdDecompressor().decompress(packed.read_bytes()) == image.read_bytes()
    parameters = zstandard.get_frame_parameters(packed.read_bytes())
    assert parameters.has_checksum and parameters.content_size == image.stat().st_size


@pytest.mark.parametrize("name", ["two\nlines", "back\\slash"])
def test_name_that_sums_cannot_hold(name: str) -> None:
    with pytest.raises(ReleaseError):
        assembly.sums({name: "0" * 64})


def test_each_part_counts(tmp_path: Path, keys: tuple[Path, Path], parts: dict[str, Path]) -> None:
    """Version and locks are in the statement, and with it in the sums."""
    assembly.make("1.2.3", parts, [], LOCKS, keys, tmp_path / "one")
    assembly.make("1.2.4", parts, [], LOCKS, keys, tmp_path / "two")
    assembly.make("1.2.3", parts, [], (), keys, tmp_path / "three")
    assert len({(tmp_path / name / layout.SIGNATURE).read_text() for name in ("one", "two", "three")}) == 3
