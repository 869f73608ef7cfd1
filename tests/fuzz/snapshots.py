# SPDX-License-Identifier: Apache-2.0
"""Damaged snapshots: a header or memory that nobody saved. The VM may end in any way that a hostile guest can end
it; the launcher may not crash, the VM has to end at its timeout, and no file of the host may change."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import tempfile
from pathlib import Path

from nabla.core.paths import IMAGES, NABLA_RUN

from .engine import Finding, Fuzzer

IMAGE = IMAGES / "minimal.ext3"
DAMAGED = 6  # snapshots of a round
PAGE = 4096
HEADER = 344
TIMEOUT = 3
LIMIT = 120  # the VM is killed some seconds after its timeout, on a busy host much later
SCRIPT = "nabla-snapshot; for n in 1 2 3; do echo $n >/root/$n; cat /root/$n; done; ls -lR /dev /sbin | wc -l"
OPTIONS = ("--memory", "64M", "--ephemeral")
NAME = ("--name", "fuzzed")


def good(folder: str, env: dict[str, str]) -> tuple[Path, list[tuple[int, int]]]:
    """Return a sound snapshot of a VM with a control channel, and the positions of its data."""
    path = Path(folder, "good.snap")
    words: list[str | Path] = [
        NABLA_RUN,
        *OPTIONS,
        *NAME,
        "--snapshot",
        path,
        "--snapshot-then-exit",
        IMAGE,
        "--",
        "/bin/sh",
        "-c",
        SCRIPT,
    ]
    subprocess.run(words, stdin=subprocess.DEVNULL, check=True, env=env)
    data = path.read_bytes()
    pages = [at for at in range(0, len(data), PAGE) if data[at : at + PAGE].count(0) != PAGE]
    return path, [(at, PAGE) for at in pages[2:]]


def damage(path: Path, places: list[tuple[int, int]], seed: int) -> None:
    """Change the header, some pages, or the size."""
    draw = random.Random(seed)
    size = path.stat().st_size
    with path.open("r+b") as stream:
        for _ in range(draw.choice([1, 1, 2, 5, 40])):
            start, length = (0, HEADER) if draw.randrange(4) == 0 else draw.choice(places)
            width = draw.choice([1, 4, 8, 8, 64, min(length, PAGE)])
            at = start + draw.randrange(max(length - width, 0) + 1) // min(width, 8) * min(width, 8)
            stream.seek(at)
            old = stream.read(width)
            flipped = bytearray(old)
            if flipped:
                flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
            stream.seek(at)
            kinds = [bytes(width), b"\xff" * width, draw.randbytes(width), bytes(flipped), bytes(flipped)]
            stream.write(draw.choice(kinds))
        if draw.randrange(20) == 0:
            stream.truncate(draw.randrange(size))


def snapshots(seed: int) -> Finding | None:
    """Some VMs, one after the other, from damaged copies of one snapshot. Every other one has a control channel."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as runtime:
        env = {**os.environ, "XDG_RUNTIME_DIR": runtime}
        path, places = good(folder, env)
        before = (IMAGE.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).digest())
        for number in range(DAMAGED):
            bad = Path(folder, "bad.snap")
            subprocess.run(["cp", "--sparse=always", path, bad], check=True)
            damage(bad, places, seed * DAMAGED + number)
            options = [*OPTIONS, *(NAME if number % 2 else ()), "--timeout", str(TIMEOUT)]
            words: list[str | Path] = [NABLA_RUN, *options, "--restore", bad, IMAGE]
            try:
                status = subprocess.run(
                    words,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    check=False,
                    timeout=LIMIT,
                    cwd=folder,
                    env=env,
                ).returncode
            except subprocess.TimeoutExpired:
                return Finding("snapshots", seed, f"VM {number} does not end")
            if status < 0:
                return Finding("snapshots", seed, f"VM {number}: signal {-status} ended nabla-run")
            if {each.name for each in Path(folder).iterdir()} != {"good.snap", "bad.snap"}:
                return Finding("snapshots", seed, f"VM {number} created a file")
        if before != (IMAGE.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).digest()):
            return Finding("snapshots", seed, "a VM changed a file that it only reads")
    return None


FUZZERS = (Fuzzer("snapshots", "snapshots", DAMAGED, snapshots),)
