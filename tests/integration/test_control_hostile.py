# SPDX-License-Identifier: Apache-2.0
"""The broker of `--name` against a guest that sends anything: nabla-run continues, and clients get an error."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .hostage import ONE, WELCOME, Victim, attack, victim
from .launcher import Launcher, proc_status
from .named import (
    ANSWER,
    BROKEN,
    CLOSE,
    CONTENT_MAX,
    CREDIT,
    DATA,
    ERROR,
    EXIT,
    FAILED,
    GONE,
    HANGUP,
    HELLO,
    IN_WINDOW,
    LATE,
    NO_AGENT,
    OUT_WINDOW,
    SESSIONS,
    SIGNAL,
    START,
    STARTED,
    frame,
    named,
    start,
    until,
)

__all__ = ["victim"]


FORGED = {
    "hello again": WELCOME,
    "no type": frame(0),
    "unknown type": frame(200),
    "the host's type": frame(START, b"x" * 20),
    "a signal": frame(SIGNAL, b"\x09"),
    "a hang-up": frame(HANGUP),
    "the broker's answer": frame(ANSWER, b"{}"),
    "the broker's error": frame(ERROR, bytes([BROKEN])),
    "id of nobody": frame(STARTED, ONE, number=1),
    "id beyond all": frame(STARTED, ONE, number=SESSIONS),
    "largest id": frame(EXIT, ONE, number=65535),
    "huge length": frame(DATA, stream=1, length=0xFFFFFFFF),
    "length of one more": frame(DATA, stream=1, length=CONTENT_MAX + 1),
    "data before the start": frame(DATA, b"x", stream=1),
    "exit before the start": frame(EXIT, ONE),
    "close before the start": frame(CLOSE, stream=1),
    "credit before the start": frame(CREDIT, struct.pack("<I", IN_WINDOW)),
    "started, too short": frame(STARTED, b"x"),
    "started, on a stream": frame(STARTED, ONE, stream=1),
    "failed, too short": frame(FAILED, ONE),
    "failed, too long": frame(FAILED, b"x" * 9),
}
AFTER_START = {
    "started again": frame(STARTED, ONE),
    "failed": frame(FAILED, ONE * 2),
    "data for input": frame(DATA, b"x", stream=0),
    "data for stream 3": frame(DATA, b"x", stream=3),
    "data for stream 255": frame(DATA, b"x", stream=255),
    "no data": frame(DATA, stream=1),
    "data after its close": frame(CLOSE, stream=1) + frame(DATA, b"x", stream=1),
    "close twice": frame(CLOSE, stream=2) * 2,
    "close of input": frame(CLOSE, stream=0),
    "close of stream 3": frame(CLOSE, stream=3),
    "close with content": frame(CLOSE, b"x", stream=1),
    "exit before close": frame(EXIT, ONE),
    "exit after one close": frame(CLOSE, stream=1) + frame(EXIT, ONE),
    "exit, too long": frame(CLOSE, stream=1) + frame(CLOSE, stream=2) + frame(EXIT, b"x" * 5),
    "exit twice": frame(CLOSE, stream=1) + frame(CLOSE, stream=2) + frame(EXIT, ONE) * 2,
    "data after exit": frame(CLOSE, stream=1) + frame(CLOSE, stream=2) + frame(EXIT, ONE) + frame(DATA, b"x", stream=1),
    "credit that nobody used": frame(CREDIT, struct.pack("<I", IN_WINDOW)),
    "credit of nothing": frame(CREDIT, struct.pack("<I", 0)),
    "negative credit": frame(CREDIT, struct.pack("<i", -1)),
    "credit for output": frame(CREDIT, struct.pack("<I", IN_WINDOW), stream=1),
    "more than the window": frame(DATA, b"x" * 65000, stream=1) * 5,
    "more than the window in small pieces": frame(DATA, b"x", stream=1) * (OUT_WINDOW // 9 + 1),
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_frames(victim: Victim, what: str) -> None:
    """Sessions end with an error; the broker keeps running, and reports this to later clients."""
    client = victim.session()
    victim.guest.send(FORGED[what])
    assert client.expect(ERROR) == bytes([BROKEN])
    assert client.receive() is None
    victim.lives()
    result = victim.vm.run("true")
    assert result.returncode == 125 and "did not follow the protocol" in result.stderr


@pytest.mark.parametrize("what", AFTER_START)
def test_forged_frames_in_a_session(victim: Victim, what: str) -> None:
    """Another session ends, too, since nothing that follows can be trusted; the broker and the VM continue."""
    first = victim.running()
    other = victim.vm.connect()
    other.send(start("sh"))
    assert victim.guest.expect(START)
    victim.guest.send(AFTER_START[what])
    while (got := other.receive()) and got[0] != ERROR:
        pass
    assert got and got[3] == bytes([BROKEN])
    while first.receive():
        pass
    victim.lives()


WORDS = {
    "exec": ("exec", "vm", "--", "program"),
    "out": ("cp", "vm:/program", "-"),
    "in": ("cp", "-", "vm:/program"),
}


@pytest.mark.parametrize("words", WORDS)
def test_any_reason_of_a_failure(victim: Victim, words: str) -> None:
    """The client has a status and one line for each stage and number that a guest may give."""
    for stage in range(256):
        number = (2, 13, 0, 0xFFFFFFFF)[stage % 4]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(victim.vm.words(*WORDS[words]), env=victim.vm.env, **pipes) as client:
            assert victim.guest.expect(START)
            victim.guest.send(frame(FAILED, struct.pack("<II", stage, number)))
            _, stderr = client.communicate(timeout=60)
        assert client.returncode in ({125, 126, 127} if words == "exec" else {125}), (stage, client.returncode)
        assert stderr.startswith(b"nabla: ") and stderr.count(b"\n") == 1, (stage, stderr)
    victim.lives()


def test_frames_in_pieces(victim: Victim) -> None:
    """Data that arrives byte by byte has the same effect as data that arrives at once."""
    client = victim.session()
    for byte in frame(STARTED, ONE) + frame(DATA, b"word", stream=2):
        victim.guest.send(bytes([byte]))
    assert client.expect(STARTED) == ONE
    assert client.receive() == (DATA, 2, 0, b"word")
    victim.guest.send(frame(CLOSE, stream=1)[:3])
    victim.lives()
    victim.guest.send(frame(CLOSE, stream=1)[3:] + frame(CLOSE, stream=2) + frame(EXIT, ONE))
    assert [got[0] for _ in range(3) if (got := client.receive())] == [CLOSE, CLOSE, EXIT]
    assert client.receive() is None


@pytest.mark.parametrize("hello", [b"", struct.pack("<I", 2), struct.pack("<I", 0xFFFFFFFF), ONE * 2])
def test_another_version(launcher: Launcher, tmp_path: Path, hello: bytes) -> None:
    with attack(launcher, tmp_path, hello=False) as victim:
        client = victim.vm.connect()
        client.send(start("sh"))
        victim.guest.send(frame(HELLO, hello))
        assert client.expect(ERROR) == bytes([BROKEN])
        victim.lives()


def test_a_flood(victim: Victim) -> None:
    """The broker's memory is bounded, whether the client reads or not, for any amount of data."""
    victim.lives()
    before = int(proc_status(victim.vm.broker())["VmRSS"].split()[0])
    clients = [victim.session() for _ in range(8)]
    for number in range(8):
        victim.guest.send(frame(STARTED, ONE, number=number))
        for stream in (1, 2):
            # all of its credit, of which the clients read nothing
            victim.guest.send(*[frame(DATA, b"x" * (32768 - 8), stream=stream, number=number)] * 8)
    victim.lives()
    after = int(proc_status(victim.vm.broker())["VmRSS"].split()[0])
    assert after - before < 8 * 1024
    for client in clients:
        assert client.expect(STARTED)
        assert len(client.expect(DATA)) == 32760
    victim.guest.send(frame(DATA, b"x", stream=1))
    while (got := clients[0].receive()) and got[0] != ERROR:
        pass
    assert got and got[3] == bytes([BROKEN])
    victim.lives()


def test_a_guest_that_never_reads(launcher: Launcher, tmp_path: Path) -> None:
    """Each client waits independently; the broker's memory does not grow."""
    with named(launcher.words("say=up stay"), tmp_path) as vm:
        client = vm.connect()
        client.send(start("sh"))
        assert client.expect(ERROR) == bytes([NO_AGENT])  # after 10 seconds
        lives = Victim(vm, client)
        lives.lives()
    (tmp_path / "another").mkdir()
    with attack(launcher, tmp_path / "another") as victim:
        # the stand-in stops reading when nobody reads from it
        flooding = []
        for _ in range(20):
            client = victim.vm.connect()
            client.send(start("x" * 60000))
            flooding.append(client)
        victim.lives()
        # each gets an error, whether its request had room or not
        for client in flooding:
            assert client.expect(ERROR) == bytes([LATE])
        assert int(proc_status(victim.vm.broker())["VmRSS"].split()[0]) < 16 * 1024


def test_a_guest_that_never_answers(victim: Victim) -> None:
    """A request is answered within 5 seconds, or it fails; the guest may answer later, and others continue."""
    other, late = victim.running(), [victim.vm.connect() for _ in range(3)]
    for client in late:
        client.send(start("sh"))
        victim.guest.expect(START)
    for client in late:
        assert client.expect(ERROR) == bytes([LATE])
        victim.guest.expect(HANGUP)
    victim.guest.send(frame(STARTED, ONE, number=1), frame(DATA, b"x", stream=1, number=1), frame(EXIT, ONE, number=1))
    victim.guest.send(frame(FAILED, ONE * 2, number=2), frame(EXIT, ONE, number=3), frame(DATA, b"still", stream=1))
    assert other.expect(DATA) == b"still"
    for number in (1, 2, 3):  # they are free again
        client = victim.vm.connect()
        client.send(start("sh"))
        got = victim.guest.receive()
        assert got and (got[0], got[2]) == (START, number)
    victim.lives()


@pytest.mark.parametrize("writes", [False, True])
def test_what_is_left_at_the_end(victim: Victim, writes: bool) -> None:
    """A client that reads only after the VM's end gets all output and the status, even if it had data for the VM."""
    client = victim.running()
    process, vm, broker = victim.vm.process, victim.vm.vm(), victim.vm.broker()
    assert process.stdin
    if writes:  # the broker finds out by an error, with most of the output unread
        os.kill(process.pid, signal.SIGSTOP)
        os.kill(broker, signal.SIGSTOP)
        client.send(frame(SIGNAL, b"\x0f"))
    size = 20000 if writes else 50000
    for stream in (1, 2):
        victim.guest.send(*[frame(DATA, b"x" * size, stream=stream)] * 3)
    victim.guest.send(frame(CLOSE, stream=1), frame(CLOSE, stream=2), frame(EXIT, ONE))
    process.stdin.close()
    until(lambda: not Path(f"/proc/{vm}/cmdline").exists() or not Path(f"/proc/{vm}/cmdline").read_bytes())
    if writes:
        os.kill(broker, signal.SIGCONT)
    kinds, sizes = [], 0
    while got := client.receive():
        kinds.append(got[0])
        sizes += len(got[3])
    assert kinds == [DATA] * 6 + [CLOSE] * 2 + [EXIT] and sizes == 6 * size + len(ONE)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(60) == 0


def test_a_guest_that_closes(launcher: Launcher, tmp_path: Path) -> None:
    """The end of the VM, and a guest that only closes its channel."""
    with attack(launcher, tmp_path) as victim:
        client = victim.running()
        victim.guest.send(frame(DATA, b"last words", stream=1))
        assert victim.vm.process.stdin
        victim.vm.process.stdin.close()
        assert client.expect(DATA) == b"last words"
        assert client.expect(ERROR) == bytes([GONE])
        assert client.receive() is None
        assert victim.vm.process.wait(60) == 0
        assert not victim.vm.path.exists()
