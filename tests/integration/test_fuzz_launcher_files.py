# SPDX-License-Identifier: Apache-2.0
"""nabla-run against damaged images and kernels, and against paths that are not files; see test_fuzz_launcher.py."""

from __future__ import annotations

import os
import random
import signal
import socket
import stat
import struct
from pathlib import Path

from nabla.fs.ext3 import SUPERBLOCK

from .hostile import SANITIZER_FAILED, Victim
from .launcher import OWN_ERROR, TIMED_OUT

FIELDS = {
    "blocks": (4, "<I"),
    "block size": (24, "<I"),
    "magic": (56, "<H"),
    "features": (96, "<I"),
    "high blocks": (336, "<I"),
}
NUMBERS = (0, 1, 5, 6, 7, 21, 22, 31, 32, 53, 54, 63, 64, 127, 0x7FFF, 0x8000, 0xFFFF, 1 << 31, (1 << 32) - 1)


def test_damaged_superblocks(victim: Victim) -> None:
    """Accepted, or refused in one line; an accepted file system must fit into the file."""
    chosen = random.Random(2)
    whole = victim.image.read_bytes()[SUPERBLOCK : 2 * SUPERBLOCK]
    seen = {0: 0, OWN_ERROR: 0}
    with victim.image.open("r+b") as stream:
        for number in range(200):
            block = bytearray(whole)
            for _ in range(chosen.randrange(1, 5)):
                if number % 2:
                    offset, form = chosen.choice([*FIELDS.values()])
                    value = chosen.choice(NUMBERS) & ((1 << 8 * struct.calcsize(form)) - 1)
                    struct.pack_into(form, block, offset, value)
                else:
                    block[chosen.randrange(len(block))] ^= 1 << chosen.randrange(8)
            stream.seek(SUPERBLOCK)
            stream.write(block)
            stream.flush()
            mode = chosen.choice(["--read-only", "--ephemeral", "--dry-run"])
            seen[victim.judge("--dry-run", mode, "--kernel", victim.kernel, victim.image)] += 1
    assert min(seen.values()) > 20, seen


def test_cut_images(victim: Victim) -> None:
    chosen = random.Random(3)
    size = victim.image.stat().st_size
    lengths = [0, 1, 511, 512, 1023, 1024, 1025, 1079, 1080, 2047, 2048, 4096, size - 1, size - 512]
    lengths += [chosen.randrange(size) for _ in range(20)]
    for length in sorted(lengths, reverse=True):
        os.truncate(victim.image, length)
        assert victim.judge("--kernel", victim.kernel, "--ephemeral", victim.image) == OWN_ERROR, length
    # Holes instead of data: the magic number is gone.
    os.truncate(victim.image, size)
    assert victim.judge("--kernel", victim.kernel, victim.image) == OWN_ERROR


def test_machines_on_damaged_images(victim: Victim) -> None:
    """The exit status is the command's, or the launcher's own for a kernel that panics."""
    chosen = random.Random(4)
    whole = victim.image.read_bytes()
    for _ in range(25):
        damaged = bytearray(whole)
        for _ in range(chosen.choice([1, 10, 200])):
            at = chosen.choice([SUPERBLOCK + 1024, 8192, 65536, len(whole)])
            damaged[chosen.randrange(SUPERBLOCK, at)] = chosen.randrange(256)
        victim.image.write_bytes(damaged)
        words = ("--kernel", victim.kernel, "--memory", "64M", "--ephemeral", "--timeout", "10", victim.image)
        result = victim.run(*words, "--", "true")
        assert result.returncode >= 0, result
        assert result.returncode != SANITIZER_FAILED, result
        assert result.returncode == 0 or b"nabla-" in result.stderr or b"panic" in result.stdout + result.stderr, result


def odd_files(folder: Path, image: Path) -> dict[str, Path]:
    """Create paths that are not regular files, and dangling names."""
    paths = {
        name: folder / name
        for name in ("directory", "fifo", "socket", "loop", "dangling", "empty", "huge", "a\nb\x1b[2J")
    }
    paths["directory"].mkdir()
    os.mkfifo(paths["fifo"])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(paths["socket"]))
    paths["loop"].symlink_to("loop2")
    (folder / "loop2").symlink_to("loop")
    paths["dangling"].symlink_to("nowhere")
    paths["empty"].touch()
    paths["a\nb\x1b[2J"].write_bytes(b"x" * 4096)
    paths["huge"].touch()
    os.truncate(paths["huge"], 1 << 43)
    (folder / "locked").mkdir(mode=0)
    paths["under a file"] = image / "x"
    paths["in a locked folder"] = folder / "locked" / "x"
    paths["missing"] = folder / "missing"
    paths["long name"] = folder / ("x" * 300)
    paths["long path"] = Path("/" + "x/" * 3000)
    for name in ("null", "zero", "full", "tty", "random", "fd/0", "stdin"):
        paths[f"/dev/{name}"] = Path("/dev", name)
    for name in ("self/mem", "self/fd", "version", "self/ns/net", "kmsg"):
        paths[f"/proc/{name}"] = Path("/proc", name)
    if os.geteuid() == 0:
        for name, kind in (("character device", stat.S_IFCHR), ("block device", stat.S_IFBLK)):
            paths[name] = folder / name
            os.mknod(paths[name], kind | 0o600, os.makedev(240, 7))
    return paths


def test_odd_files(victim: Victim, tmp_path: Path) -> None:
    """As image, further disk or kernel, in each mode: refused at once in one line."""
    for name, path in odd_files(tmp_path, victim.image).items():
        common = ("--timeout", "5", "--kernel")
        for mode in ((), ("--read-only",), ("--ephemeral",)):
            assert victim.judge(*common, victim.kernel, *mode, path) == OWN_ERROR, name
        assert victim.judge(*common, path, "--ephemeral", victim.image) == OWN_ERROR, name
        for suffix in ("", ",ro", ",cow"):
            words = ("--dry-run", "--ephemeral", "--disk", f"{path}{suffix}", "--kernel", victim.kernel, victim.image)
            status = victim.judge(*words)
            assert status == OWN_ERROR or name in ("huge", "a\nb\x1b[2J"), name


def test_a_link_to_an_image_is_one(victim: Victim, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(victim.image)
    assert victim.judge("--kernel", victim.kernel, "--read-only", tmp_path / "link", "--", "true") == 0


def test_damaged_kernels(victim: Victim, tmp_path: Path) -> None:
    """Truncated, or with a damaged header: the host refuses it in one line, or the VM crashes and is reported."""
    chosen = random.Random(5)
    kernel = tmp_path / "vmlinux"
    whole = victim.kernel.read_bytes()
    crashed = tuple(128 + int(number) for number in signal.Signals)

    def attempt(data: bytes) -> None:
        kernel.write_bytes(data)
        kernel.chmod(0o755)
        words = ("--kernel", kernel, "--timeout", "0.3", "--ephemeral", victim.image, "--", "true")
        result = victim.run(*words)
        details = (len(data), result)
        assert result.returncode in (0, TIMED_OUT, OWN_ERROR, *crashed), details
        assert result.returncode != SANITIZER_FAILED, details
        assert result.returncode == 0 or result.stderr.count(b"nabla-run: ") == 1 or b"panic" in result.stderr, details

    for length in (0, 1, 4, 63, 64, 65, 120, 4096, len(whole) // 2):
        attempt(whole[:length])
    attempt(b"#!/nonexistent\n")
    attempt(b"#!" + b"x" * 5000)
    attempt(b"echo this is a script\n")
    attempt(chosen.randbytes(70_000))
    for _ in range(30):
        header = bytearray(whole[:512])
        for _ in range(chosen.randrange(1, 6)):
            header[chosen.randrange(4, 64 if chosen.random() < 0.5 else 512)] = chosen.choice([0, 1, 0x7F, 0x80, 0xFF])
        attempt(bytes(header) + whole[512:])
    kernel.write_bytes(whole)
    kernel.chmod(0o644)
    assert victim.judge("--kernel", kernel, "--ephemeral", victim.image) == OWN_ERROR
    kernel.chmod(0o311)  # execute permission suffices
    assert victim.judge("--kernel", kernel, "--ephemeral", victim.image, "--", "true") == 0
