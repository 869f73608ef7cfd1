# SPDX-License-Identifier: Apache-2.0
"""nabla-oci exec: programs in running containers, and the processes that engines wait for."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from .bundles import Bundle, console, eventually, wait
from .test_oci_runtime import bundle, tree
from .vm import status_of

__all__ = ["bundle", "tree"]

OWN_DESCRIPTORS = {0, 1, 2, 3, 4}


@pytest.fixture
def running(bundle: Bundle) -> Iterator[Bundle]:
    """A container that waits."""
    bundle.shell("echo up; exec sleep 1000")
    bundle.create()
    bundle.check("start", "c1")
    yield bundle
    bundle.call("delete", "--force", "c1")


def spec(bundle: Bundle, *args: str, **changes: Any) -> Path:
    """Write the file of --process, as engines do: the container's own process with changes."""
    path = bundle.folder / "process.json"
    path.write_text(json.dumps(bundle.process | {"args": args} | changes))
    return path


def detach(bundle: Bundle, *words: str | Path, stdin: int = subprocess.DEVNULL, output: Path | None = None) -> int:
    """Run a program with --detach; return the process to wait for."""
    pid_file = bundle.folder / "exec.pid"
    with (output or bundle.folder / "exec.output").open("wb") as out:
        command = bundle.words("exec", "--detach", "--pid-file", pid_file, *words)
        subprocess.run(command, stdin=stdin, stdout=out, stderr=out, check=True, timeout=60)
    return int(pid_file.read_text())


def test_output_and_status(running: Bundle) -> None:
    result = running.call("exec", "c1", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (result.returncode, result.stdout, result.stderr) == (42, "out\n", "err\n")
    assert running.call("exec", "c1", "sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL
    assert running.state()["status"] == "running"


def test_it_is_in_the_container(running: Bundle) -> None:
    """The same files and processes, without those of the agent's machinery."""
    running.check("exec", "c1", "sh", "-c", "echo there >/written")
    assert (running.folder / "rootfs" / "written").read_text() == "there\n"
    names = running.check("exec", "c1", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "sleep 1000" in names


def test_right_after_start(bundle: Bundle) -> None:
    """The VM may not run yet: exec waits for it."""
    for _ in range(5):
        bundle.shell("sleep 1000")
        pid = bundle.create()
        bundle.check("start", "c1")
        assert bundle.check("exec", "c1", "echo", "early") == "early\n"
        bundle.check("delete", "--force", "c1")
        wait(pid)


def test_input(running: Bundle) -> None:
    data = os.urandom(700_000)
    words = running.words("exec", "c1", "cat")
    result = subprocess.run(words, input=data, capture_output=True, timeout=60, check=True)
    assert result.stdout == data


def test_settings_of_the_container(bundle: Bundle) -> None:
    """By default a program is like the container's own; options change that."""
    bundle.process.update(cwd="/usr", user={"uid": 7, "gid": 8, "additionalGids": [9]})
    bundle.process["env"].append("OWN=1")
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]
    bundle.process["capabilities"] = {key: ["CAP_CHOWN"] for key in ("bounding", "effective", "permitted")}
    bundle.shell("sleep 1000")
    bundle.create()
    bundle.check("start", "c1")
    script = "pwd; id -u; id -g; id -G; ulimit -n; echo $OWN-$NEW; grep CapBnd /proc/self/status"
    plain = bundle.check("exec", "c1", "sh", "-c", script).splitlines()
    assert plain == ["/usr", "7", "8", "8 9", "77", "1-", "CapBnd:\t0000000000000001"]
    options = ("--cwd=/tmp", "--env", "NEW=2", "-e", "OWN=3", "--user", "5:6", "-g", "4", "--cap", "CAP_KILL")
    changed = bundle.check("exec", *options, "c1", "sh", "-c", script).splitlines()
    assert changed == ["/tmp", "5", "6", "6 4 9", "77", "3-2", "CapBnd:\t0000000000000021"]
    status = bundle.check("exec", "--no-new-privs", "c1", "grep", "NoNewPrivs", "/proc/self/status")
    assert status.split() == ["NoNewPrivs:", "1"]


def test_the_file_of_an_engine(running: Bundle) -> None:
    changes = {"cwd": "/tmp", "env": ["PATH=/usr/bin:/bin", "A=b c"], "user": {"uid": 3, "gid": 4, "umask": 0o77}}
    path = spec(running, "sh", "-c", "pwd; echo $A $HOME; id -u; umask", **changes)
    assert running.check("exec", "--process", path, "c1").splitlines() == ["/tmp", "b c /", "3", "0077"]


def test_the_process_of_an_engine(running: Bundle) -> None:
    """--detach: it is there when the call ends, takes signals for the program, and has its exit status."""
    output = running.folder / "out"
    pid = detach(
        running, "c1", "sh", "-c", "trap 'echo got; exit 5' USR1; echo up; while :; do sleep 0.05; done", output=output
    )
    eventually(lambda: output.read_text() == "up\n")
    os.kill(pid, signal.SIGUSR1)
    assert wait(pid) == 5
    assert output.read_text() == "up\ngot\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGWINCH, signal.SIGRTMIN + 3, 64])
def test_every_signal_is_passed_on(running: Bundle, number: int) -> None:
    output = running.folder / "out"
    script = f"trap 'echo got; exit 3' {int(number)}; echo up; while :; do sleep 0.05; done"
    pid = detach(running, "c1", "sh", "-c", script, output=output)
    eventually(lambda: "up\n" in output.read_text())
    os.kill(pid, number)
    assert wait(pid) == 3


def test_the_process_is_killed(running: Bundle) -> None:
    """The program dies with it, even if it ignores signals."""
    output = running.folder / "out"
    script = "trap '' HUP TERM INT; echo up; while :; do sleep 0.05; done"
    pid = detach(running, "c1", "sh", "-c", script, "name", output=output)
    eventually(lambda: "up\n" in output.read_text())
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    eventually(
        lambda: (
            "while" not in running.check("exec", "c1", "sh", "-c", "cat /proc/[!s]*/cmdline 2>/dev/null | tr '\\0' ' '")
        )
    )


def test_the_process_has_nothing_but_streams(running: Bundle) -> None:
    """It is alone in its session, with no capability, no way to open anything, and no descriptor of the engine."""
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    pid_file = running.folder / "exec.pid"
    words = running.words("exec", "-d", "--pid-file", pid_file, "c1", "cat")
    stdin, keep = os.pipe()
    with (running.folder / "out").open("wb") as out:
        subprocess.run(words, stdin=stdin, stdout=out, stderr=out, check=True, pass_fds=(reading,), timeout=60)
    os.close(stdin)
    pid = int(pid_file.read_text())
    assert os.getsid(pid) == pid
    assert {int(name) for name in os.listdir(f"/proc/{pid}/fd")} == OWN_DESCRIPTORS
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    os.close(keep)
    assert wait(pid) == 0
    os.close(reading)
    os.close(writing)


def test_a_terminal(running: Bundle, tmp_path: Path) -> None:
    """The engine has the master; its size follows, and keys are those of the guest's terminal."""
    script = "stty size; trap 'stty size' WINCH; tty; while :; do read line && echo got $line; done"
    path = spec(running, "sh", "-c", script, terminal=True, consoleSize={"height": 30, "width": 90})
    with console(tmp_path / "socket") as receive:
        pid = detach(running, "--process", path, "--console-socket", tmp_path / "socket", "c1")
        master = receive()
    shown = b""

    def until(text: bytes) -> None:
        nonlocal shown
        while text not in shown:
            shown += os.read(master, 1024)
        shown = shown.partition(text)[2]

    until(b"30 90\r\n")
    until(b"/dev/pts/")
    os.write(master, b"hello\r")
    until(b"got hello\r\n")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    os.write(master, b"\r")
    until(b"40 100\r\n")
    os.write(master, b"\x03")
    assert wait(pid) == 128 + signal.SIGINT
    os.close(master)


def test_a_terminal_that_hangs_up(running: Bundle, tmp_path: Path) -> None:
    path = spec(running, "sh", "-c", "tty; sleep 1000", terminal=True)
    with console(tmp_path / "socket") as receive:
        pid = detach(running, "--process", path, "--console-socket", tmp_path / "socket", "c1")
        master = receive()
    while b"/dev/pts" not in os.read(master, 1024):
        pass
    os.close(master)
    assert wait(pid) == 128 + signal.SIGHUP


def test_the_terminal_of_the_caller(running: Bundle) -> None:
    words = running.words("exec", "--tty", "c1", "sh")
    terminal = pexpect.spawn(words[0], words[1:], encoding="utf-8", timeout=60, dimensions=(33, 99))
    terminal.expect_exact("# ")
    terminal.sendline("stty size")
    terminal.expect_exact("33 99")
    terminal.expect_exact("# ")
    terminal.sendline("exit 5")
    assert status_of(terminal) == 5


def test_a_reader_that_goes(running: Bundle) -> None:
    """As in a pipeline of the host: the program ends, and so does the call."""
    words = running.words("exec", "c1", "yes")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait(timeout=60) == 128 + signal.SIGPIPE
    eventually(lambda: "yes" not in running.check("exec", "c1", "sh", "-c", "cat /proc/[!s]*/comm 2>/dev/null"))


def test_a_reader_that_does_not_read(running: Bundle) -> None:
    """It holds up nobody else, and the process still takes signals."""
    reading, writing = os.pipe()
    pid_file = running.folder / "exec.pid"
    words = running.words("exec", "-d", "--pid-file", pid_file, "c1", "yes")
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, check=True, timeout=60)
    os.close(writing)
    for _ in range(3):
        assert running.check("exec", "c1", "echo", "on") == "on\n"
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGTERM)
    while os.read(reading, 1 << 16):
        pass
    assert wait(pid) == 128 + signal.SIGTERM
    os.close(reading)


def test_the_container_ends(running: Bundle) -> None:
    """Its other programs end with it, by SIGKILL as in any container."""
    pids = [detach(running, "c1", "sleep", "1000") for _ in range(3)]
    running.check("kill", "c1", "KILL")
    assert [wait(pid) for pid in pids] == [128 + signal.SIGKILL] * 3
    running.refused("container c1 is stopped; only a running one can run programs", "exec", "c1", "true")


def test_many_at_once(running: Bundle) -> None:
    """A VM has 32 sessions; one more is refused, and then goes when another one has ended."""
    inputs = os.pipe()
    pids = [detach(running, "c1", "cat", stdin=inputs[0]) for _ in range(32)]
    running.refused("it has as many sessions as a VM can have", "exec", "c1", "true")
    os.close(inputs[0])
    os.close(inputs[1])
    assert [wait(pid) for pid in pids] == [0] * 32
    assert running.check("exec", "c1", "echo", "again") == "again\n"


def test_what_cannot_be_run(running: Bundle) -> None:
    """Each is one line; engines look for these texts."""
    running.refused("cannot run nothing in container c1: No such file or directory", "exec", "c1", "nothing")
    running.refused("cannot run /etc/passwd in container c1: Permission denied", "exec", "c1", "/etc/passwd")
    running.refused(
        "cannot run true in container c1: cwd: Not a directory", "exec", "--cwd", "/etc/passwd", "c1", "true"
    )
    limit = [{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}]
    running.refused("c1: rlimits: ", "exec", "--process", spec(running, "true", rlimits=limit), "c1")
    long = spec(running, "true", "x" * 70_000)
    running.refused("arguments and environment of true are longer than 64 KB", "exec", "--process", long, "c1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "exec: the container ID is missing"),
        (("c1",), "exec: the command is missing"),
        (("--nothing", "c1", "true"), "unknown option '--nothing'"),
        (("--cwd", "tmp", "c1", "true"), "process.cwd: 'tmp' is not an absolute path"),
        (("--env", "A", "c1", "true"), "is not a variable"),
        (("--user", "root", "c1", "true"), "'root' is not a number of a user"),
        (("--user", "1:", "c1", "true"), "'' is not a number of a user"),
        (("--preserve-fds", "2", "c1", "true"), "a VM has no descriptors of the host"),
        (("--console-socket", "/x", "c1", "true"), "the terminal is that of the caller"),
        (("--detach", "--tty", "c1", "true"), "no socket receives the terminal"),
        (("--tty", "c1", "true"), "standard input is no terminal"),
        (("--process", "/nowhere", "c1"), "--process /nowhere: No such file or directory"),
        (("--process", "/x", "c1", "true"), "--process and the command true"),
        (("nobody", "true"), "container nobody does not exist"),
    ],
)
def test_wrong_calls(running: Bundle, words: tuple[str, ...], message: str) -> None:
    running.refused(message, "exec", *words)


def test_before_start_and_while_paused(bundle: Bundle) -> None:
    bundle.shell("sleep 1000")
    bundle.create()
    bundle.refused("container c1 is created; only a running one can run programs", "exec", "c1", "true")
    bundle.check("start", "c1")
    bundle.check("exec", "c1", "true")
    bundle.check("pause", "c1")
    bundle.refused("container c1 is paused and runs nothing", "exec", "c1", "true")
    bundle.check("resume", "c1")
    bundle.check("exec", "c1", "true")


def test_nothing_is_left(running: Bundle) -> None:
    running.check("exec", "c1", "true")
    running.check("delete", "--force", "c1")
    assert list(running.state_folder.iterdir()) == []


def test_process_one_keeps_nothing(running: Bundle) -> None:
    """Many programs leave nothing behind in process 1 of the guest."""
    script = "ls /proc/1/fd | wc -l"
    before = running.check("exec", "c1", "sh", "-c", script)
    for _ in range(40):
        running.check("exec", "c1", "true")
        running.call("exec", "c1", "nothing")
    assert running.check("exec", "c1", "sh", "-c", script) == before
