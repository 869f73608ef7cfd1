# SPDX-License-Identifier: Apache-2.0
"""Starting, ending, and the interface between host and guest: statuses, streams, settings, errors."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .vm import Vm

OWN_ERROR = 125


def test_every_exit_status(minimal: Vm) -> None:
    """Also 256 boots in a row."""
    wrong = {code: got for code in range(256) if (got := minimal.run("/bin/sh", "-c", f"exit {code}").status) != code}
    assert not wrong


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_killed_by_signal(minimal: Vm, number: signal.Signals) -> None:
    assert minimal.run("/bin/sh", "-c", f"kill -{int(number)} $$").status == 128 + number


def test_command_that_cannot_start(minimal: Vm) -> None:
    assert minimal.run("/no/such/command").status == 127
    assert minimal.run("/etc/passwd").status == 126
    result = minimal.run("no-such-command")
    assert result.status == 127
    assert "no-such-command" in result.output + result.errors


def test_streams(minimal: Vm) -> None:
    everything = bytes(range(256)) * 4000
    finished = minimal.run_bytes("/bin/cat", stdin=everything)
    assert finished.returncode == 0
    assert finished.stdout == everything


def test_much_output(minimal: Vm) -> None:
    result = minimal.run("/bin/sh", "-c", "seq 200000")
    assert result.status == 0
    assert result.output == "".join(f"{n}\n" for n in range(1, 200001))


def test_end_of_input(minimal: Vm) -> None:
    assert minimal.run("wc", "-c", stdin=b"").output.strip() == "0"
    assert minimal.run("/bin/sh", stdin=b"echo from input\nexit 5\n").status == 5


def test_quiet_boot(minimal: Vm) -> None:
    """Without options, only the command's own output appears."""
    result = minimal.run("/bin/true")
    assert (result.status, result.output, result.errors) == (0, "", "")
    loud = minimal.but(options=("--verbose", "--cold")).run("/bin/true")
    assert loud.status == 0
    assert "Linux version 6.1.176" in loud.output + loud.errors


def test_environment(minimal: Vm) -> None:
    result = minimal.run("/bin/sh", "-c", 'echo "$COLOR|$HOME|$EMPTY|"', env={"COLOR": "deep 'blue' $x", "EMPTY": ""})
    assert result.output == "deep 'blue' $x|/root||\n"


def test_arguments(minimal: Vm) -> None:
    words = ["", "two words", "it's", '"quoted"', "$HOME", "back\\slash", "-n", "umläut", "a=b", "--"]
    script = 'for word in "$@"; do echo "<$word>"; done'
    result = minimal.run("/bin/sh", "-c", script, "sh", *words)
    assert result.lines() == [f"<{word}>" for word in words]


def test_settings(minimal: Vm) -> None:
    vm = minimal.but(options=("--workdir", "/etc", "--hostname", "somewhere"))
    assert vm.run("/bin/sh", "-c", "pwd; hostname").lines() == ["/etc", "somewhere"]


@pytest.mark.parametrize("memory", ["32M", "64M", "1G", "2G"])
def test_memory(minimal: Vm, memory: str) -> None:
    result = minimal.but(memory=memory).run("/bin/cat", "/proc/meminfo")
    assert result.status == 0, result.describe()
    total = int(result.output.split()[1])
    wanted = int(memory[:-1]) * (1024 if memory.endswith("M") else 1024 * 1024)
    assert wanted * 0.97 - 14 * 1024 < total <= wanted, "the kernel itself takes too much"


def test_file_systems(minimal: Vm) -> None:
    mounts = minimal.check("cat /proc/mounts")
    kinds = {line.split()[1]: line.split()[2] for line in mounts.splitlines()}
    assert kinds["/"].startswith("ext")
    assert (kinds["/proc"], kinds["/sys"], kinds["/dev"], kinds["/tmp"]) == ("proc", "sysfs", "devtmpfs", "tmpfs")


def test_loopback(minimal: Vm) -> None:
    assert "inet 127.0.0.1" in minimal.check("ip addr show lo || ifconfig lo").replace("inet addr:", "inet ")


def test_orphans_do_not_keep_it(minimal: Vm) -> None:
    """The VM ends with the command even if other processes still run."""
    assert minimal.run("/bin/sh", "-c", "sleep 1000 & while :; do :; done & exit 6").status == 6


def test_no_memory_left(minimal: Vm) -> None:
    """A program that requests all memory gets an error or is killed; the VM itself ends in order."""
    result = minimal.but(memory="32M").run(
        "/bin/sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1 2>&1; echo still here"
    )
    assert result.status == 0, result.describe()
    assert "still here" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "12Q"], "not a size"),
        (["--memory", "1M"], "too little"),
        (["--memory", "99999G"], "more than this host has"),
        (["--no-such-option"], "unknown option"),
        (["--env", "novalue"], "not an assignment"),
    ],
)
def test_wrong_options(minimal: Vm, words: list[str], message: str) -> None:
    result = minimal.but(options=tuple(words)).run("/bin/true")
    assert result.status == OWN_ERROR
    assert message in result.errors
    assert result.errors.count("\n") == 1


def test_wrong_images(minimal: Vm, tmp_path: Path) -> None:
    empty, noise = tmp_path / "empty", tmp_path / "noise"
    empty.touch()
    noise.write_bytes(os.urandom(65536))
    for image in (tmp_path / "missing", empty, noise):
        result = minimal.but(image=image).run("/bin/true")
        assert result.status == OWN_ERROR
        assert result.errors.count("\n") == 1
        assert str(image) in result.errors


def test_killed_launcher_leaves_nothing(minimal: Vm) -> None:
    with subprocess.Popen(minimal.argv("/bin/sleep", "1000"), stdin=subprocess.DEVNULL) as launcher:
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
        deadline = time.monotonic() + 10
        while not (machines := children.read_text().split()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert machines, "nabla-run started no machine"
        launcher.kill()
    deadline = time.monotonic() + 10
    while any(_running(int(pid)) for pid in machines) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(_running(int(pid)) for pid in machines)


def _running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_terminated_launcher(minimal: Vm) -> None:
    """SIGTERM to nabla-run ends the VM in time, and the exit status reports it."""
    words = minimal.argv("/bin/sh", "-c", "echo up; exec sleep 1000")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"up\n"
        launcher.terminate()
        status = launcher.wait(timeout=15)
    assert status in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_side_by_side(minimal: Vm) -> None:
    """VMs on the same image are independent: each sees a private copy."""
    started = [
        subprocess.Popen(
            minimal.argv("/bin/sh", "-c", f"echo {n} >/root/me; echo; read go; cat /root/me"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for n in range(6)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
    assert [process.communicate(b"\n", timeout=60)[0] for process in started] == [f"{n}\n".encode() for n in range(6)]
