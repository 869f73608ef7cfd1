# SPDX-License-Identifier: Apache-2.0
"""nabla-run for its tests: with a real VM, or with a misbehaving program instead of the kernel."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.core.paths import MUSL, NABLA_RUN, VMLINUX
from nabla.sandbox.bwrap import Bind, Sandbox

OWN_ERROR = 125
TIMED_OUT = 124
NOBODY = 65534
SOURCE = Path(__file__).with_name("stand_in.c")


def launch(*words: str | Path, prefix: tuple[str, ...] = (), **options: Any) -> subprocess.CompletedProcess[str]:
    """Run nabla-run to its end. `prefix` is a command that starts commands."""
    settings: dict[str, Any] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 60}
    result: subprocess.CompletedProcess[str] = subprocess.run(
        [*prefix, str(NABLA_RUN), *map(str, words)], check=False, **settings | options
    )
    return result


def refused(message: str, *words: str | Path, prefix: tuple[str, ...] = (), **options: Any) -> None:
    """Assert that nabla-run exits with its own status and one line that contains `message`."""
    result = launch(*words, prefix=prefix, **options)
    assert result.returncode == OWN_ERROR, result
    assert result.stderr.startswith("nabla-run: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert message in result.stderr
    assert result.stdout == ""


def compile_stand_in(folder: Path) -> Path:
    """Compile stand_in.c, statically, into `folder`."""
    shutil.copy(SOURCE, folder)
    Sandbox((Bind(folder, "/build", writable=True), Bind(MUSL, "/sysroot"))).run(
        "musl-gcc -O1 -Wall -Werror -static-pie stand_in.c -o stand-in", title="compile stand_in.c"
    )
    return folder / "stand-in"


@dataclass(frozen=True)
class Launcher:
    """nabla-run with one image and the stand-in for a kernel."""

    image: Path
    stand_in: Path

    def words(self, do: str, *options: str | Path) -> list[str]:
        """Return the command line that makes the stand-in execute `do`: see stand_in.c."""
        words = [NABLA_RUN, "--kernel", self.stand_in, *options, self.image, "--", *do.split()]
        return [str(word) for word in words]

    def run(self, do: str, *options: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run the stand-in to its end."""
        return launch(*self.words(do, *options)[1:], **settings)

    @contextmanager
    def running(self, do: str, *options: str | Path, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Start the stand-in and wait for its first line, `up`; end it afterwards if it still runs."""
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        with subprocess.Popen(self.words(f"say=up {do}", *options), **pipes | settings) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            yield process
            process.terminate()


def child_of(pid: int) -> int:
    """Return the only child of a process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def started_by(pid: int, program: Path, timeout: float = 20) -> int:
    """Wait until a process has started a program; returns the child."""
    deadline = time.monotonic() + timeout
    while True:
        with suppress(ValueError, OSError):
            child = child_of(pid)
            if os.readlink(f"/proc/{child}/exe") == str(program.resolve()):
                return child
        assert time.monotonic() < deadline, f"process {pid} does not start {program}"
        time.sleep(0.01)


def proc_status(pid: int) -> dict[str, str]:
    """Return /proc/PID/status as a table."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


def wait_until_gone(pid: int, timeout: float = 10) -> None:
    """Wait until a process has ended; it may still be a zombie."""
    deadline = time.monotonic() + timeout
    while True:
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                assert time.monotonic() < deadline, f"process {pid} lives on"
                time.sleep(0.01)
                continue
        return


@dataclass(frozen=True)
class Ordinary:
    """An ordinary user who can start VMs: accessible files, and a command that switches to the user."""

    folder: Path
    prefix: tuple[str, ...]
    uid: int

    @property
    def nabla_run(self) -> Path:
        """The launcher, with the kernel beside it."""
        return self.folder / "nabla-run"

    def run(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run this nabla-run as this user."""
        settings: dict[str, Any] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 60}
        argv = [*self.prefix, str(self.nabla_run), *map(str, words)]
        result: subprocess.CompletedProcess[str] = subprocess.run(argv, check=False, **settings | options)
        return result


@contextmanager
def ordinary_user(image: Path) -> Iterator[Ordinary]:
    """Yield the user who runs the tests, or another one for root. disk.ext3 in the folder is a copy of `image`."""
    uid, prefix = os.geteuid(), tuple[str, ...]()
    folder = Path(tempfile.mkdtemp(prefix="nabla-test-"))  # other users cannot enter pytest's own folder
    try:
        for source, name in ((NABLA_RUN, "nabla-run"), (VMLINUX, "vmlinux"), (image, "disk.ext3")):
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, folder / name], check=True)
            (folder / name).chmod(0o755)
        folder.chmod(0o755)
        if uid == 0:
            uid = 47110
            prefix = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
        yield Ordinary(folder, prefix, uid)
    finally:
        shutil.rmtree(folder)


class Terminal:
    """A command on its own terminal."""

    def __init__(self, *words: str) -> None:
        pid, self.master = pty.fork()
        if pid == 0:
            os.execv(words[0], words)
        self.pid = pid
        self.ended: int | None = None
        self._unread = b""

    def modes(self) -> list[Any]:
        """Return the terminal's modes."""
        return termios.tcgetattr(self.master)

    def is_raw(self) -> bool:
        """Return whether keys send no signals and lines are not edited."""
        return not self.modes()[3] & (termios.ECHO | termios.ICANON | termios.ISIG)

    def read_until(self, wanted: bytes, timeout: float = 20) -> bytes:
        """Read until `wanted` appears; returns everything up to its end."""
        deadline = time.monotonic() + timeout
        while wanted not in self._unread:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, self._unread
            self._unread += os.read(self.master, 4096)
        end = self._unread.index(wanted) + len(wanted)
        seen, self._unread = self._unread[:end], self._unread[end:]
        return seen

    def read(self) -> bytes:
        """Read what is there; returns nothing at the end."""
        try:
            return os.read(self.master, 4096)
        except OSError:  # EIO: nobody has the other side open
            return b""

    def wait(self) -> int:
        """Return the exit status."""
        if self.ended is None:
            self.ended = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.ended


@contextmanager
def terminal(*words: str | Path) -> Iterator[Terminal]:
    """Start a command on a terminal; it is killed at the end if it still runs."""
    opened = Terminal(*map(str, words))
    try:
        yield opened
    finally:
        if opened.ended is None:
            with suppress(ProcessLookupError):
                os.kill(opened.pid, signal.SIGKILL)
            opened.wait()
        os.close(opened.master)
