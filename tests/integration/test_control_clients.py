# SPDX-License-Identifier: Apache-2.0
"""The broker of `--name` against clients that send anything, and the consequences: others and the VM continue."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
from pathlib import Path

import pytest

from .hostage import ONE, WELCOME, Victim, attack, victim
from .launcher import NOBODY, Launcher, proc_status
from .named import (
    ANSWER,
    ASK,
    ASK_INFO,
    ASK_KILL,
    ASK_LINE,
    CLOSE,
    CONTROL_FD,
    CREDIT,
    DATA,
    ERROR,
    EXIT,
    GONE,
    HANGUP,
    OUT_WINDOW,
    REFUSED,
    SIGNAL,
    START,
    STARTED,
    WINDOW,
    frame,
    named,
    start,
    until,
)

__all__ = ["victim"]

SYS_PIDFD_GETFD = 438
LINK = 5  # KEPT_LINK of launcher/control.c

WRONG = {
    "no type": frame(0),
    "hello": WELCOME,
    "the guest's type": frame(STARTED, ONE),
    "data without a session": frame(DATA, b"x"),
    "signal without a session": frame(SIGNAL, b"\x09"),
    "start with an id": frame(START, b"x" * 20, number=5),
    "start on a stream": frame(START, b"x" * 20, stream=1),
    "start, too short": frame(START, b"x"),
    "ask nothing": frame(ASK),
    "ask too much": frame(ASK, b"\x01\x01"),
    "ask something else": frame(ASK, b"\xff"),
    "huge length": frame(START, length=0xFFFFFFFF),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}
WRONG_IN_SESSION = {
    "start again": start("sh"),
    "ask": frame(ASK, bytes([ASK_INFO])),
    "hang-up": frame(HANGUP),
    "exit": frame(EXIT, ONE),
    "data on a stream": frame(DATA, b"x", stream=1),
    "another's session": frame(DATA, b"x", number=1),
    "more than the window": frame(DATA, b"x" * 32000) * 3,
    "data after close": frame(CLOSE) + frame(DATA, b"x"),
    "close twice": frame(CLOSE) * 2,
    "signal 0": frame(SIGNAL, b"\x00"),
    "signal 65": frame(SIGNAL, b"\x41"),
    "two signals": frame(SIGNAL, b"\x01\x01"),
    "credit that nobody used": frame(CREDIT, struct.pack("<I", OUT_WINDOW), stream=1),
    "negative credit": frame(CREDIT, struct.pack("<i", -1), stream=1),
    "credit for input": frame(CREDIT, struct.pack("<I", OUT_WINDOW), stream=0),
    "half a window": frame(WINDOW, b"\x01\x00"),
}


@pytest.mark.parametrize("what", WRONG)
def test_clients_that_are_none(victim: Victim, what: str) -> None:
    client = victim.vm.connect()
    client.send(WRONG[what])
    assert client.expect(ERROR) == bytes([REFUSED])
    assert client.receive() is None
    victim.lives()
    assert victim.running()


@pytest.mark.parametrize("what", WRONG_IN_SESSION)
def test_clients_that_go_wrong(victim: Victim, what: str) -> None:
    """Its session hangs up; another one continues."""
    other, client = victim.running(), victim.vm.connect()
    client.send(start("sh"))
    victim.guest.expect(START)
    victim.guest.send(frame(STARTED, ONE, number=1))
    assert client.expect(STARTED)
    client.send(WRONG_IN_SESSION[what])
    while (got := client.receive()) and got[0] != ERROR:
        pass
    assert got and got[3] == bytes([REFUSED])
    while (got := victim.guest.receive()) and got[0] != HANGUP:
        assert got[2] == 1
    assert got and got[2] == 1
    victim.guest.send(frame(EXIT, ONE, number=1), frame(DATA, b"still", stream=1))
    assert other.expect(DATA) == b"still"
    victim.lives()


def test_clients_that_vanish(victim: Victim) -> None:
    """In the middle of a frame, and with a full queue; ids are not used again before the guest has agreed."""
    for count in (1, 7, 9, 20):
        client = victim.vm.connect()
        client.send(start("sh")[:count])
        victim.vm.sockets.pop().close()
    victim.running()
    victim.guest.send(*[frame(DATA, b"x" * 32760, stream=1)] * 8)
    victim.vm.sockets.pop().close()
    assert victim.guest.expect(HANGUP) == b""
    second = victim.vm.connect()
    second.send(start("sh"))
    got = victim.guest.receive()
    assert got and (got[0], got[2]) == (START, 1)
    victim.guest.send(frame(EXIT, ONE, number=0), frame(STARTED, ONE, number=1))
    assert second.expect(STARTED)
    victim.session()
    victim.lives()


def test_requests_that_wait_for_room(victim: Victim) -> None:
    """They continue as soon as there is some, without any other event."""
    clients = [victim.vm.connect() for _ in range(3)]
    victim.lives()  # all are accepted
    broker = victim.vm.broker()
    os.kill(broker, signal.SIGSTOP)
    for client in clients:
        client.send(start("x" * 65500))  # two of them do not fit
    os.kill(broker, signal.SIGCONT)
    for number in range(3):
        got = victim.guest.receive()
        assert got and (got[0], got[2]) == (START, number)
    victim.lives()


def test_many_clients(victim: Victim) -> None:
    """Silent ones are disconnected after 5 seconds; until then others wait."""
    for _ in range(100):
        victim.vm.connect()
    victim.lives()
    assert victim.running()


def test_a_client_that_does_not_read(victim: Victim) -> None:
    """It delays nobody, and the VM can still be ended."""
    victim.running()
    other = victim.vm.connect()
    other.send(start("sh"))
    victim.guest.expect(START)
    victim.guest.send(frame(STARTED, ONE, number=1))
    for _ in range(4):
        victim.guest.send(frame(DATA, b"x" * 65000, stream=1))
        victim.guest.send(frame(DATA, b"y" * 65000, stream=1, number=1))
    assert other.expect(STARTED)
    for _ in range(4):
        assert other.expect(DATA) == b"y" * 65000
    peer = victim.vm.connect()
    peer.send(frame(ASK, bytes([ASK_KILL])))
    assert peer.expect(ANSWER) == b""
    assert peer.receive() is None
    assert victim.vm.process.wait(60) == 128 + 9


def test_a_client_that_gives_credit_without_reading(victim: Victim) -> None:
    """When its queue is full, it loses its session; others do not."""
    other, client = victim.running(), victim.vm.connect()
    client.send(start("sh"))
    victim.guest.expect(START)
    victim.guest.send(frame(STARTED, ONE, number=1))
    used = struct.pack("<I", 2 * 65008)
    while True:
        victim.guest.send(*[frame(DATA, b"x" * 65000, stream=1, number=1)] * 2, frame(DATA, b"-", stream=1))
        assert other.expect(DATA) == b"-"  # the broker has all of it
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(frame(CREDIT, used, stream=1))
        got = victim.guest.receive()
        if got and got[0] == HANGUP:
            break
        assert got and (got[0], got[2], got[3]) == (CREDIT, 1, used)
    victim.guest.send(frame(EXIT, ONE, number=1), frame(DATA, b"still", stream=1))
    assert other.expect(DATA) == b"still"
    victim.lives()


@pytest.mark.parametrize("options", [(), ("--jail",)])
def test_the_broker_is_confined(launcher: Launcher, tmp_path: Path, options: tuple[str, ...]) -> None:
    """No privilege, no descriptor except those of its sockets, and a filter of system calls."""
    with attack(launcher, tmp_path, *options) as victim:
        victim.lives()
        broker = victim.vm.broker()
        status = proc_status(broker)
        assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1"
        assert (
            int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"] if options else "0", 16) == 0
        )
        if os.geteuid() == 0:
            assert status["Uid"].split() == [str(NOBODY)] * 4 and status["Groups"] == ""
        victim.vm.hang_up()
        until(lambda: sorted(os.listdir(f"/proc/{broker}/fd")) == ["3", "4", "5"])
        kinds = {os.readlink(f"/proc/{broker}/fd/{number}").split(":")[0] for number in (3, 4, 5)}
        assert kinds == {"socket"}
        limits = Path(f"/proc/{broker}/limits").read_text()
        assert "Max processes             0                    0" in limits
        assert f"Max address space         {128 << 20}" in limits


def test_a_broker_that_is_killed(launcher: Launcher, tmp_path: Path) -> None:
    """The VM continues, and its name is free."""
    with named(launcher.words("say=up line exit=7"), tmp_path) as vm:
        assert vm.process.stdin and vm.process.stdout and vm.process.stderr
        assert vm.process.stdout.readline() == b"up\n"
        client = vm.connect()
        os.kill(vm.broker(), 9)
        assert client.receive() is None
        until(lambda: not vm.path.exists())
        assert vm.process.poll() is None
        vm.process.stdin.write(b"\n")
        vm.process.stdin.flush()
        assert vm.process.wait(60) == 7
        assert b"warning: the broker of --name has ended" in vm.process.stderr.read()


def test_a_broker_that_closes_its_end(launcher: Launcher, tmp_path: Path) -> None:
    """As if it had been compromised: nabla-run drops it, and does not read from a socket endlessly."""
    if os.geteuid() != 0:
        return
    with named(launcher.words("say=up line exit=7"), tmp_path) as vm:
        assert vm.process.stdin and vm.process.stdout
        assert vm.process.stdout.readline() == b"up\n"
        broker = vm.broker()
        pidfd = os.pidfd_open(broker)
        number = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, pidfd, LINK, 0)
        os.close(pidfd)
        assert number >= 0, os.strerror(ctypes.get_errno())
        with socket.socket(fileno=number) as link:
            link.settimeout(60)
            link.shutdown(socket.SHUT_WR)
            assert link.recv(1) == b""
        until(lambda: not vm.path.exists())
        vm.process.stdin.write(b"\n")
        vm.process.stdin.flush()
        assert vm.process.wait(60) == 7


def test_the_socket_of_another_vm_stays(launcher: Launcher, tmp_path: Path) -> None:
    """Somebody removes the first one's, and starts a second VM of that name."""
    with named(launcher.words("say=up line", "--ephemeral"), tmp_path) as first:
        assert first.process.stdin and first.process.stdout
        assert first.process.stdout.readline() == b"up\n"
        first.path.unlink()
        with named(launcher.words("say=up stay", "--ephemeral"), tmp_path) as second:
            first.process.stdin.close()
            assert first.process.wait(60) == 0
            assert json.loads(second.ask(ASK_INFO))["pid"] == second.process.pid


def test_the_broker_ends_with_nabla_run(victim: Victim) -> None:
    client, broker = victim.running(), victim.vm.broker()
    victim.vm.process.kill()
    # the broker may see the end of the guest before it sees that of nabla-run
    assert client.receive() in (None, (ERROR, 0, 0, bytes([GONE])))
    until(lambda: not Path(f"/proc/{broker}").exists())


def as_another_user(path: Path) -> str:
    """Connect as another user, and return the received data, or the error."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(47110, 47110, 47110)
        os.setresuid(47110, 47110, 47110)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                text = repr(connection.recv(1))
        except OSError as error:
            text = type(error).__name__
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as stream:
        return stream.read()


def test_other_users_do_not_reach_it(launcher: Launcher, tmp_path: Path) -> None:
    """The folder keeps them out; if it were open, the broker would do so."""
    with attack(launcher, tmp_path) as victim:
        folder = victim.vm.path.parent
        assert folder.stat().st_mode & 0o777 == 0o700 and folder.stat().st_uid == os.geteuid()
        if os.geteuid() != 0:
            return
        assert as_another_user(victim.vm.path) == "PermissionError"
        for each in (folder, *folder.parents):
            if each.stat().st_mode & 0o077 == 0:
                each.chmod(0o755)
        victim.vm.path.chmod(0o777)
        assert as_another_user(victim.vm.path) in {"b''", "ConnectionResetError"}
        victim.lives()


def test_answers_are_short(launcher: Launcher, tmp_path: Path) -> None:
    """However long the command is; and what it contains does not control a terminal, or break the JSON."""
    words = launcher.words(f"bridge={CONTROL_FD}") + ['\x1b[2J"\\\n\t'] + ["x" * 3000] * 20
    with named(words, tmp_path) as vm:
        info = json.loads(vm.ask(ASK_INFO))
        assert len(json.dumps(info)) < 4096 and info["command"][1] == '\x1b[2J"\\\n\t'
        assert len(vm.ask(ASK_LINE)) < 4096
        text = vm.nabla("ps").stdout
        assert "\x1b" not in text and len(text.splitlines()) >= 2


def test_a_file_in_place_of_the_socket(launcher: Launcher, tmp_path: Path) -> None:
    """It is not a socket of nabla-run, and is not removed."""
    folder = tmp_path / "run/nabla"
    folder.mkdir(parents=True, mode=0o700)
    (tmp_path / "run").chmod(0o700)
    (folder / "vm").write_text("mine")
    with named(launcher.words("say=up stay"), tmp_path) as vm:
        assert vm.process.wait(60) == 125
        assert vm.process.stderr and b"--name: vm is in use" in vm.process.stderr.read()
    assert (folder / "vm").read_text() == "mine"
    with socket.socket(socket.AF_UNIX) as listener:
        (folder / "vm").unlink()
        (folder / "vm").symlink_to(tmp_path / "elsewhere")
        listener.bind(str(tmp_path / "elsewhere"))
        with named(launcher.words("say=up"), tmp_path) as vm:
            assert vm.process.wait(60) == 125
    assert (tmp_path / "elsewhere").exists()
