# SPDX-License-Identifier: Apache-2.0
"""nabla-run's disks: refused files, sharing, the guest's view, and the effect of its writes."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nabla.fs.ext3 import SUPERBLOCK

from .launcher import Launcher, Ordinary, launch, refused
from .networked import until
from .vm import Vm

MIB = 1 << 20


def test_images_that_are_none(tmp_path: Path) -> None:
    fifo, qcow2, small = tmp_path / "fifo", tmp_path / "qcow2", tmp_path / "small"
    os.mkfifo(fifo)
    qcow2.write_bytes(b"QFI\xfb" + bytes(65532))
    small.write_bytes(b"x")
    refused("No such file", tmp_path / "missing")
    refused("has no /sbin/nabla-init", tmp_path)
    refused("has no /sbin/nabla-init", "--read-only", tmp_path)
    refused("neither a regular file nor a block device", fifo)
    refused("neither a regular file nor a block device", "/dev/zero")
    refused("qcow2", qcow2)
    refused("no ext2, ext3 or ext4", small)


def test_further_disks_that_are_none(image: Path, tmp_path: Path) -> None:
    fifo, odd, empty = tmp_path / "fifo", tmp_path / "odd", tmp_path / "empty"
    os.mkfifo(fifo)
    odd.write_bytes(bytes(513))
    empty.touch()
    for disk, message in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "is a directory"),
        (fifo, "neither a regular file nor a block device"),
        (odd, "not a multiple of 512"),
        (empty, "is empty"),
        (f"{odd},rw", "No such file"),
        (image, "in use by another VM"),
    ):
        refused(message, "--disk", disk, image)


def test_damaged_images(image: Path) -> None:
    whole = image.read_bytes()

    def patched(offset: int, value: bytes) -> Path:
        at = SUPERBLOCK + offset
        image.write_bytes(whole[:at] + value + whole[at + len(value) :])
        return image

    refused("damaged superblock", patched(24, struct.pack("<I", 77)))
    refused("damaged superblock", patched(4, struct.pack("<I", 0)))
    refused("truncated", patched(4, struct.pack("<I", 0xFFFFFFFF)))
    # The flag of a journal that must be replayed.
    needs_recovery = patched(96, struct.pack("<I", struct.unpack_from("<I", whole, SUPERBLOCK + 96)[0] | 4))
    refused("not shut down cleanly", "--read-only", needs_recovery)
    assert launch("--dry-run", needs_recovery).returncode == 0
    image.write_bytes(whole[: len(whole) // 2])
    refused("truncated", image)
    image.write_bytes(whole + b"x")
    refused("not a multiple of 512", image)


def test_file_without_permission(ordinary: Ordinary) -> None:
    image = ordinary.folder / "disk.ext3"
    other = ordinary.folder / "other"
    other.write_bytes(bytes(1024))
    for file in (image, other):
        file.chmod(0o444)
    result = ordinary.run(image)
    assert result.returncode == 125
    assert "cannot write to image" in result.stderr
    assert "--read-only" in result.stderr
    result = ordinary.run("--ephemeral", "--disk", other, image)
    assert result.returncode == 125
    assert "add ,ro or ,cow" in result.stderr
    result = ordinary.run("--ephemeral", "--disk", f"{other},ro", image, "--", "/bin/cat", "/sys/block/ubdb/ro")
    assert (result.returncode, result.stdout) == (0, "1\n"), result.stderr


def test_locks(launcher: Launcher, tmp_path: Path) -> None:
    """One writer, or any number of readers."""
    image = launcher.image
    with launcher.running("stay"):
        refused("in use by another VM", image)
        refused("in use by another VM", "--read-only", image)
        refused("in use by another VM", "--ephemeral", image)
    with launcher.running("stay", "--read-only"), launcher.running("stay", "--ephemeral"):
        refused("in use by another VM", image)
        assert launch("--dry-run", "--ephemeral", image).returncode == 0
    assert launch("--dry-run", image).returncode == 0

    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    with launcher.running("stay", "--ephemeral", "--disk", disk):
        for how in ("", ",ro", ",cow"):
            refused("in use by another VM", "--ephemeral", "--disk", f"{disk}{how}", image)
    with launcher.running("stay", "--ephemeral", "--disk", f"{disk},ro", "--disk", f"{disk},cow"):
        refused("in use by another VM", "--ephemeral", "--disk", disk, image)


def test_lock_lasts_as_long_as_the_machine(minimal: Vm, copy_of: Callable[[str], Path]) -> None:
    """The launcher has closed the image by then."""
    image = copy_of("minimal")
    for options in ((), ("--ephemeral",)):
        with minimal.but(image=image, ephemeral=bool(options)).interactive("/bin/sleep", "100"):
            until(lambda: True if launch("--dry-run", image).returncode == 125 else None, "the image is locked")
            refused("in use by another VM", image)


@pytest.fixture
def disks(tmp_path: Path) -> list[Path]:
    """Seven disks of different sizes; each starts with its number."""
    disks = [tmp_path / f"disk{number}" for number in range(1, 8)]
    for number, path in enumerate(disks, 1):
        path.write_bytes(b"%d" % number + bytes(number * 4096 - 1))
    return disks


def test_eight_disks(minimal: Vm, disks: list[Path]) -> None:
    options = tuple(word for path in disks for word in ("--disk", str(path)))
    machine = minimal.but(options=options)
    script = "for d in b c d e f g h; do head -c 1 /dev/ubd$d; cat /sys/block/ubd$d/size; done"
    assert machine.check(script).split() == [f"{n}{n * 8}" for n in range(1, 8)]
    refused("at most 8 disks", *options, "--disk", disks[0], minimal.image)


def test_what_is_written_and_what_is_not(minimal: Vm, disks: list[Path]) -> None:
    """A plain disk is written; with ,cow only the guest sees the change; with ,ro the write fails."""
    before = [path.read_bytes() for path in disks[:3]]
    options = ("--disk", str(disks[0]), "--disk", f"{disks[1]},cow", "--disk", f"{disks[2]},ro")
    script = """
        echo new >/dev/ubdb && echo new >/dev/ubdc && sync && head -c 4 /dev/ubdc
        echo new >/dev/ubdd || echo refused
        cat /sys/block/ubd?/ro
    """
    result = minimal.but(options=options).shell(script)
    assert result.output.split()[:2] == ["new", "refused"], result.describe()
    assert result.output.split()[-4:] == ["0", "0", "0", "1"]
    assert disks[0].read_bytes() == b"new\n" + before[0][4:]
    assert [path.read_bytes() for path in disks[1:3]] == before[1:]


def test_disk_cannot_grow(minimal: Vm, disks: list[Path]) -> None:
    size = disks[0].stat().st_size
    minimal.but(options=("--disk", str(disks[0]))).shell("dd if=/dev/zero of=/dev/ubdb bs=4k count=9; sync")
    assert disks[0].stat().st_size == size


def test_a_comma_in_a_path(minimal: Vm, tmp_path: Path) -> None:
    path = tmp_path / "a,b"
    path.write_bytes(b"comma" + bytes(1019))
    machine = minimal.but(options=("--disk", f"{path},ro"))
    assert machine.check("head -c 5 /dev/ubdb") == "comma"
