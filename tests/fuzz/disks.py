# SPDX-License-Identifier: Apache-2.0
"""Damaged file systems: an image of the project with changes in its metadata, as a further disk of a VM that mounts it,
reads all of it, writes to it, and unmounts it again. `mount` may fail and files may be lost; the VM may not."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from nabla.core.paths import IMAGES
from nabla.fs.ext3 import BLOCK, SUPERBLOCK

from .engine import Finding, Fuzzer, boot, verdict

IMAGE = IMAGES / "minimal.ext3"
DISKS = 7
TIMEOUT = 120
INODE = 256  # bytes
# Errors panic only where the image says so, and it may not say so here.
SCRIPT = f"""
for disk in {" ".join("bcdefgh"[:DISKS])}; do
    mkdir -p /tmp/$disk
    mount -t ext4 -o errors=continue /dev/ubd$disk /tmp/$disk 2>/dev/null || continue
    find /tmp/$disk | head -n 2000 >/tmp/names 2>/dev/null
    find /tmp/$disk -type f | head -n 50 | xargs cat >/dev/null 2>&1
    mkdir /tmp/$disk/new 2>/dev/null
    for n in 1 2 3 4 5 6 7 8; do
        dd if=/dev/zero of=/tmp/$disk/new/file$n bs=32k count=4 conv=fsync 2>/dev/null
    done
    mv /tmp/$disk/new /tmp/$disk/old 2>/dev/null
    rm -rf /tmp/$disk/old /tmp/$disk/bin /tmp/$disk/etc 2>/dev/null
    sync
    umount /tmp/$disk 2>/dev/null || umount -l /tmp/$disk
done
echo done
"""


def damaged(good: bytes, seed: int) -> bytes:
    """Return an image with some changes in the file system's metadata."""
    draw = random.Random(seed)
    bad = bytearray(good)
    inodes = int.from_bytes(good[BLOCK + 8 : BLOCK + 12], "little") * BLOCK
    count = int.from_bytes(good[SUPERBLOCK : SUPERBLOCK + 4], "little")
    places = {
        "superblock": (SUPERBLOCK, 1024),
        "groups": (BLOCK, 256),
        "inodes": (inodes, min(count * INODE, 256 * 1024)),
        "start": (BLOCK, 2 << 20),
    }
    for _ in range(draw.randint(1, 12)):
        start, length = places[draw.choice(list(places))]
        width = draw.choice([1, 1, 2, 4, 8, 64])
        position = start + draw.randrange(length) // min(width, 4) * min(width, 4)
        kind = draw.randrange(4)
        if kind == 0:
            value = bytes(width)
        elif kind == 1:
            value = b"\xff" * width
        elif kind == 2:
            value = draw.randbytes(width)
        else:  # a block from another place, as after a misdirected write
            other = draw.randrange(len(bad) // BLOCK) * BLOCK
            position, width = position // BLOCK * BLOCK, BLOCK
            value = good[other : other + BLOCK]
        bad[position : position + width] = value
    return bytes(bad[: len(good)])


def disks(seed: int) -> Finding | None:
    """Seven damaged disks in one VM."""
    good = IMAGE.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--memory", "128M"]
        for number in range(DISKS):
            path = Path(folder, f"{number}.img")
            path.write_bytes(damaged(good, seed * DISKS + number))
            options += ["--disk", f"{path},cow"]
        status, output = boot(IMAGE, options, ["/bin/sh", "-c", SCRIPT], TIMEOUT)
    return verdict("disks", seed, status, output)


FUZZERS = (Fuzzer("disks", "images", DISKS, disks),)
