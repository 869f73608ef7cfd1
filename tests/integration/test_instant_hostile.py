# SPDX-License-Identifier: Apache-2.0
"""A cache folder that is damaged, foreign, full or in use: the VM boots, and reports the reason only on request."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nabla.core.paths import NABLA_RUN
from nabla.policy import model
from verify import syscall_table

from . import confined, saved
from .confined import PROGRAM
from .instant import RESTORED, Cache, start, until
from .instant import cache as cache
from .launcher import Ordinary
from .saved import at, word
from .vm import Vm

DAMAGED = ("cold", "the snapshot in the cache is damaged")
FOREIGN_FOLDER = ("cold", "other users have access to the cache folder")
FOREIGN_FILE = ("cold", "the snapshot in the cache is not this user's file")
KILLED = 128 + signal.SIGSYS


def write(file: Path, position: int, data: bytes, *, same_time: bool = False) -> None:
    """Overwrite bytes of a snapshot."""
    times = file.stat()
    file.chmod(0o600)
    with file.open("r+b") as stream:
        stream.seek(position)
        stream.write(data)
    file.chmod(0o400)
    if same_time:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def check_boots(vm: Vm, expected: tuple[str, str]) -> None:
    """It boots for this reason."""
    assert start(vm) == expected


@pytest.mark.parametrize("position", [0, 8, 48, saved.RESUME_AT, 4096, 4104, 4300, 1 << 22, (64 << 20) - 1])
def test_written_to(position: int, minimal: Vm, cache: Cache) -> None:
    """Wherever it is; the next start makes a new one."""
    assert start(minimal) == RESTORED
    write(cache.only(), position, b"\xa5")
    check_boots(minimal, DAMAGED)
    assert start(minimal) == RESTORED
    assert len(cache.files()) == 1


@pytest.mark.parametrize("position", [0, 8, 48, saved.RESUME_AT, 4096, 4104, 4300])
def test_damaged_by_the_disk(position: int, minimal: Vm, cache: Cache) -> None:
    """The header has its own sum."""
    assert start(minimal) == RESTORED
    write(cache.only(), position, b"\xa5", same_time=True)
    assert start(minimal)[0] == "cold"
    assert start(minimal) == RESTORED


def test_damaged_at_random(minimal: Vm, cache: Cache) -> None:
    """No damage of the first two pages, which nabla-run reads, is an error."""
    chosen = random.Random(41)
    for _ in range(40):
        start(minimal)
        for file in cache.files():
            write(file, chosen.randrange(8192), chosen.randbytes(chosen.choice([1, 4, 64])), same_time=True)
    for file in cache.files():
        file.unlink()
    assert start(minimal) == RESTORED


@pytest.mark.parametrize("size", [1, 4096, 8191, 8192, 1 << 20, (64 << 20) - 1])
def test_truncated(size: int, minimal: Vm, cache: Cache) -> None:
    assert start(minimal) == RESTORED
    times = cache.only().stat()
    os.truncate(cache.only(), size)
    os.utime(cache.only(), ns=(times.st_atime_ns, times.st_mtime_ns))
    check_boots(minimal, DAMAGED)
    assert start(minimal) == RESTORED


def test_that_of_another_vm(minimal: Vm, cache: Cache) -> None:
    """A name proves nothing."""
    assert start(minimal.but(memory="80M")) == RESTORED
    other = cache.only()
    assert start(minimal) == RESTORED
    (own,) = (file for file in cache.files() if file != other)
    other.replace(own)
    check_boots(minimal, ("cold", "the snapshot in the cache does not fit"))
    assert start(minimal) == RESTORED


def test_something_else_with_its_name(minimal: Vm, cache: Cache, tmp_path: Path) -> None:
    assert start(minimal) == RESTORED
    file = cache.only()
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    check_boots(minimal, ("cold", "the snapshot in the cache: Symbolic link loop"))
    file.unlink()
    file.mkdir()
    check_boots(minimal, FOREIGN_FILE)
    file.rmdir()
    os.mkfifo(file, 0o600)
    check_boots(minimal, FOREIGN_FILE)
    file.unlink()
    shutil.copy(elsewhere, file)
    file.chmod(0o604)
    check_boots(minimal, FOREIGN_FILE)
    file.unlink()
    assert start(minimal) == RESTORED


def test_folder_of_others(minimal: Vm, cache: Cache, tmp_path: Path, as_root: bool) -> None:
    cache.folder.mkdir(0o700)
    for mode in (0o755, 0o770, 0o701):
        cache.folder.chmod(mode)
        check_boots(minimal, FOREIGN_FOLDER)
    cache.folder.chmod(0o700)
    if as_root:
        os.chown(cache.folder, 12345, 12345)
        check_boots(minimal, FOREIGN_FOLDER)
    cache.folder.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    cache.folder.symlink_to(elsewhere)
    assert start(minimal)[0] == "cold"
    cache.folder.unlink()
    cache.folder.write_text("a file")
    check_boots(minimal, ("cold", "the cache folder: Not a directory"))
    assert not list(elsewhere.iterdir())
    cache.folder.unlink()
    if as_root:
        os.chown(cache.base, 12345, 12345)
        check_boots(minimal, ("cold", "the cache folder: Permission denied"))
        assert not cache.folder.exists(), "root leaves no folder in those of others"


def test_ordinary_user(ordinary: Ordinary, cache: Cache) -> None:
    """Folders that cannot be written, and none at all; then one that works."""
    home = ordinary.folder / "home"
    home.mkdir()

    def starts(**variables: str) -> tuple[str, str]:
        disk = ordinary.folder / "disk.ext3"
        environment = {"PATH": os.environ["PATH"], **variables}
        result = ordinary.run("--ephemeral", "--memory", "64M", "--verbose", disk, "--", "true", env=environment)
        assert result.returncode == 0, result
        (line,) = (line for line in result.stderr.splitlines() if line.startswith("nabla-run: start: "))
        return result.stdout, line.removeprefix("nabla-run: start: ")

    assert starts(XDG_CACHE_HOME="/proc") == ("", "cold, the cache folder: Permission denied")
    assert starts(HOME="/nowhere/at/all") == ("", "cold, the cache folder: No such file or directory")
    assert starts(HOME=str(home)) == ("", "cold, the cache folder: Permission denied")
    os.chown(home, ordinary.uid, -1)
    until(lambda: starts(HOME=str(home)) == ("", "restored"))
    (file,) = (home / ".cache" / "nabla-run").iterdir()
    assert file.stat().st_uid == ordinary.uid
    (home / ".cache" / "nabla-run").chmod(0o500)
    assert starts(HOME=str(home)) == ("", "restored"), "nothing has to be written"
    (home / ".cache" / "nabla-run").chmod(0o700)


def test_limits_of_the_caller(minimal: Vm, cache: Cache) -> None:
    """A limit of the size of files, or of open files, does no harm."""
    words = minimal.but(options=("--json",)).argv("/bin/true")
    for limit in ("ulimit -f 1000", "ulimit -n 40"):
        result = subprocess.run(
            ["/bin/sh", "-c", f'{limit}; exec "$@"', "sh", *words], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result
        assert ("the limit of the size of files is too low" in result.stderr) == ("-f" in limit)


def test_limit_of_addresses(minimal: Vm, cache: Cache) -> None:
    """Without room for reservations, a VM resumes from a snapshot that has none."""
    words = minimal.but(options=("--json",)).argv("/bin/true")
    for limit in ("ulimit -v 2000000", ":", "ulimit -v 2000000", ":"):
        result = subprocess.run(
            ["/bin/sh", "-c", f'{limit}; exec "$@"', "sh", *words], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result
        assert '"start":"restored"' in result.stderr, result


def test_full_file_system(minimal: Vm, cache: Cache) -> None:
    script = 'mount -t tmpfs -o size=1m,mode=700 none "$0" && mkdir -m 700 "$0/nabla-run" && exec "$@"'
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    words = minimal.but(options=("--json",)).argv("/bin/true")
    argv = ["unshare", "--mount", *root, "/bin/sh", "-c", script, str(cache.base), *words]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result
    assert "the file system of the cache folder is nearly full" in result.stderr


def test_folder_without_programs(minimal: Vm, cache: Cache) -> None:
    script = 'mount -t tmpfs -o size=1g,mode=700,noexec none "$0" && mkdir -m 700 "$0/nabla-run" && exec "$@"'
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    words = minimal.but(options=("--json",)).argv("/bin/true")
    argv = ["unshare", "--mount", *root, "/bin/sh", "-c", script, str(cache.base), *words]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result
    assert "is mounted noexec" in result.stderr


def test_bounds(minimal: Vm, cache: Cache) -> None:
    for number in range(40):
        assert start(minimal.but(memory=f"{40 + number}M")) == RESTORED
    assert len(cache.files()) == 32


def test_foreign_files_stay(minimal: Vm, cache: Cache) -> None:
    cache.folder.mkdir(0o700)
    (cache.folder / "valuable").write_text("x")
    (cache.folder / f"{'long' * 20}.snap").write_text("x")
    for number in range(35):
        (cache.folder / f"{number:016x}.snap").touch(0o600)
    assert start(minimal) == RESTORED
    assert len(cache.files()) == 32 + 1
    assert (cache.folder / "valuable").exists()


def test_many_at_once(minimal: Vm, cache: Cache) -> None:
    """One of them creates the snapshot, and the others do not wait for it."""
    words = minimal.but(options=("--json",)).argv("/bin/echo", "up")
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(words, text=True, **pipes) for _ in range(24)]  # type: ignore[call-overload]
    for each in running:
        output, errors = each.communicate(timeout=120)
        assert (each.returncode, output) == (0, "up\n"), errors
        assert '"start":"restored"' in errors or "another start is creating the snapshot" in errors
    assert start(minimal) == RESTORED
    assert len(cache.files()) == 1


def test_killed_while_it_is_written(minimal: Vm, cache: Cache) -> None:
    """An incomplete file has no name, and no process survives."""
    chosen = random.Random(14)
    words = minimal.argv("/bin/true")
    for _ in range(40):
        for file in cache.files():
            file.unlink()
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True) as process:
            time.sleep(chosen.random() * 0.02)
            process.kill()
        assert set(cache.folder.iterdir() if cache.folder.exists() else []) == set(cache.files())
        if cache.files():
            assert start(minimal) == RESTORED
    until(lambda: start(minimal) == RESTORED)  # the lock of a dead start is released


def test_caller_ignores_children(minimal: Vm, cache: Cache) -> None:
    words = minimal.but(options=("--json",)).argv("/bin/sh", "-c", "exit 4")
    for _ in range(2):
        result = subprocess.run(
            ["/bin/sh", "-c", "trap '' CHLD HUP INT TERM; exec \"$@\"", "sh", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 4
        assert '"start":"restored"' in result.stderr


def test_no_command_reaches_the_snapshot(testing: Vm, cache: Cache) -> None:
    """Neither the first VM nor a later one can write to the file, or make a call that the policy lacks."""
    vm = testing.but(memory="64M")
    gadget, numbers = str(confined.gadget()), syscall_table.numbers()
    allowed = {call.name for call in model.load().calls}
    for _ in range(2):
        for fd in (3, 13, 14, 15, 20):
            result = vm.run(PROGRAM, gadget, str(numbers["pwritev2"]), str(fd), "zeros:16", "1", "0", "0", "0")
            assert result.status == KILLED, result.describe()
        for name in ("openat", "execve", "socket", "ptrace", "mmap", "ftruncate", "fchmod", "linkat"):
            assert name not in allowed
            assert vm.run(PROGRAM, gadget, str(numbers[name])).status == KILLED
    assert start(vm) == RESTORED
    assert len(cache.files()) == 1


def test_forged_by_its_owner(minimal: Vm, cache: Cache) -> None:
    """A user who may write to the folder has no more power than a guest."""
    assert start(minimal) == RESTORED
    write(cache.only(), at("um_fds"), b"\xff" * 16, same_time=True)
    write(cache.only(), at("sys_call_table"), word(0x44444444) * 450, same_time=True)
    result = minimal.run("/bin/true")
    assert result.status == 125 or result.status > 128, result.describe()


def test_streams_are_those_of_the_caller(minimal: Vm, cache: Cache) -> None:
    """The VM that creates the snapshot reads no byte of the input and keeps no pipe open."""
    words = [str(NABLA_RUN), "--ephemeral", "--memory", "64M", str(minimal.image), "--", "cat"]
    for _ in range(2):
        result = subprocess.run(words, input=b"x" * 100000, capture_output=True, check=True)
        assert (result.stdout, result.stderr) == (b"x" * 100000, b"")
        for file in cache.files():
            file.unlink()
