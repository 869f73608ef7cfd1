# SPDX-License-Identifier: Apache-2.0
"""Writes to the image persist in a sound file system, or are discarded, as the options say."""

from __future__ import annotations

import hashlib
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from nabla.core.artifacts import IMAGE_TOOLS
from nabla.fs import ext3

from .launcher import child_of, wait_until_gone
from .vm import Vm, tap_failures

CopyOf = Callable[[str], Path]


def e2fsck(path: Path) -> None:
    """Check an image without changing it, with the tools that created it."""
    ext3.check(path, tools=IMAGE_TOOLS.path)


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def test_changes_stay(copy_of: CopyOf) -> None:
    disk = copy_of("minimal")
    vm = Vm(disk, memory="64M")
    script = (
        "echo kept >/root/kept; mkdir /root/dir; ln -s kept /root/link; seq 50000 >/root/numbers; md5sum </root/numbers"
    )
    first = vm.check(script)
    e2fsck(disk)
    again = vm.check("md5sum </root/numbers; cat /root/link; rm -r /root/dir /root/numbers")
    assert again.splitlines() == [first.strip(), "kept"]
    assert vm.check("ls /root").split() == ["kept", "link"]
    e2fsck(disk)


def test_heavy_use_leaves_a_sound_file_system(copy_of: CopyOf) -> None:
    disk = copy_of("test")
    result = Vm(disk).run("/usr/lib/nabla-tests/files", "/root")
    assert not tap_failures(result.output), result.describe()
    e2fsck(disk)


def test_ephemeral(copy_of: CopyOf) -> None:
    disk = copy_of("minimal")
    before = sha256(disk)
    vm = Vm(disk, memory="64M", ephemeral=True)
    assert vm.check("echo gone >/root/file; sync; cat /root/file") == "gone\n"
    assert vm.check("ls /root") == ""
    assert sha256(disk) == before


def test_read_only(copy_of: CopyOf) -> None:
    disk = copy_of("minimal")
    disk.chmod(0o444)
    before = sha256(disk)
    vm = Vm(disk, memory="64M", read_only=True)
    result = vm.shell("echo x >/root/file")
    assert result.status != 0
    assert "Read-only file system" in result.errors
    assert vm.check("echo works >/tmp/file; cat /tmp/file") == "works\n"
    assert sha256(disk) == before


def test_read_only_file_without_the_option(copy_of: CopyOf) -> None:
    disk = copy_of("minimal")
    disk.chmod(0o444)
    # Root may write to any file; in a user namespace without capabilities it is an ordinary user.
    ordinary_user = ["bwrap", "--unshare-user", "--uid", "4321", "--gid", "4321", "--dev-bind", "/", "/"]
    words = [*ordinary_user, *Vm(disk, memory="64M").argv("/bin/true")]
    result = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert result.returncode == 125
    assert str(disk) in result.stderr


def test_cut_off_machine(copy_of: CopyOf) -> None:
    """Killed in the middle of writing: the journal repairs the file system at the next boot."""
    disk = copy_of("minimal")
    vm = Vm(disk, memory="64M")
    write = "i=$((i+1)); echo $i >/root/f$((i % 50)); [ $i != 200 ] || echo writing"
    script = f"echo safe >/root/safe; i=0; while :; do {write}; [ $i != 100 ] || sync; done"
    with subprocess.Popen(
        vm.argv("/bin/sh", "-c", script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"writing\n"
        machine = child_of(launcher.pid)
        launcher.send_signal(signal.SIGKILL)
        wait_until_gone(machine)
    assert vm.check("cat /root/safe; rm /root/f*") == "safe\n"
    e2fsck(disk)


def test_full_disk(copy_of: CopyOf) -> None:
    disk = copy_of("minimal")
    vm = Vm(disk, memory="64M")
    result = vm.shell(
        "dd if=/dev/zero of=/root/all bs=64k 2>&1; rm /root/all && echo x >/root/again && cat /root/again"
    )
    assert "No space left on device" in result.output
    assert result.lines()[-1] == "x"
    e2fsck(disk)


OVERWRITE = """
import os, struct
disk = os.open("/dev/ubda", os.O_RDWR)
def number(form, at):
    return struct.unpack(form, os.pread(disk, struct.calcsize(form), 1024 + at))[0]
block, blocks, each, size = 1024 << number("<I", 24), number("<I", 4), number("<I", 32), number("<H", 254) or 32
file = os.open("/root/file", os.O_CREAT | os.O_WRONLY)
os.write(file, bytes(1 << 20))
os.pwrite(disk, b"\\x7f" * 4, 1024 + 4)
for group in range(-(-blocks // each)):
    os.pwrite(disk, b"a" * 4, (1024 // block + 1) * block + group * size)
try:
    os.fsync(file)
except OSError as error:
    print(os.strerror(error.errno), flush=True)
os.sync()
os._exit(7)
"""


def test_a_sync_ends_on_a_disk_that_root_overwrote(testing: Vm) -> None:
    """The block bitmaps are beyond the end of the disk, and the number of blocks in the superblock says otherwise."""
    result = testing.run("python3", "-c", OVERWRITE)
    assert (result.status, result.lines()) == (7, ["I/O error"]), result.describe()


def test_two_writers_are_refused(copy_of: CopyOf) -> None:
    disk = copy_of("minimal")
    vm = Vm(disk, memory="64M")
    with subprocess.Popen(
        vm.argv("/bin/sh", "-c", "echo up; sleep 1000"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"up\n"
        second = vm.run("/bin/true")
        first.terminate()
    assert second.status == 125
    assert str(disk) in second.errors
