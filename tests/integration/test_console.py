# SPDX-License-Identifier: Apache-2.0
"""The VM on a terminal: prompt, ^C, ^Z, ^D, job control, window size, and the host's terminal afterwards."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

from .vm import Vm, status_of

PROMPT = "# "
if TYPE_CHECKING:
    Console = pexpect.spawn[str]


@pytest.fixture
def shell(alpine: Vm) -> Iterator[Console]:
    """An interactive shell at its prompt."""
    with alpine.interactive() as console:
        console.expect_exact(PROMPT)
        yield console


def ask(console: Console, command: str) -> list[str]:
    """Type a command, wait for the next prompt, return the lines between."""
    console.sendline(command)
    console.expect_exact(command)
    console.expect_exact("\n")
    console.expect_exact(PROMPT)
    lines = _text(console).replace("\r", "").split("\n")
    return [line for line in lines[:-1] if line]


def start(console: Console, script: str, *, first: str = ":") -> None:
    """Start a job in the foreground and wait until it runs: its shell prints a line, after the command `first`."""
    console.sendline(f"/bin/sh -c '{first}; echo job $((1)) runs; {script}'")
    console.expect_exact("job 1 runs")


def test_prompt_and_exit(shell: Console) -> None:
    assert ask(shell, "echo hello $((6*7))") == ["hello 42"]
    assert ask(shell, "tty") == ["/dev/console"]
    shell.sendline("exit 41")
    assert status_of(shell) == 41


def test_end_of_file_ends_the_shell(shell: Console) -> None:
    shell.sendcontrol("d")
    assert status_of(shell) == 0


def test_interrupt_a_sleeping_job(shell: Console) -> None:
    start(shell, "exec sleep 1000")
    shell.sendcontrol("c")
    shell.expect_exact(PROMPT)
    assert ask(shell, "echo status $?") == ["status 130"]


@pytest.mark.parametrize("spinning", ["while true; do :; done", "exec /usr/lib/nabla-tests/preempt spin"])
def test_interrupt_a_spinning_job(testing: Vm, spinning: str) -> None:
    """A loop in a shell, and a program that makes no system call."""
    with testing.interactive() as console:
        console.expect_exact(PROMPT)
        start(console, spinning)
        console.sendcontrol("c")
        console.expect_exact(PROMPT)
        assert ask(console, "echo status $?") == ["status 130"]


def test_interrupt_a_loop_of_the_shell_itself(shell: Console) -> None:
    shell.sendline("while true; do [ $((i++)) -gt 0 ] || echo loop $((1)) runs; done")
    shell.expect_exact("loop 1 runs")
    shell.sendcontrol("c")
    shell.expect_exact(PROMPT)
    assert ask(shell, "echo alive") == ["alive"]


def test_interrupt_a_pipeline(shell: Console) -> None:
    start(shell, "yes | cat >/dev/null")
    shell.sendcontrol("c")
    shell.expect_exact(PROMPT)
    assert ask(shell, "ps | grep -c '[y]es$'")[-1:] == ["0"]


def test_interrupt_at_the_prompt(shell: Console) -> None:
    shell.send("half a line")
    shell.sendcontrol("c")
    shell.expect_exact(PROMPT)
    assert ask(shell, "echo next") == ["next"]


def test_job_control(shell: Console) -> None:
    start(shell, "while :; do sleep 0.1; done", first='trap "echo continued" CONT')
    shell.sendcontrol("z")
    shell.expect_exact(PROMPT)
    assert any("Stopped" in line for line in ask(shell, "jobs"))
    shell.sendline("fg")
    shell.expect_exact("\ncontinued")
    shell.sendcontrol("c")
    shell.expect_exact(PROMPT)
    ask(shell, "sleep 1000 &")
    assert any("sleep" in line for line in ask(shell, "jobs"))
    ask(shell, "kill %1")
    assert "done" in ask(shell, "echo done")


def test_quit_character(shell: Console) -> None:
    # No shell in between: ash ignores SIGQUIT until its exec.
    shell.sendline("echo job $((1)) runs >/tmp/log; tail -f /tmp/log")
    shell.expect_exact("job 1 runs")
    shell.sendcontrol("\\")
    shell.expect_exact(PROMPT)
    assert ask(shell, "echo status $?") == ["status 131"]


def test_line_editing(shell: Console) -> None:
    shell.send("echo wrong\b\x7f\x7f\x7f\x7fright\n")
    shell.expect_exact("\nright")


def test_window_size(alpine: Vm) -> None:
    with alpine.interactive(size=(41, 123)) as console:
        console.expect_exact(PROMPT)
        assert ask(console, "stty size") == ["41 123"]
        console.setwinsize(33, 99)
        # The change reaches the guest as a signal, perhaps after the first keys.
        deadline = time.monotonic() + 20
        while (size := ask(console, "stty size")) != ["33 99"] and time.monotonic() < deadline:
            pass
        assert size == ["33 99"]


def test_window_change_reaches_programs(alpine: Vm) -> None:
    with alpine.interactive(
        "/bin/sh", "-c", "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 1; done"
    ) as c:
        c.expect_exact("ready")
        c.setwinsize(20, 60)
        c.expect_exact("20 60")
        assert status_of(c) == 3


def test_host_terminal_is_raw_while_the_vm_runs(shell: Console) -> None:
    assert not termios.tcgetattr(shell.child_fd)[3] & termios.ECHO


@pytest.mark.parametrize("end", ["exit", "launcher ended", "machine killed"])
def test_host_terminal_is_restored(alpine: Vm, end: str) -> None:
    """The shell that started nabla-run finds the terminal modes unchanged."""
    words = shlex.join(map(str, alpine.argv("/bin/sh", "-c", "echo up; sleep 1000" if end != "exit" else "echo up")))
    shell = pexpect.spawn("/bin/sh", ["-c", f"stty -a; {words}; stty -a"], encoding="utf-8", timeout=20)
    shell.expect_exact("up\r\n")
    before = _text(shell)
    if end != "exit":
        launcher = _children(int(shell.pid or 0))[0]
        if end == "launcher ended":
            os.kill(launcher, signal.SIGTERM)
        else:
            os.kill(_children(launcher)[0], signal.SIGKILL)
    shell.expect(pexpect.EOF)
    after = _text(shell)
    after = after[after.index("speed") :]
    shell.close()
    assert _modes(after) == _modes(before)
    assert "echo" in _modes(after)


def _text(console: Console) -> str:
    """Return the output before the last match."""
    return console.before or ""


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _modes(text: str) -> list[str]:
    return text.replace(";", " ").split()


def test_much_input(alpine: Vm) -> None:
    """A paste of many lines arrives complete, in order."""
    with alpine.interactive() as console:
        console.expect_exact(PROMPT)
        ask(console, "stty -echo")
        console.sendline('while read -r line; do [ "$line" = end ] && break; echo $line; done | md5sum')
        lines = [f"line number {n} of the paste" for n in range(200)]
        console.delaybeforesend = None  # all at once, faster than the shell reads
        console.send("".join(f"{line}\n" for line in [*lines, "end"]))
        console.expect_exact(hashlib.md5("".join(f"{line}\n" for line in lines).encode()).hexdigest())
