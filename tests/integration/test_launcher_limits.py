# SPDX-License-Identifier: Apache-2.0
"""Limits of nabla-run: size of the output, memory of copy-on-write disks, processor time, priority."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from .launcher import OWN_ERROR, TIMED_OUT, Launcher, child_of, launch, terminal
from .networked import until
from .vm import Vm

CPU_TIME = 128 + signal.SIGXCPU
MAX_OUTPUT = 128 + signal.SIGXFSZ
KILLED = 128 + signal.SIGKILL
MIB = 1 << 20


def shown(image: Path, *options: str) -> dict[str, str]:
    """Return the lines of --dry-run."""
    result = launch("--dry-run", *options, image)
    assert result.returncode == 0, result.stderr
    return dict(line.split(": ", 1) for line in result.stdout.splitlines())


def test_defaults(image: Path) -> None:
    """There is no limit; a jail has those for untrusted code, which options replace."""
    keys = ("limit RLIMIT_CPU", "nice", "output", "copy-on-write memory")

    def values(*options: str) -> list[str]:
        lines = shown(image, *options)
        return [lines[key] for key in keys]

    assert values() == ["unlimited", "0", "unlimited", "unlimited"]
    assert values("--jail") == ["3602", "5", str(256 * MIB), str(1024 * MIB)]
    none = ("--cpu-time", "none", "--nice", "0", "--max-output", "none", "--max-cow", "none")
    assert values("--jail", *none) == values()
    given = ("--cpu-time", "7", "--nice", "19", "--max-output", "5K", "--max-cow", "0")
    assert values(*given) == values("--jail", *given) == ["9", "19", "5120", "0"]


# Output


def test_output_up_to_the_limit(launcher: Launcher) -> None:
    """Every byte arrives, and the exit status is the command's."""
    result = launcher.run("out=60000 err=40000 exit=9", "--max-output", "100000")
    assert (result.returncode, len(result.stdout), len(result.stderr)) == (9, 60000, 40000)
    assert launcher.run("exit=9", "--max-output", "0").returncode == 9


@pytest.mark.parametrize("limit", [0, 1, 4096, 100_000, 5 * MIB])
def test_output_beyond_the_limit(launcher: Launcher, limit: int, tmp_path: Path) -> None:
    """To a pipe, a file and a socket: exactly the limit arrives."""
    options = ("--max-output", str(limit))
    result = launcher.run("out", *options)
    assert result.returncode == MAX_OUTPUT
    assert result.stdout == "x" * limit
    assert result.stderr == f"nabla-run: the VM was killed because it wrote more than {limit} bytes (--max-output)\n"

    with (tmp_path / "log").open("wb") as log:
        result = launcher.run("out", *options, capture_output=False, stdout=log, stderr=subprocess.PIPE)
    assert result.returncode == MAX_OUTPUT
    assert (tmp_path / "log").read_bytes() == b"x" * limit

    ours, theirs = socket.socketpair()
    words = launcher.words("out", *options)
    with ours, subprocess.Popen(words, stdout=theirs.fileno(), stderr=subprocess.PIPE) as process:
        theirs.close()
        received = 0
        while data := ours.recv(MIB):
            received += len(data)
        assert process.wait(timeout=30) == MAX_OUTPUT
    assert received == limit


def test_limit_is_for_both_streams_together(launcher: Launcher) -> None:
    result = launcher.run("err=70000 out", "--max-output", "100000")
    assert result.returncode == MAX_OUTPUT
    assert result.stdout.count("x") + result.stderr.split("nabla-run: ")[0].count("x") == 100_000


def test_one_byte_too_many_at_the_end(launcher: Launcher) -> None:
    """The VM may have ended before nabla-run reads the byte."""
    result = launcher.run("out=1001", "--max-output", "1000")
    assert (result.returncode, len(result.stdout)) == (MAX_OUTPUT, 1000)


def test_streams_keep_their_order_in_one_file(launcher: Launcher, tmp_path: Path) -> None:
    words = "say=1 err=1 say=2 err=1 say=3 err=1"
    path = tmp_path / "log"
    for mode in ("w", "a"):
        with path.open(mode) as log:
            launcher.run(words, "--max-output", "1M", capture_output=False, stdout=log, stderr=subprocess.STDOUT)
    assert path.read_text() == "1\nx2\nx3\nx" * 2


def test_limit_of_file_size_is_that_of_the_disks(launcher: Launcher, tmp_path: Path) -> None:
    """Even if the output is a file: the VM has only a pipe."""
    with (tmp_path / "log").open("w") as log:
        words = ("--dry-run", "--max-output", "1M")
        launcher.run("exit=0", *words, capture_output=False, stdout=log)
    assert f"limit RLIMIT_FSIZE: {launcher.image.stat().st_size}\n" in (tmp_path / "log").read_text()


def test_reader_that_goes_away(launcher: Launcher) -> None:
    """The VM sees a closed pipe, as without the option."""
    with subprocess.Popen(launcher.words("out", "--max-output", "100M"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(timeout=20) in (88, 128 + signal.SIGPIPE)


def test_reader_that_is_stuck(launcher: Launcher) -> None:
    """nabla-run still handles signals and --timeout."""
    with subprocess.Popen(
        launcher.words("out", "--max-output", "100M", "--timeout", "0.3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.wait(timeout=30) == TIMED_OUT
    with subprocess.Popen(launcher.words("out", "--max-output", "100M"), stdout=subprocess.PIPE) as process:
        until(lambda: _stuck(process.pid), "the pipe is full")
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM


def _stuck(launcher: int) -> bool | None:
    """True once the VM waits because its pipe is full."""
    try:
        return "pipe_w" in Path(f"/proc/{child_of(launcher)}/wchan").read_text() or None
    except ValueError:
        return None  # it has not started yet


def test_file_that_cannot_be_written(launcher: Launcher) -> None:
    with Path("/dev/full").open("w") as full, Path("/dev/null").open("w") as null:
        # Character devices are not limited: the VM writes to them itself.
        assert launcher.run("out=1", "--max-output", "5", capture_output=False, stdout=full).returncode == 88
        assert launcher.run("out=1000000", "--max-output", "5", capture_output=False, stdout=null).returncode == 0


def test_caller_limits_the_size_of_files(launcher: Launcher, tmp_path: Path) -> None:
    """nabla-run reports the error, and the VM sees a closed pipe."""
    prefix = ("prlimit", "--fsize=100000")
    with (tmp_path / "log").open("wb") as log:
        result = launch(
            *launcher.words("out=1000000", "--max-output", "5M", "--read-only")[1:],
            prefix=prefix,
            capture_output=False,
            stdout=log,
            stderr=subprocess.PIPE,
        )
    assert (tmp_path / "log").read_bytes() == b"x" * 100_000
    assert result.returncode in (88, 128 + signal.SIGPIPE)
    assert "warning: cannot write standard output: File too large" in result.stderr


def test_terminal_is_not_limited(launcher: Launcher) -> None:
    with terminal(*launcher.words("out=100 say=end", "--max-output", "5")) as vm:
        vm.read_until(b"end")
        assert vm.wait() == 0


def test_output_of_a_real_machine(minimal: Vm) -> None:
    limited = minimal.but(options=("--max-output", "300000", "--json"))
    result = limited.shell("yes")
    assert result.status == MAX_OUTPUT
    assert len(result.output) == 300_000
    assert json.loads(result.errors.splitlines()[-1])["reason"] == "max-output"
    result = limited.shell("head -c 299990 /dev/zero; exit 3")
    assert (result.status, len(result.output)) == (3, 299_990)


# Processor time


def test_processor_time(launcher: Launcher) -> None:
    for options in ((), ("--jail",)):
        result = launcher.run("burn", "--cpu-time", "0.5", "--json", *options)
        assert result.returncode == CPU_TIME, result
        message, report = result.stderr.splitlines()
        assert message == "nabla-run: the VM was killed after 0.5 seconds of processor time (--cpu-time)"
        assert (json.loads(report)["exit"], json.loads(report)["reason"]) == (CPU_TIME, "cpu-time")


def test_processor_time_of_a_guest(minimal: Vm) -> None:
    """Time asleep does not count; signals that the guest blocks or ignores do not help it."""
    limited = minimal.but(options=("--cpu-time", "0.75"))
    assert limited.shell("trap '' TERM XCPU; while :; do :; done").status == CPU_TIME
    assert limited.shell("sleep 1.5; exit 4").status == 4


def test_killed_by_others_is_another_reason(launcher: Launcher) -> None:
    result = launcher.run(f"kill={int(signal.SIGKILL)}", "--cpu-time", "1", "--json")
    assert result.returncode == KILLED
    assert json.loads(result.stderr.splitlines()[-1])["reason"] == "signal"


def test_nice(launcher: Launcher) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    for options, value in (((), own), (("--nice", "3"), own + 3), (("--nice", "19"), 19), (("--jail",), own + 5)):
        with launcher.running("stay", *options) as process:
            assert os.getpriority(os.PRIO_PROCESS, child_of(process.pid)) == min(value, 19)
            assert os.getpriority(os.PRIO_PROCESS, process.pid) == own


# Memory of copy-on-write disks


@pytest.fixture
def disk(tmp_path: Path) -> str:
    """A further disk of 256 MiB, without data."""
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 256 * MIB)
    return f"{path},cow"


@pytest.mark.parametrize("jail", [(), ("--jail",)])
def test_changes_of_a_disk(launcher: Launcher, disk: str, jail: tuple[str, ...]) -> None:
    """--memory and --max-cow together are the limit."""
    options = ("--memory", "32M", "--disk", disk, "--json", *jail)
    result = launcher.run("change=250 stay", "--max-cow", "64M", *options)
    assert result.returncode == KILLED, result
    message, report = result.stderr.splitlines()
    assert "copy-on-write disks used too much memory (--max-cow)" in message
    assert json.loads(report)["reason"] == "max-cow"
    assert launcher.run("change=80 exit=5", "--max-cow", "64M", *options).returncode == 5
    assert launcher.run("change=250 exit=5", "--max-cow", "none", *options).returncode == 5


def test_changes_by_a_guest(minimal: Vm, disk: str) -> None:
    limited = minimal.but(memory="64M", options=("--disk", disk, "--max-cow", "32M"))
    result = limited.shell("dd if=/dev/zero of=/dev/ubdb bs=1M count=200; sync; sleep 60")
    assert result.status == KILLED, result.describe()
    assert limited.shell("dd if=/dev/zero of=/dev/ubdb bs=1M count=16; sync; exit 6").status == 6


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--cpu-time", "0", "is not a time"),
        ("--cpu-time", "None", "is not a time"),
        ("--cpu-time", "9" * 30, "is not a time"),
        ("--nice", "-1", "is not a nice value"),
        ("--nice", "20", "is not a nice value"),
        ("--nice", "", "is not a nice value"),
        ("--max-output", "", "is not a size"),
        ("--max-output", "1T", "is not a size"),
        ("--max-cow", "-1", "is not a size"),
        ("--max-cow", "1MB", "is not a size"),
    ],
)
def test_wrong_values(option: str, value: str, message: str) -> None:
    result = launch(option, value, "x")
    assert result.returncode == OWN_ERROR
    assert message in result.stderr
