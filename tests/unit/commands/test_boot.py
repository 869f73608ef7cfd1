# SPDX-License-Identifier: Apache-2.0
"""The copy of an image that stores a user's changes."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import pytest

from nabla.commands import boot
from nabla.core.errors import CommandError, DiskFullError

MIB = 1 << 20


def test_copy_is_made_once(tmp_path: Path) -> None:
    image, folder = tmp_path / "disk.ext3", tmp_path / "run"
    image.write_bytes(b"first")
    copy = boot.writable_copy(image, folder)
    assert copy.read_bytes() == b"first"
    copy.write_bytes(b"changed by me")
    assert boot.writable_copy(image, folder) == copy
    assert copy.read_bytes() == b"changed by me"
    assert image.read_bytes() == b"first"


def test_rebuilt_image(tmp_path: Path) -> None:
    """The new image is used, the old changes are still there."""
    image, folder = tmp_path / "disk.ext3", tmp_path / "run"
    image.write_bytes(b"first")
    boot.writable_copy(image, folder).write_bytes(b"changed by me")
    image.write_bytes(b"second one")
    assert boot.writable_copy(image, folder).read_bytes() == b"second one"
    assert (folder / "disk.old.ext3").read_bytes() == b"changed by me"


def test_half_made_copy(tmp_path: Path) -> None:
    """A copy without its record was interrupted between two steps: it is kept aside and made again."""
    image, folder = tmp_path / "disk.ext3", tmp_path / "run"
    image.write_bytes(b"image")
    boot.writable_copy(image, folder)
    (folder / "disk.ext3.made-from").unlink()
    assert boot.writable_copy(image, folder).read_bytes() == b"image"


@pytest.mark.parametrize("layout", ["", "d", "h", "hd", "dh", "hdhhdd", "dhhhd"])
def test_copy_keeps_holes(tmp_path: Path, layout: str) -> None:
    """d: a mebibyte of data, h: a hole; the end is not aligned."""
    noise, source, target = random.Random(3), tmp_path / "source", tmp_path / "target"
    with source.open("wb") as stream:
        for number, kind in enumerate(layout):
            if kind == "d":
                stream.seek(number * MIB)
                stream.write(noise.randbytes(MIB))
        stream.truncate(len(layout) * MIB + 77)
    boot.copy_sparse(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks + 16


def test_no_room(tmp_path: Path) -> None:
    """A limit of the file size simulates a full disk; no partial output remains."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 256)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(DiskFullError):
            boot.copy_sparse(source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not target.exists()


def test_command_line() -> None:
    """Options of nabla-run come before the image, the guest's command after it."""
    words = boot.command(Path("i"), "64M", True, ["ls", "-l"], "user", ["80:80", "81:81"], ["--user 'no body'"])
    assert words[1:3] == ["--memory", "64M"]
    assert words[5:] == [
        *("--net", "user", "--publish", "80:80", "--publish", "81:81", "--user", "no body", "--ephemeral"),
        *(Path("i"), "--", "ls", "-l"),
    ]
    assert boot.command(Path("i"), "64M", False, [])[-1] == Path("i")
    with pytest.raises(CommandError, match="No closing quotation"):
        boot.command(Path("i"), "64M", False, [], option=["'"])
