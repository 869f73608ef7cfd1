# SPDX-License-Identifier: Apache-2.0
"""Guest programs that jump to their kernel's own `syscall` instructions cannot change files or processes of the host.

Each attempt runs in its own VM (tests/guest/escape.c); test_policy_escape.py tries every call.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nabla.core.paths import GUEST_TESTS, MUSL
from verify import syscall_table

from . import confined
from .confined import PROGRAM, Bare, Ending, gadget, snapshot
from .saved import becomes
from .vm import Result, Vm

INT80_MKDIR, X86_64_MKDIR = 39, 83
KILLED = 128 + signal.SIGSYS


def harmful(folder: Path, victim: int) -> dict[str, tuple[int | str, ...]]:
    """Calls that would change this host if they took effect: arguments by name."""
    here, file = f"text:{folder}/new", f"text:{folder}/victim"
    created = os.O_RDWR | os.O_CREAT
    return {
        "write": (6, "text:overwritten", 11),
        "pwrite64": (6, "text:overwritten", 11, 0),
        "writev": (6, "iov:overwritten", 1),
        "pwritev": (6, "iov:overwritten", 1, 0),
        "ftruncate": (6, 0),
        "truncate": (file, 0),
        "fallocate": (6, 0, 0, 1 << 20),
        "open": (here, created, 0o666),
        "openat": (-100, here, created, 0o666),
        "creat": (here, 0o666),
        "mkdir": (here, 0o777),
        "mkdirat": (-100, here, 0o777),
        "mknod": (here, 0o10666, 0),
        "mknodat": (-100, here, 0o10666, 0),
        "link": (file, here),
        "linkat": (-100, file, -100, here, 0),
        "symlink": (file, here),
        "symlinkat": (file, -100, here),
        "rename": (file, here),
        "renameat": (-100, file, -100, here),
        "renameat2": (-100, file, -100, here, 0),
        "unlink": (file,),
        "unlinkat": (-100, file, 0),
        "chmod": (file, 0o777),
        "fchmod": (6, 0o777),
        "fchmodat": (-100, file, 0o777),
        "utimensat": (-100, file, 0, 0),
        "sendfile": (6, 4, 0, 16),
        "copy_file_range": (4, 0, 6, 0, 16, 0),
        "kill": (victim, int(signal.SIGKILL)),
        "tkill": (victim, int(signal.SIGKILL)),
        "tgkill": (victim, victim, int(signal.SIGKILL)),
        "setpriority": (0, victim, 19),
        "prlimit64": (victim, 4, "zeros:16", 0),
        "ptrace": (0x4206, victim, 0, 0),
        "process_vm_writev": (victim, "iov:x", 1, "iov:x", 1, 0),
        "fork": (),
        "vfork": (),
        "clone": (int(signal.SIGCHLD), 0, 0, 0, 0),
        "clone3": ("zeros:88", 88),
        "execve": ("text:/bin/true", "zeros:16", "zeros:16"),
        "execveat": (-100, "text:/bin/true", "zeros:16", "zeros:16", 0),
        "socket": (1, 1, 0),
        "socketpair": (1, 1, 0, "zeros:8"),
        "mmap": (0, 4096, 7, 0x22, -1, 0),
        "mprotect": (confined.symbols()["_stext"] & ~4095, 4096, 7),
        "munmap": (confined.symbols()["_stext"] & ~4095, 4096),
        "prctl": (4, 1),
        "seccomp": (1, 0, "zeros:16"),
        "ioctl": (1, 0x5412, "text:x"),
        "fcntl": (1, 4, 0),
        "dup2": (6, 1),
        "dup3": (6, 1, 0),
        "close": (1,),
        "read": (6, "zeros:64", 64),
        "readv": (6, "iov:0123", 1),
        "pread64": (6, "zeros:64", 64, 0),
        "preadv": (6, "iov:0123", 1, 0),
        "memfd_create": ("text:x", 0),
        "io_uring_setup": (8, "zeros:128"),
        "bpf": (0, "zeros:128", 128),
        "perf_event_open": ("zeros:128", 0, -1, -1, 0),
        "userfaultfd": (0,),
        "timer_create": (1, 0, "zeros:8"),
        "alarm": (1,),
        "exit": (0,),
        "sync": (),
        "unshare": (0x10000000,),
        "setuid": (1234,),
        "chdir": (f"text:{folder}",),
        "chroot": (f"text:{folder}",),
        "rt_sigaction": (int(signal.SIGSYS), "zeros:32", 0, 8),
        "rt_sigprocmask": (0, "zeros:8", 0, 8),
        "sigaltstack": ("zeros:24", 0),
        "nanosleep": ("zeros:16", 0),
        "sched_yield": (),
    }


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A world-writable folder of this host."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o777)
        (Path(name) / "victim").write_text("as it was\n")
        (Path(name) / "victim").chmod(0o666)
        yield Path(name)


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this host."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_watched_machine_whose_watcher_is_gone_is_confined_all_the_same(
    testing: Vm, tmp_path: Path, open_folder: Path
) -> None:
    """`policy=trace` on the kernel's command line without a tracer: a forbidden call fails with ENOSYS."""
    watched = Bare(tmp_path, testing.image, ("policy=trace",))
    with snapshot(open_folder) as same_files:
        for name, args in (("mkdir", (f"text:{open_folder}/new", 0o777)), ("unlink", (f"text:{open_folder}/victim",))):
            assert watched.attempt(gadget(), syscall_table.numbers()[name], *args) == Ending(0, "back with -38\n")
            assert same_files()


def test_harmful_calls_take_no_effect(bare: Bare, open_folder: Path, victim: subprocess.Popen[bytes]) -> None:
    """On files and processes of this host that the VM's user could otherwise change."""
    calls = harmful(open_folder, victim.pid)
    assert set(calls) <= set(syscall_table.numbers())
    nice = os.getpriority(os.PRIO_PROCESS, victim.pid)
    limits = Path(f"/proc/{victim.pid}/limits").read_text()
    with snapshot(open_folder) as same_files, snapshot(bare.folder) as same_disks:
        for name, args in calls.items():
            before = set(os.listdir("/proc"))
            ending = bare.attempt(gadget(), syscall_table.numbers()[name], *args)
            assert ending == Ending(-signal.SIGSYS, ""), (name, ending)
            assert same_files() and same_disks(), name
            assert victim.poll() is None, name
            assert "TracerPid:\t0\n" in Path(f"/proc/{victim.pid}/status").read_text(), name
            assert bare.left_behind(before) == [], name
    assert os.getpriority(os.PRIO_PROCESS, victim.pid) == nice
    assert Path(f"/proc/{victim.pid}/limits").read_text() == limits


def test_without_a_filter_the_same_attempts_do_take_effect(open_folder: Path, victim: subprocess.Popen[bytes]) -> None:
    """The same program with the same arguments, on the host itself: the checks above are not blind."""
    calls = harmful(open_folder, victim.pid)
    foreign = open_folder / "foreign"
    foreign.write_text("as it was\n")
    words = [str(MUSL / "lib" / "ld-musl-x86_64.so.1"), str(GUEST_TESTS / "escape"), "own"]
    blind = []
    for name in ("write", "pwritev", "ftruncate", "open", "mkdir", "symlink", "link", "chmod", "fchmod", "rename"):
        with snapshot(open_folder) as same_files:
            subprocess.run(
                [
                    "/bin/sh",
                    "-c",
                    'exec "$@" 6<>"$foreign"',
                    "sh",
                    *words,
                    str(syscall_table.numbers()[name]),
                    *map(str, calls[name]),
                ],
                env={"foreign": str(foreign)},
                capture_output=True,
                timeout=20,
                check=False,
            )
            with suppress(AssertionError):
                same_files()
                blind.append(name)
        for path in open_folder.iterdir():
            path.rmdir() if path.is_dir() else path.unlink()
        for path in (open_folder / "victim", foreign):
            path.write_text("as it was\n")
    assert blind == []
    subprocess.run([*words, str(syscall_table.numbers()["kill"]), *map(str, calls["kill"])], check=False, timeout=20)
    assert victim.wait(timeout=60) == -signal.SIGKILL


@pytest.mark.parametrize("instruction", ["int80", "sysenter", "syscall32"])
def test_32_bit_code_does_not_reach_the_host(bare: Bare, open_folder: Path, instruction: str) -> None:
    """`int $0x80` is trapped as the program's own fault; the other two kill, or do not exist on this processor."""
    with snapshot(open_folder) as same_files:
        for number in (INT80_MKDIR, X86_64_MKDIR):
            ending = bare.attempt(instruction, number, f"text:{open_folder}/new", 0o777)
            assert same_files(), ending
            faults = (signal.SIGSEGV, signal.SIGILL)
            assert ending.status in (-signal.SIGSYS, *(128 + each for each in faults)), ending
            assert instruction != "int80" or ending.status == 128 + signal.SIGSEGV
            assert "back with" not in ending.output


@pytest.fixture(scope="module", params=["cold", "restored"])
def small_vm(request: pytest.FixtureRequest, testing: Vm, tmp_path_factory: pytest.TempPathFactory) -> Vm:
    """A VM of 64 MB that runs PROGRAM: booted, or started from a snapshot."""
    vm = testing.but(memory="64M")
    if request.param == "restored":
        vm = becomes(vm, tmp_path_factory.mktemp("bound") / "s.snap", PROGRAM).restored()
    return vm


def filled(vm: Vm, rights: int, own: int = 0, where: tuple[int, int] = confined.window(64 << 20)) -> tuple[Result, int]:
    """Let a guest allocate all memory that the host permits; return its output, and its peak on the host in bytes."""
    start, end = where
    words = ["fill", gadget(), start, end, rights, own]
    program = [] if "--restore" in vm.options else [PROGRAM]
    result = vm.but(options=(*vm.options, "--json")).run(*program, *map(str, words), timeout=200)
    return result, json.loads(result.errors.splitlines()[-1])["peak_memory_kib"] << 10


def test_memory_is_bounded_whatever_a_guest_does(small_vm: Vm) -> None:
    """A guest that makes host calls by itself gets the window's limit, and not a byte more by revoking rights."""
    memory, slack = 64 << 20, 16 << 20
    result, peak = filled(small_vm, 7)
    # At the host's limit, which the filter cannot see, mprotect fails.
    used = int(result.lines()[0].split()[1]) << 20
    assert abs(used - 2 * memory) <= slack, result.describe()
    assert peak <= 3 * memory + slack
    for rights in (5, 0):
        result, peak = filled(small_vm, rights)
        assert result.status == KILLED, result.describe()
        assert peak <= 3 * memory + slack


def test_memory_below_the_kernel_has_the_same_bound(small_vm: Vm) -> None:
    """Addresses for programs count like the window's, and their rights cannot be revoked."""
    memory, slack = 64 << 20, 16 << 20
    result, peak = filled(small_vm, 7, where=confined.LOW)
    used = int(result.lines()[0].split()[1]) << 20
    assert abs(used - 2 * memory) <= slack, result.describe()
    assert peak <= 3 * memory + slack
    for rights in (5, 0):
        result, peak = filled(small_vm, rights, where=confined.LOW)
        assert result.status == KILLED, result.describe()
        assert peak <= 3 * memory + slack


def test_read_only_memory_does_not_count(small_vm: Vm) -> None:
    """Memory that a guest makes read-only, the host lets it allocate again: at most four times its memory."""
    memory, own, slack = 64 << 20, 24 << 20, 16 << 20
    result, peak = filled(small_vm, 7, own)
    used = int(result.lines()[0].split()[1]) << 20
    assert abs(used - 2 * memory - own) <= slack, result.describe()
    assert used + own <= peak <= 4 * memory + slack
