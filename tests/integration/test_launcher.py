# SPDX-License-Identifier: Apache-2.0
"""nabla-run itself: options, images, locks, what the kernel process gets, signals, and the host's terminal.

Where it matters what the started process sees, a host program is started in the kernel's place and looks around.
"""

from __future__ import annotations

import os
import pty
import random
import shlex
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pexpect
import pytest

from nabla.paths import NABLA_RUN

from .conftest import image_of

OWN_ERROR = 125
SUPERBLOCK = 1024


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A private copy of the minimal image."""
    target = tmp_path / "disk.ext3"
    shutil.copyfile(image_of("minimal"), target)
    return target


@pytest.fixture
def look(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that makes a shell script into a program which can be started as the kernel."""

    def make(script: str) -> str:
        path = tmp_path / "look"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return make


def launch(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    settings: dict[str, Any] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 60}
    result: subprocess.CompletedProcess[str] = subprocess.run(
        [str(NABLA_RUN), *map(str, words)], check=False, **settings | options
    )
    return result


def refused(told: str, *words: str | Path) -> None:
    """Assert that nabla-run ends with its own status and one line that holds `told`."""
    result = launch(*words)
    assert result.returncode == OWN_ERROR, result
    assert result.stderr.startswith("nabla-run: ")
    assert result.stderr.count("\n") == 1
    assert told in result.stderr
    assert result.stdout == ""


# Options


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no image given"),
        (["--"], "no image given"),
        (["--", "ls"], "no image given"),
        ([""], "name of the image is empty"),
        (["x", "y"], "unexpected argument 'y' (a command comes after --)"),
        (["x", "--", ""], "name of the command is empty"),
        (["-x"], "unknown option -x"),
        (["--memoryy", "64M", "x"], "unknown option --memoryy"),
        (["--mem", "64M", "x"], "unknown option --mem"),
        (["--memory"], "--memory needs a value: SIZE"),
        (["--memory", "", "x"], "'' is not a size"),
        (["--memory", " 64M", "x"], "is not a size"),
        (["--memory", "-64M", "x"], "is not a size"),
        (["--memory", "64MB", "x"], "is not a size"),
        (["--memory", "0x40M", "x"], "is not a size"),
        (["--memory", "64T", "x"], "is not a size"),
        (["--memory", "15M", "x"], "the least is 16 MiB"),
        (["--memory", "99999999999999999999G", "x"], "more than this host has"),
        (["--memory=17179869185G", "x"], "more than this host has"),  # 2**64 + 2**30 bytes
        (["--read-only=yes", "x"], "--read-only takes no value"),
        (["--read-only", "--ephemeral", "x"], "exclude each other"),
        (["--env", "=x", "x"], "is not an assignment"),
        (["--workdir", "tmp", "x"], "does not begin with /"),
        (["--hostname", "", "x"], "is not a host name"),
        (["--hostname", "a b", "x"], "is not a host name"),
        (["--hostname", "a" * 65, "x"], "is not a host name"),
    ],
)
def test_wrong_options(words: list[str], told: str) -> None:
    refused(told, *words)


def test_no_words_at_all() -> None:
    """Not even a name for itself, as execve allows."""
    result = subprocess.run([], executable=NABLA_RUN, capture_output=True, text=True, check=False)
    assert result.returncode == OWN_ERROR
    assert "no image given" in result.stderr


def test_help_and_version() -> None:
    shown = launch("--help")
    assert shown.returncode == 0
    for option in ("memory", "read-only", "ephemeral", "env", "workdir", "kernel", "append", "verbose", "dry-run"):
        assert f"--{option}" in shown.stdout
    assert launch("-h").stdout == shown.stdout
    assert launch("--version").stdout.startswith("nabla-run 0.")


def test_dry_run(image: Path) -> None:
    """The words are quoted such that a shell gets the kernel's arguments from them."""
    options = ["--dry-run", "--memory=64M", "--env", "A=it's", "--workdir", "/tmp", "--hostname", "h"]
    result = launch(*options, image, "--", "a b", "--kernel")
    assert result.returncode == 0, result.stderr
    arguments = shlex.split(result.stdout)
    assert arguments[0].endswith("vmlinux")
    assert "mem=65536K" in arguments
    assert "ubd0=fd:3" in arguments
    settings = arguments[arguments.index("--") + 1 :]
    assert settings == ["arg=a b", "arg=--kernel", "env=A=it's", "workdir=/tmp", "hostname=h", "tty=0"]


def test_modes_of_the_image(image: Path) -> None:
    def words(*options: str) -> list[str]:
        return launch("--dry-run", *options, image).stdout.split()

    assert {"rw", "ubd0=fd:3"} <= set(words())
    assert {"ro", "ubd0=fd:3,ro"} <= set(words("--read-only"))
    assert {"rw", "ubd0=fd:3,cow"} <= set(words("--ephemeral"))
    assert {"a=1", "b"} <= set(words("--append", " a=1  b "))
    assert "loglevel=7" in words("--verbose")
    refused("'--' is not a kernel parameter", "--append", "a -- b", image)


def test_random_options() -> None:
    """Whatever is thrown at it: its own status, one line, no crash."""
    chosen = random.Random(20260601)
    pieces = ["--", "-", "--env", "--memory", "--append=", "=", "\n", "%s%n", "é", "a" * 5000, "/dev", "--dry-run"]
    for _ in range(300):
        words = [chosen.choice(pieces) + chosen.choice(["", "", "=", "x"]) for _ in range(chosen.randrange(6))]
        result = launch(*words)
        assert result.returncode in (0, OWN_ERROR), words
        assert result.returncode == 0 or result.stderr.startswith("nabla-run: "), words


# Images


def test_images_that_are_none(tmp_path: Path) -> None:
    fifo, qcow2, small = tmp_path / "fifo", tmp_path / "qcow2", tmp_path / "small"
    os.mkfifo(fifo)
    qcow2.write_bytes(b"QFI\xfb" + bytes(65532))
    small.write_bytes(b"x")
    refused("No such file", tmp_path / "missing")
    refused("is a directory", tmp_path)
    refused("is a directory", "--read-only", tmp_path)
    refused("neither a regular file nor a block device", fifo)
    refused("neither a regular file nor a block device", "/dev/zero")
    refused("qcow2", qcow2)
    refused("no ext2, ext3 or ext4", small)


def test_damaged_images(image: Path) -> None:
    whole = image.read_bytes()

    def patched(offset: int, value: bytes) -> Path:
        at = SUPERBLOCK + offset
        image.write_bytes(whole[:at] + value + whole[at + len(value) :])
        return image

    refused("damaged superblock", patched(24, struct.pack("<I", 77)))
    refused("damaged superblock", patched(4, struct.pack("<I", 0)))
    refused("truncated", patched(4, struct.pack("<I", 0xFFFFFFFF)))
    # The flag of a journal that must be played back.
    needs_recovery = patched(96, struct.pack("<I", struct.unpack_from("<I", whole, SUPERBLOCK + 96)[0] | 4))
    refused("not shut down cleanly", "--read-only", needs_recovery)
    assert launch("--dry-run", needs_recovery).returncode == 0
    image.write_bytes(whole[: len(whole) // 2])
    refused("truncated", image)
    image.write_bytes(whole + b"x")
    refused("not a multiple of 512", image)


def test_file_without_permission(image: Path, tmp_path: Path) -> None:
    image.chmod(0o444)
    command = [str(NABLA_RUN), str(image)]
    if os.geteuid() == 0:  # whom no permission stops
        tmp_path.chmod(0o755)
        for folder in (tmp_path.parent, tmp_path.parent.parent):
            folder.chmod(0o755)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot open image" in result.stderr or result.returncode == 127:
        pytest.skip("an ordinary user cannot reach the temporary folder or nabla-run here")
    assert result.returncode == OWN_ERROR
    assert "cannot write to image" in result.stderr
    assert "--read-only" in result.stderr


def test_locks(image: Path, look: Callable[[str], str]) -> None:
    """One writer alone, or any number of readers."""
    waiting = look("echo up; exec sleep 60")

    @contextmanager
    def running(*options: str) -> Iterator[None]:
        words = [str(NABLA_RUN), *options, "--kernel", waiting, str(image)]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            yield
            process.terminate()

    with running():
        refused("in use by another VM", image)
        refused("in use by another VM", "--read-only", image)
        refused("in use by another VM", "--ephemeral", image)
    with running("--read-only"), running("--ephemeral"):
        refused("in use by another VM", image)
        assert launch("--dry-run", "--ephemeral", image).returncode == 0
    assert launch("--dry-run", image).returncode == 0


# The kernel


def test_kernels_that_are_none(image: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program\n")
    refused("cannot find kernel", "--kernel", tmp_path / "missing", image)
    refused("not a regular file", "--kernel", tmp_path, image)
    text.chmod(0o644)
    refused("cannot run kernel", "--kernel", text, image)
    text.chmod(0o755)
    refused("cannot run kernel", "--kernel", text, image)


def test_where_the_kernel_is_looked_for(image: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "nabla-run"
    program.parent.mkdir()
    shutil.copy(NABLA_RUN, program)

    def found(**env: str) -> str:
        result = subprocess.run([program, "--dry-run", image], capture_output=True, text=True, env=env, check=False)
        return os.path.normpath(result.stdout.split()[0]) if result.returncode == 0 else result.stderr

    assert "no kernel vmlinux beside" in found()
    for place in ("lib/nabla", "kernel", "bin"):
        kernel = tmp_path / place / "vmlinux"
        kernel.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", kernel)
        assert found() == str(kernel)
    assert found(NABLA_KERNEL="/bin/false") == "/bin/false"


def test_what_the_kernel_gets(image: Path, look: Callable[[str], str]) -> None:
    """The descriptors 0 to 3, no environment, no blocked signal, and our death as its own."""
    script = """
        ls -l /proc/$$/fd
        tr '\\0' '\\n' </proc/$$/environ | sed 's/^/env /'
        grep -E '^(SigBlk|SigIgn)' /proc/$$/status
    """
    extra = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(extra, True)
    result = launch("--kernel", look(script), image, close_fds=False)
    os.close(extra)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    descriptors = dict(line.split(" -> ")[0].split()[-1:] + line.split(" -> ")[1:] for line in lines if " -> " in line)
    assert descriptors["3"] == str(image)
    # The shell itself keeps its script open, at 10 or above.
    assert {number for number in descriptors if int(number) < 10} == {*"0123"}
    assert not [line for line in lines if line.startswith("env") and "PWD=" not in line and " _=" not in line]
    assert "SigBlk:\t0000000000000000" in lines


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_descriptors(image: Path, look: Callable[[str], str], tmp_path: Path, closed: str) -> None:
    """What is closed becomes /dev/null; the image must never get such a number."""
    seen = tmp_path / "seen"
    kernel = look(f"for fd in 0 1 2 3; do readlink /proc/$$/fd/$fd; done >{seen}; exit 7")
    command = f"{NABLA_RUN} --kernel {kernel} {image} {closed}"
    assert subprocess.run(["/bin/sh", "-c", command], check=False).returncode == 7
    places = seen.read_text().splitlines()
    assert len(places) == 4
    assert places[3] == str(image)
    assert str(image) not in places[:3]
    for number in (int(word[0]) for word in closed.split()):
        assert places[number] == "/dev/null" or number == 1  # 1 was redirected by the script itself


@pytest.mark.parametrize("code", [0, 1, 42, 125, 255])
def test_exit_status(image: Path, look: Callable[[str], str], code: int) -> None:
    assert launch("--kernel", look(f"exit {code}"), image).returncode == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSYS])
def test_killed_kernel(image: Path, look: Callable[[str], str], number: signal.Signals) -> None:
    result = launch("--kernel", look(f"ulimit -c 0; kill -{int(number)} $$"), image)
    assert result.returncode == 128 + number
    assert f"ended by signal {int(number)}" in result.stderr


# Signals and the terminal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("stubborn", [False, True])
def test_told_to_end(image: Path, look: Callable[[str], str], number: signal.Signals, stubborn: bool) -> None:
    """Also by a kernel that does not listen."""
    kernel = look(("trap '' TERM; " if stubborn else "") + "echo $$; while :; do sleep 0.1; done")
    with subprocess.Popen(
        [NABLA_RUN, "--kernel", kernel, image], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(number)
        assert process.wait(timeout=10) == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_ignored_hangup(image: Path, look: Callable[[str], str]) -> None:
    """As under nohup: what our caller ignores does not end us."""
    kernel = look("echo up; sleep 0.5; exit 3")
    with subprocess.Popen(
        [NABLA_RUN, "--kernel", kernel, image],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=10) == 3


def test_ignored_child_signal(image: Path, look: Callable[[str], str]) -> None:
    result = launch("--kernel", look("exit 9"), image, preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert result.returncode == 9


class Terminal:
    """nabla-run on a terminal of its own, with a host program as kernel."""

    def __init__(self, *words: str) -> None:
        pid, self.master = pty.fork()
        if pid == 0:
            os.execv(words[0], words)
        self.pid = pid
        self.ended: int | None = None

    def modes(self) -> list[object]:
        """Return the terminal's modes."""
        return termios.tcgetattr(self.master)

    def read_until(self, wanted: bytes, timeout: float = 10) -> bytes:
        """Read until something appears."""
        seen, deadline = b"", time.monotonic() + timeout
        while wanted not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(self.master, 4096)
        return seen

    def wait(self) -> int:
        """Return the exit status."""
        if self.ended is None:
            self.ended = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.ended


@contextmanager
def terminal(*words: str | Path) -> Iterator[Terminal]:
    opened = Terminal(*map(str, words))
    try:
        yield opened
    finally:
        if opened.ended is None:
            with suppress(ProcessLookupError):
                os.kill(opened.pid, signal.SIGKILL)
            opened.wait()
        os.close(opened.master)


LFLAGS = 3


@pytest.mark.parametrize("how", ["exit", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "crash", "no kernel"])
def test_terminal_is_restored(image: Path, look: Callable[[str], str], how: str) -> None:
    kernel = look("echo up; read -r line; " + ("kill -SEGV $$" if how == "crash" else "exit 4"))
    if how == "no kernel":
        Path(kernel).write_text("not a program")
    # The stty of the shell shows the modes before and after, the sleep gives us time to look.
    script = f"stty -a >{image}.before; {NABLA_RUN} --kernel {kernel} {image}; s=$?; stty -a >{image}.after; exit $s"
    with terminal("/bin/sh", "-c", script) as shell:
        if how != "no kernel":
            shell.read_until(b"up")
            assert not int(str(shell.modes()[LFLAGS])) & (termios.ECHO | termios.ICANON | termios.ISIG)
            if how.startswith("SIG"):
                launcher = int(Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split()[0])
                # A hangup must not reach the shell, it would write nothing then.
                os.kill(launcher, signal.Signals[how])
            else:
                os.write(shell.master, b"go\n")
        status = shell.wait()
    wanted = {"exit": 4, "crash": 128 + signal.SIGSEGV, "no kernel": OWN_ERROR}
    assert status == (wanted[how] if how in wanted else 128 + signal.Signals[how])
    assert Path(f"{image}.before").read_text() == Path(f"{image}.after").read_text()


def test_keys_go_to_the_guest(image: Path, look: Callable[[str], str]) -> None:
    """^C, ^Z, ^\\ and ^S are bytes for the guest, not signals for us."""
    kernel = look("echo up; head -c 4 | od -An -tx1; exit 5")
    with terminal(NABLA_RUN, "--kernel", kernel, image) as vm:
        vm.read_until(b"up")
        os.write(vm.master, b"\x03\x1a\x1c\x13")
        assert b"03 1a 1c 13" in vm.read_until(b"13")
        assert vm.wait() == 5


def test_window_size_signal_is_passed_on(image: Path, look: Callable[[str], str]) -> None:
    kernel = look("trap 'echo resized; exit 6' WINCH; echo up; while :; do sleep 0.1; done")
    with subprocess.Popen(
        [NABLA_RUN, "--kernel", kernel, image], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGWINCH)
        assert process.stdout.readline() == b"resized\n"
        assert process.wait(timeout=10) == 6


def test_nonblocking_input_is_undone(image: Path, look: Callable[[str], str]) -> None:
    """What the VM does to an open file that it shares with the user's shell is undone."""
    changer = "import fcntl, os; fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_NONBLOCK)"
    kernel = look(f"python3 -c '{changer}'")
    reader, writer = os.pipe()
    try:
        assert launch("--kernel", kernel, image, stdin=reader, env={"PATH": os.environ["PATH"]}).returncode in (0, 127)
        assert os.get_blocking(reader)
    finally:
        os.close(reader)
        os.close(writer)


def test_stop_and_continue(image: Path, look: Callable[[str], str]) -> None:
    """kill -TSTP: we stop, the VM stops, the terminal is usable; SIGCONT brings all of it back."""
    kernel = look("echo up; read -r line; exit 8")
    shell = pexpect.spawn("/bin/bash", ["--norc", "--noediting"], encoding="utf-8", timeout=10, env={"PS1": "ready> "})
    shell.expect_exact("ready> ")
    shell.sendline(f"{NABLA_RUN} --kernel {kernel} {image}")
    shell.expect_exact("up")
    pid = int(shell.pid or 0)
    launcher = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    os.kill(launcher, signal.SIGTSTP)
    shell.expect_exact("ready> ")
    shell.sendline("stty -a | grep -o '[-]*icanon'; fg")
    shell.expect_exact("\nicanon")
    time.sleep(0.3)
    assert not termios.tcgetattr(shell.child_fd)[LFLAGS] & termios.ICANON
    shell.send("go\n")
    shell.expect_exact("ready> ")
    shell.sendline("echo status $?")
    shell.expect_exact("status 8")
    shell.close(force=True)
