# SPDX-License-Identifier: Apache-2.0
"""nabla-run on a terminal: raw while the VM runs, restored afterwards; window size, stop and continue."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import struct
import subprocess
import termios
import time
from contextlib import suppress
from pathlib import Path

import pexpect
import pytest

from .launcher import OWN_ERROR, Launcher, child_of, launch, terminal
from .vm import Vm

LFLAGS = 3
WINCH = int(signal.SIGWINCH)
SEGV = int(signal.SIGSEGV)


def set_window(descriptor: int, rows: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


@pytest.mark.parametrize("how", ["exit", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "crash", "timeout", "no kernel"])
def test_terminal_is_restored(launcher: Launcher, tmp_path: Path, how: str) -> None:
    words = launcher.words(f"say=up line kill={SEGV}" if how == "crash" else "say=up line exit=4")
    if how == "timeout":
        words[1:1] = ["--timeout", "1"]
    if how == "no kernel":
        not_one = tmp_path / "text"
        not_one.write_text("not a program")
        not_one.chmod(0o755)
        words[2] = str(not_one)
    before, after = tmp_path / "before", tmp_path / "after"
    script = f"stty -a >{before}; {' '.join(words)}; s=$?; stty -a >{after}; exit $s"
    with terminal("/bin/sh", "-c", script) as shell:
        if how != "no kernel":
            shell.read_until(b"up")
            assert shell.is_raw()
            if how.startswith("SIG"):
                # A hangup must not reach the shell, which would then write nothing.
                os.kill(child_of(shell.pid), signal.Signals[how])
            elif how != "timeout":
                os.write(shell.master, b"go\n")
        status = shell.wait()
    wanted = {"exit": 4, "crash": 128 + SEGV, "timeout": 124, "no kernel": OWN_ERROR}
    assert status == (wanted[how] if how in wanted else 128 + signal.Signals[how])
    assert before.read_text() == after.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH])
def test_terminal_is_restored_at_any_moment(minimal: Vm, tmp_path: Path, number: signal.Signals) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    words = shlex.join(minimal.argv("/bin/usleep", "100000"))
    statuses = set()
    for step in (*range(20), 50, 100, 105):
        with terminal("/bin/sh", "-c", f"stty -a >{before}; {words}; s=$?; stty -a >{after}; exit $s") as shell:
            nabla_run = _wait_for_child(shell.pid, "nabla-run")
            time.sleep(step * 0.001)
            with suppress(ProcessLookupError):  # it has ended
                os.kill(nabla_run, number)
            statuses.add(shell.wait())
        assert before.read_text() == after.read_text()
        after.unlink()
    assert statuses <= {0, 128 + number}
    assert 0 in statuses if number == signal.SIGWINCH else 128 + number in statuses


def _wait_for_child(pid: int, name: str) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == name:
                    return int(child)
    raise AssertionError(f"{name} was not started")


def test_messages_on_a_raw_terminal_begin_at_the_left(launcher: Launcher) -> None:
    """The terminal is restored by then."""
    with terminal(*launcher.words("say=up stay", "--timeout", "0.2")) as vm:
        vm.read_until(b"up")
        assert b"\nnabla-run: the VM was stopped" in b"\n" + vm.read_until(b"(--timeout)\r\n")


def test_keys_go_to_the_guest(launcher: Launcher) -> None:
    r"""^C, ^Z, ^\ and ^S are bytes for the guest, not signals for nabla-run."""
    with terminal(*launcher.words("say=up keys=4 exit=5")) as vm:
        vm.read_until(b"up")
        os.write(vm.master, b"\x03\x1a\x1c\x13")
        assert b"03 1a 1c 13" in vm.read_until(b"13")
        assert vm.wait() == 5


def test_window_size_is_on_the_page(launcher: Launcher) -> None:
    """At the start, and after each change."""
    # The host signals a change to nabla-run and to the VM; the VM may react first, with the old size in the page.
    words = launcher.words(f"window await={WINCH} nap=1000 window exit=6")
    with terminal("/bin/sh", "-c", "read x; exec " + " ".join(words)) as vm:
        set_window(vm.master, 33, 101)
        os.write(vm.master, b"go\n")
        vm.read_until(b"window 33 101 flags 1")
        vm.read_until(b"waiting")
        set_window(vm.master, 44, 55)  # the host sends SIGWINCH to nabla-run, and that to the VM
        vm.read_until(b"window 44 55 flags 1")
        assert vm.wait() == 6


def test_no_window_without_a_terminal(launcher: Launcher) -> None:
    assert launcher.run("window").stdout == "window 0 0 flags 0\n"


def test_window_size_signal_is_passed_on(launcher: Launcher) -> None:
    with launcher.running(f"await={WINCH} say=resized exit=6") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGWINCH)
        assert process.stdout.readline() == b"resized\n"
        assert process.wait(timeout=10) == 6


def test_nonblocking_input_is_undone(minimal: Vm) -> None:
    """Changes that the VM makes to an open file shared with the user's shell are undone."""
    changer = "import fcntl, os, sys; fcntl.fcntl(0, fcntl.F_SETFL, os.O_NONBLOCK); "
    reader, writer = os.pipe()
    try:
        # Another process that shares the open file makes it non-blocking while nabla-run runs.
        words = minimal.argv("/bin/sh", "-c", "echo up; read line")
        with subprocess.Popen(words, stdin=reader, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            subprocess.run(["python3", "-c", changer], stdin=reader, check=True)
            assert not os.get_blocking(reader)
            os.write(writer, b"\n")
            assert process.wait(timeout=20) == 0
        assert os.get_blocking(reader)
    finally:
        os.close(reader)
        os.close(writer)


def test_no_terminal_at_all(launcher: Launcher) -> None:
    """In a session without a terminal."""
    assert launch(*launcher.words("exit=3")[1:], start_new_session=True).returncode == 3


def test_stop_and_continue(launcher: Launcher) -> None:
    """kill -TSTP: nabla-run stops, the VM stops, the terminal is usable; SIGCONT continues both."""
    shell = pexpect.spawn("/bin/bash", ["--norc", "--noediting"], encoding="utf-8", timeout=10, env={"PS1": "ready> "})
    shell.expect_exact("ready> ")
    shell.sendline(" ".join(launcher.words("say=started line exit=8")))
    shell.expect_exact("started\n")
    nabla_run = child_of(int(shell.pid or 0))
    os.kill(nabla_run, signal.SIGTSTP)
    shell.expect_exact("ready> ")
    deadline = time.monotonic() + 10  # a busy host may stop it later
    while Path(f"/proc/{child_of(nabla_run)}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    shell.sendline("stty -a | grep -o '[-]*icanon'; fg")
    shell.expect_exact("\nicanon")
    deadline = time.monotonic() + 10
    while termios.tcgetattr(shell.child_fd)[LFLAGS] & termios.ICANON:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    shell.send("go\n")
    shell.expect_exact("ready> ")
    shell.sendline("echo status $?")
    shell.expect_exact("status 8")
    shell.close(force=True)


def test_told_to_end_while_it_is_stopped(launcher: Launcher) -> None:
    with launcher.running("stay") as process:
        process.send_signal(signal.SIGTSTP)
        deadline = time.monotonic() + 10
        while Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=10) == 128 + signal.SIGTERM
