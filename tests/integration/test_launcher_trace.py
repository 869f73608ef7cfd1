# SPDX-License-Identifier: Apache-2.0
"""nabla-run --trace-policy: forbidden calls are logged and permitted, where no harm is possible."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from . import confined
from .conftest import image_of
from .launcher import TIMED_OUT, Ordinary, child_of, ordinary_user, proc_status, refused, wait_until_gone

GETPID, MKDIR = 39, 83
LINE = re.compile(r"^nabla-run: forbidden: (\w+) \((\d+)\)((?: 0x[0-9a-f]+| 0){6}) at (0x[0-9a-f]+)$", re.MULTILINE)
KILLED = 128 + signal.SIGSYS


@pytest.fixture(scope="module")
def user() -> Iterator[Ordinary]:
    """An ordinary user with an image that contains the program which violates the policy."""
    with ordinary_user(image_of("test")) as ordinary:
        yield ordinary


def words(user: Ordinary, *command: str, options: tuple[str, ...] = ()) -> list[str]:
    return ["--trace-policy", "--ephemeral", *options, str(user.folder / "disk.ext3"), "--", *command]


def attempt(number: int, *arguments: str) -> list[str]:
    """A guest program's jump to a `syscall` instruction of its kernel."""
    address = confined.running_entries()[0].address
    return [confined.PROGRAM, hex(address), str(number), *arguments]


def test_call_is_logged_and_made(user: Ordinary) -> None:
    """Name, number, arguments, the address behind the instruction; and the directory was created."""
    target = user.folder / "made"
    user.folder.chmod(0o777)
    result = user.run(*words(user, *attempt(MKDIR, f"text:{target}", "448")))
    calls = LINE.findall(result.stderr)
    assert len(calls) == 1, result.stderr
    name, number, arguments, address = calls[0]
    assert (name, int(number)) == ("mkdir", MKDIR)
    assert int(arguments.split()[1], 16) == 448
    assert int(address, 16) == confined.running_entries()[0].address + 2
    assert target.is_dir()
    assert target.stat().st_uid == user.uid


def test_without_it_the_call_kills(user: Ordinary) -> None:
    result = user.run("--ephemeral", user.folder / "disk.ext3", "--", *attempt(GETPID))
    assert result.returncode == KILLED
    assert "its policy forbids (--trace-policy shows which)" in result.stderr


def test_violation_in_a_jail(user: Ordinary) -> None:
    """Process 1 of a namespace is killed as well."""
    result = user.run("--jail", "--ephemeral", user.folder / "disk.ext3", "--", *attempt(GETPID))
    assert result.returncode == KILLED, result.stderr
    assert "its policy forbids" in result.stderr


def test_a_usual_machine_breaks_nothing(user: Ordinary) -> None:
    """It works as usual; the only message is that there is no boundary."""
    thread = "import threading; threading.Thread(target=print, args=(5,)).start()"
    script = f"echo out; python3 -c '{thread}'; sleep 0.1; exit 3"
    result = user.run(*words(user, "/bin/sh", "-c", script))
    assert result.returncode == 3, result.stderr
    assert result.stdout == "out\n5\n"
    assert result.stderr.count("\n") == 1
    assert "WARNING: --trace-policy: the policy is not enforced" in result.stderr


def test_signals_and_time_limit_under_it(user: Ordinary) -> None:
    argv = [*user.prefix, str(user.nabla_run), *words(user, "/bin/sh", "-c", "echo up; sleep 100")]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        machine = child_of(process.pid)
        assert proc_status(machine)["TracerPid"] == str(process.pid)
        process.send_signal(signal.SIGWINCH)
        process.terminate()
        assert process.wait(timeout=10) == 128 + signal.SIGTERM
    result = user.run(*words(user, "/bin/sleep", "100", options=("--timeout", "0.3", "--json")))
    assert result.returncode == TIMED_OUT
    report = json.loads(result.stderr.splitlines()[-1])
    assert report["reason"] == "timeout"


def test_machine_dies_with_its_tracer(user: Ordinary) -> None:
    argv = [*user.prefix, str(user.nabla_run), *words(user, "/bin/sh", "-c", "echo up; sleep 100")]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        machine = child_of(process.pid)
        process.kill()
        process.wait()
        wait_until_gone(machine)


def test_what_it_does_not_go_with(user: Ordinary, as_root: bool) -> None:
    image, other = user.folder / "disk.ext3", user.folder / "other"
    other.write_bytes(bytes(512))
    image.chmod(0o666)
    other.chmod(0o666)
    wrong: list[tuple[tuple[str, ...], str]] = [
        (("--trace-policy",), "cannot be combined with a writable disk"),
        (("--trace-policy", "--ephemeral", "--disk", str(other)), "cannot be combined with a writable disk"),
        (("--trace-policy", "--ephemeral", "--net", "user"), "cannot be combined with a network"),
        (("--trace-policy", "--ephemeral", "--publish", "8080:80"), "cannot be combined with a network"),
    ]
    for options, message in wrong:
        result = user.run(*options, image)
        assert result.returncode == 125
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    for options in (("--ephemeral", "--disk", f"{other},ro", "--disk", f"{other},cow"), ("--read-only",)):
        assert user.run("--trace-policy", *options, image, "--", "/bin/true").returncode == 0
    if as_root:
        refused("--trace-policy is not allowed for root", "--trace-policy", "--ephemeral", image)
        refused("--trace-policy is not allowed for root", "--trace-policy", "--run-as", "1000", "--ephemeral", image)
