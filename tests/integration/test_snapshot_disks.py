# SPDX-License-Identifier: Apache-2.0
"""What a VM changed on a disk with ,cow stays in its snapshot until a restored VM needs it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from pathlib import Path

import pytest

from . import saved
from .saved import Saved, at, save, word
from .vm import Vm

SECTOR = 512
SIZE = (3 << 20) + SECTOR  # not a multiple of a page: the guest writes single sectors
FLUSH = "sync; echo 3 >/proc/sys/vm/drop_caches"
SUM = "sha256sum </dev/ubdb"


class Disk:
    """A disk as the guest should see it: `put` returns a command that writes to it, and does the same."""

    def __init__(self) -> None:
        self.content = bytearray(random.Random(14).randbytes(SIZE))

    def put(self, sector: int, count: int, letter: str) -> str:
        start, size = sector * SECTOR, count * SECTOR
        self.content[start : start + size] = letter.encode() * size
        return f"head -c {size} /dev/zero | tr '\\0' {letter} | dd of=/dev/ubdb bs={SECTOR} seek={sector} 2>/dev/null"

    def sum(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def sums(output: str) -> list[str]:
    """Return the sums that a guest wrote."""
    return re.findall(r"^([0-9a-f]{64})  -$", output, re.MULTILINE)


@pytest.fixture
def disk(minimal: Vm, tmp_path: Path) -> tuple[Vm, Disk]:
    """A VM with the disk."""
    disk, image = Disk(), tmp_path / "disk"
    image.write_bytes(disk.content)
    return minimal.but(options=("--disk", f"{image},cow")), disk


def puts(disk: Disk, letter: str, seed: int) -> str:
    """Return commands that write whole pages and parts of pages, some of them again."""
    draw = random.Random(seed)
    places = [(draw.randrange(SIZE // SECTOR - 40), draw.choice([1, 3, 8, 40])) for _ in range(20)]
    places += [(0, 1), (8, 8), (SIZE // SECTOR - 1, 1)]
    return "; ".join(disk.put(sector, count, letter) for sector, count in places)


def test_generations(disk: tuple[Vm, Disk], tmp_path: Path) -> None:
    """The disk of a VM and of those after it, whose pages are in one file, in another or in none."""
    vm, content = disk
    first = puts(content, "a", 1)
    expected = [content.sum()]
    second = puts(content, "b", 2)
    expected.append(content.sum())
    third = puts(content, "c", 3)
    expected.append(content.sum())
    snapshot = "nabla-snapshot 2>/dev/null || echo once"
    script = (
        f"{first}; {FLUSH}; {snapshot}; {SUM}; {second}; {FLUSH}; {SUM}; {snapshot}; {SUM}; {third}; {FLUSH}; {SUM}"
    )
    one, original = save(vm, tmp_path / "one", "/bin/sh", "-c", script, then_exit=False)
    assert "once" in original.output
    assert sums(original.output) == [expected[0], expected[1], expected[1], expected[2]]
    two = tmp_path / "two"
    restored = one.restored().but(options=(*one.restored().options, "--snapshot", str(two))).run()
    assert restored.status == 0, restored.describe()
    assert sums(restored.output) == sums(original.output)
    for _ in range(2):
        assert sums(Saved(vm, two).run().output) == [expected[1], expected[2]]


def test_changes_are_not_read_at_the_start(minimal: Vm, tmp_path: Path) -> None:
    """A VM that needs few of them has little memory of its own."""
    mib = 48
    image = tmp_path / "disk"
    image.touch()
    os.truncate(image, mib << 20)
    vm = minimal.but(options=("--disk", f"{image},cow", "--json"))
    fill = f"head -c {mib}m /dev/zero | tr '\\0' x | dd of=/dev/ubdb bs=64k 2>/dev/null; {FLUSH}"
    peaks = []
    for number, change in enumerate((fill, ":")):
        file = tmp_path / str(number)
        read = "dd if=/dev/ubdb bs=4096 skip=5 count=1 2>/dev/null | tr '\\0' 0 | head -c 3"
        script = f"{change}; nabla-snapshot >/dev/null; {read}"
        options = (*vm.options, "--snapshot", str(file), "--snapshot-then-exit")
        assert vm.but(options=options).run("/bin/sh", "-c", script).status == 0
        result = Saved(vm, file).run()
        assert (result.status, result.output) == (0, "000" if number else "xxx"), result.describe()
        peaks.append(json.loads(result.errors)["peak_memory_kib"])
    assert peaks[0] < peaks[1] + (mib << 10) // 4, peaks


def test_reads_of_a_truncated_file_fail(disk: tuple[Vm, Disk], tmp_path: Path) -> None:
    """What is missing is an error of the disk, not the end of the VM."""
    vm, content = disk
    script = f"{content.put(0, SIZE // SECTOR, 'x')}; {FLUSH}; nabla-snapshot; {SUM} || echo bad; {FLUSH}; echo on"
    one, _ = save(vm, tmp_path / "one", "/bin/sh", "-c", script, then_exit=False)
    size = one.file.stat().st_size
    forged = one.forge(tmp_path / "short", (saved.SIZE_AT, word(size - (2 << 20))))
    with forged.file.open("r+b") as stream:
        stream.truncate(size - (2 << 20))
    result = forged.run()
    assert result.status == 0, result.describe()
    assert result.output.endswith("bad\non\n"), result.describe()


def test_forged_variables(disk: tuple[Vm, Disk], tmp_path: Path) -> None:
    """Where a VM thinks that its disks are makes it a hostile guest at most."""
    vm, content = disk
    script = f"{content.put(0, 80, 'x')}; {FLUSH}; nabla-snapshot; {SUM}; {content.put(3, 3, 'y')}; {FLUSH}; {SUM}"
    one, original = save(vm, tmp_path / "one", "/bin/sh", "-c", script, then_exit=False)
    assert one.run().output == original.output.replace("original", "restored")
    for data in (b"\xff" * 512, bytes(512), word(0x45454545) * 64):
        result = one.forge(tmp_path / "forged", (at("um_ubd"), data)).run()
        assert result.status in range(256), result.describe()
