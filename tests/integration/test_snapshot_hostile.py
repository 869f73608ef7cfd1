# SPDX-License-Identifier: Apache-2.0
"""A snapshot is not trusted: one that does not fit is refused in one line; a forged one has only a guest's power."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nabla.policy import model
from verify import syscall_table

from . import confined, saved
from .confined import PROGRAM
from .launcher import launch, refused
from .saved import Saved, at, becomes, check_confined, save, word
from .vm import Vm

KILLED = 128 + signal.SIGSYS


@pytest.fixture(scope="module")
def small(minimal: Vm, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The smallest VM."""
    return becomes(minimal, tmp_path_factory.mktemp("small") / "s.snap", "echo", "up")


def options(snapshot: Path, *more: str | Path) -> list[str | Path]:
    return ["--ephemeral", "--restore", snapshot, *more]


def refused_by_kernel(forged: Saved, message: str) -> None:
    result = forged.run()
    assert (result.status, result.output) == (125, ""), result.describe()
    assert result.errors.startswith("vmlinux: "), result.describe()
    assert result.errors.count("\n") == 1, result.describe()
    assert message in result.errors


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_foreign_files(small: Saved, tmp_path: Path) -> None:
    image = small.vm.image
    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.touch()
    text.write_bytes(b"#!/bin/sh\n" * 1000)
    for file in (empty, text, image):
        refused("is not a snapshot, or an incomplete one", *options(file), image)
    refused("is not a regular file", *options(tmp_path), image)
    refused("cannot open snapshot", *options(tmp_path / "nowhere"), image)


def test_truncated(small: Saved, tmp_path: Path) -> None:
    size = small.file.stat().st_size
    for left in (size - 1, size - 4096, 1 << 20, 5000):
        short = small.forge(tmp_path / str(left)).file
        os.truncate(short, left)
        refused("is truncated", *options(short), small.vm.image)
    # The header itself asks for less than there has to be.
    for size in (8192, 1 << 63):
        forged = small.forge(tmp_path / "s", (saved.SIZE_AT, word(size)))
        refused("is truncated", *options(forged.file), small.vm.image)


def test_incomplete(minimal: Vm, tmp_path: Path) -> None:
    file = tmp_path / "s.snap"
    result = minimal.but(options=("--snapshot", str(file))).run("true")
    assert result.status == 0
    assert "the guest has not written the snapshot" in result.errors
    refused("an incomplete one", *options(file), minimal.image)


def test_other_format(small: Saved, tmp_path: Path) -> None:
    forged = small.forge(tmp_path / "s", (saved.FORMAT_AT, struct.pack("<I", 3)))
    refused("has format 3, this nabla-run reads format 2", *options(forged.file), small.vm.image)


def test_other_memory(small: Saved, tmp_path: Path) -> None:
    refused("the snapshot has 65536 KiB of memory", *options(small.file, "--memory", "65M"), small.vm.image)
    for memory in (0, 4096, (64 << 20) + 1, 1 << 50):
        forged = small.forge(tmp_path / "s", (saved.MEMORY_AT, word(memory)), (saved.SIZE_AT, word(memory)))
        assert launch(*options(forged.file), small.vm.image).returncode == 125


def test_other_window(small: Saved, tmp_path: Path) -> None:
    """The command line determines the limit on the host's memory, not the file."""
    forged = small.forge(tmp_path / "s", (saved.BUDGET_AT, word((128 << 20) + 4096)))
    refused_by_kernel(forged, "more than window= has")
    forged = small.forge(tmp_path / "s", (saved.WINDOW_AT, word(1 << 40)))
    refused_by_kernel(forged, "the snapshot is truncated")


def test_other_kernel(small: Saved, tmp_path: Path) -> None:
    kernel = saved.private_kernel(tmp_path)
    vm = Saved(small.vm.but(options=("--kernel", str(kernel))), small.file)
    refused_by_kernel(vm, "the snapshot was made by another kernel")
    assert vm.vm.run("echo", "up").output == "up\n", "that kernel works"


def test_lesser_processor(small: Saved, tmp_path: Path) -> None:
    for number in range(8):
        offset = saved.FEATURES_AT + 4 * number
        forged = small.forge(tmp_path / "s", (offset, struct.pack("<I", 0xFFFFFFFF)))
        refused_by_kernel(forged, "this processor lacks what the snapshot uses")
    refused_by_kernel(small.forge(tmp_path / "s", (saved.XCR0_AT, word(-1))), "XCR0")


def test_other_disks(small: Saved, copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    image = small.vm.image
    same = copy_of("minimal")
    refused("is not the one of snapshot", *options(small.file), same)
    refused("is writable, but it is copy on write", "--restore", small.file, same)
    refused("is read-only, but it is copy on write", "--restore", small.file, "--read-only", image)
    refused("has no disk 2", *options(small.file, "--disk", f"{same},ro"), image)
    two, _ = save(small.vm.but(options=("--disk", f"{same},ro")), tmp_path / "2", "nabla-snapshot")
    refused("has more than 1 disks", *options(two.file), image)
    assert two.run().status == 0
    with same.open("r+b") as stream:
        stream.seek(1 << 16)
        stream.write(b"x")
    refused("has changed since", *options(two.file, "--disk", f"{same},ro"), image)


def test_options_that_come_too_late(small: Saved) -> None:
    for option in ("--append=quiet", "--hostname=x", "--user=nobody", "--service=x", "--init=/bin/sh"):
        refused("has no effect on a restored VM", *options(small.file, option), small.vm.image)
    refused("requires --snapshot", "--snapshot-then-exit", small.vm.image)


def test_what_exists_is_not_replaced(minimal: Vm, copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    other = tmp_path / "text"
    other.write_text("valuable")
    image = copy_of("minimal")
    refused("exists and is not a snapshot", "--ephemeral", "--snapshot", other, image)
    refused("exists and is not a snapshot", "--ephemeral", "--snapshot", image, image)
    refused("cannot create snapshot", "--ephemeral", "--snapshot", tmp_path / "no" / "s", image)
    refused("would change", "--snapshot", tmp_path / "s", image)
    assert other.read_text() == "valuable"
    for _ in range(2):
        save(minimal, tmp_path / "s", "nabla-snapshot")


def test_clones_keep_the_file_that_they_have(minimal: Vm, tmp_path: Path) -> None:
    """A new snapshot of the same name is another file."""
    file = tmp_path / "s"
    save(minimal, file, "nabla-snapshot")
    with file.open("rb") as stream:
        save(minimal, file, "nabla-snapshot")
        assert os.fstat(stream.fileno()).st_ino != file.stat().st_ino
        assert os.fstat(stream.fileno()).st_nlink == 0


# --- forged contents --------------------------------------------------------------------------------------------------


def test_escapes_of_a_restored_vm(testing: Vm, tmp_path: Path) -> None:
    """The filter of a restored VM equals that of any other."""
    escape = becomes(testing.but(memory="64M"), tmp_path / "s.snap", PROGRAM)
    symbol, numbers = str(confined.gadget()), syscall_table.numbers()
    allowed = {call.name for call in model.load().calls}
    for name in ("openat", "execve", "socket", "ptrace", "fork", "kill", "mmap", "seccomp", "prctl", "rt_sigaction"):
        assert name not in allowed
        result = escape.run(symbol, str(numbers[name]))
        assert result.status == KILLED, (name, result.describe())
        assert "back with" not in result.output
    result = escape.run(symbol, str(numbers["timer_settime"]), "1", "0", "zeros:32", "0")
    assert result.status == KILLED, "a timer that is not this VM's"
    for fd in (3, 13, 14, 15):
        assert escape.run(symbol, str(numbers["pwritev2"]), str(fd), "zeros:16", "1", "0", "0", "0").status == KILLED


FORGERIES = {
    "descriptors": ("um_fds", b"\xff" * 16),
    "timer": ("um_host_timer", b"\x07\0\0\0"),
    "clock": ("um_vdso_clock_gettime", word(0x41414141)),
    "vdso": ("um_vdso_start", word(0) + word(-1)),
    "snapshot": ("um_snapshot_fd", b"\x02\0\0\0"),
    "current": ("um_current", word(0x42424242)),
    "kernel stack": ("um_kstack", word(0x43434343)),
    "memory": ("um_ram_end", word(-1)),
    "window": ("um_window_start", word(0x10_0000_0000) + word(-1)),
    "pages of the window": ("um_window_tables", word(0x45454545) * 6),
    "interrupts": ("um_irq_pending", b"\xff\xff\xff\xff"),
    "system calls": ("sys_call_table", word(0x44444444) * 450),
    "constants": ("__start_rodata", b"\xff" * 4096 * 8),
    "status": ("um_status", b"\xff" * 4096),
    "signal stack": ("um_signal_stack", b"\xff" * 65536),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_variables(name: str, small: Saved, tmp_path: Path, strace: str) -> None:
    """Before and after the filter is in force, no call outside the policy is made; nothing else is harmed."""
    symbol, data = FORGERIES[name]
    check_confined(small.forge(tmp_path / "s", (at(symbol), data)), tmp_path, strace)


LAST = (64 << 20) // saved.PAGE
HOT_LISTS = {
    "all zero": saved.hot_list(),
    "text": saved.hot_list((1, 1)),
    "behind memory": saved.hot_list((LAST - 1, 2)),
    "far behind": saved.hot_list((0xFFFFFFFF, 0xFFFFFFFF)),
    "wraps": saved.hot_list((LAST - 1, 0xFFFFFFFF), (LAST - 1, 2)),
    "much memory": saved.hot_list((LAST // 2, LAST // 2)),
    "too many": saved.hot_list(count=saved.HOT_RANGES + 1),
    "the most": saved.hot_list(*[(LAST - 2, 1)] * saved.HOT_RANGES),
    "far too many": saved.hot_list(count=0xFFFFFFFF),
}


@pytest.mark.parametrize("name", HOT_LISTS)
def test_forged_lists_of_pages(name: str, small: Saved, tmp_path: Path, strace: str) -> None:
    """They are limited to the memory and to a number of pages; a list beyond these limits has no effect."""
    forged = small.forge(tmp_path / "s", (saved.HOT_AT, HOT_LISTS[name]))
    assert forged.run().output == "up\n"
    check_confined(forged, tmp_path, strace)


def test_forged_lists_of_special_pages(small: Saved, tmp_path: Path) -> None:
    data, status = at("_sdata") // saved.PAGE, at("um_status") // saved.PAGE
    for ranges in ([(data - 1, 2)], [(data, LAST - data)], [(status, 1)], [(data, 1), (status, 1), (data - 1, 1)]):
        assert small.forge(tmp_path / "s", (saved.HOT_AT, saved.hot_list(*ranges))).run().output == "up\n"


@pytest.mark.parametrize("symbol", ["um_boot_open", "um_boot_async", "um_install_filter", "um_host_exit", "_stext"])
def test_forged_registers(symbol: str, small: Saved, tmp_path: Path, strace: str) -> None:
    """It continues anywhere, even in the boot's code, which could open files."""
    start = word(confined.symbols()[symbol]) + word(confined.symbols()["um_signal_stack"] + 32768)
    check_confined(small.forge(tmp_path / "s", (saved.RESUME_AT, start)), tmp_path, strace)


@pytest.mark.parametrize("address", [0, 1 << 63, 0x60000000])
def test_forged_addresses(address: int, small: Saved, tmp_path: Path, strace: str) -> None:
    check_confined(small.forge(tmp_path / "s", (saved.RESUME_AT, word(address) * 8)), tmp_path, strace)


# Programs with a damaged header: the number of segments, then the place and the sizes of the first one.
DAMAGE = "printf '\\377\\377\\377\\377' | dd bs=1 conv=notrunc"
DAMAGED = "".join(
    f"cp /bin/busybox /tmp/{n}; {DAMAGE} of=/tmp/{n} seek={offset} 2>/dev/null;"
    for n, offset in enumerate((56, 72, 80, 96, 104))
)
WORDS = {
    "no programs": "save /absent /etc /dev/null /etc/passwd /proc/1/mem /proc/nabla/snapshot",
    "many": "save " + "/bin/busybox " * 70,
    "no words": "     ",
    "one path": "/bin/busybox",
    "relative": "save bin/busybox ../bin/busybox",
    "no text": "\x01\xff\x7f /\xff",
    **{f"damaged program {n}": f"save /tmp/{n} /bin/busybox" for n in range(5)},
}


@pytest.mark.parametrize("name", WORDS)
def test_words_of_a_write(name: str, minimal: Vm, tmp_path: Path) -> None:
    """Whatever a guest names as programs, the VM is saved, continues, and starts again."""
    then = "head -n 1 /proc/nabla/snapshot; { /tmp/0; } 2>/dev/null; busybox echo on"
    script = f'{DAMAGED} printf %s "$0" >/proc/nabla/snapshot; {then}'
    saved_vm, original = save(minimal, tmp_path / "s.snap", "/bin/sh", "-c", script, WORDS[name], then_exit=False)
    assert original.output == "state original\non\n", original.describe()
    assert saved_vm.run().output == "state restored\non\n"


def test_longest_write(minimal: Vm, tmp_path: Path) -> None:
    write = "head -c $n /dev/zero | dd of=/proc/nabla/snapshot bs=$n iflag=fullblock 2>&1"
    script = f"for n in 1025 70000 1024; do {write}; done"
    _, result = save(minimal, tmp_path / "s.snap", "/bin/sh", "-c", script)
    assert result.output.count("Invalid argument") == 2, result.describe()
