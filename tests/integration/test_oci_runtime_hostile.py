# SPDX-License-Identifier: Apache-2.0
"""What a hostile guest, or even a hostile broker, can say to nabla-oci: a server of the test is the broker."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .bundles import Bundle, eventually
from .named import BROKEN, CLOSE, CREDIT, DATA, ERROR, EXIT, FAILED, GONE, HELLO, START, STARTED, frame
from .test_oci_runtime import bundle, tree
from .test_oci_runtime_exec import running

__all__ = ["bundle", "running", "tree"]

ONE = struct.pack("<I", 1)
GO = frame(STARTED, ONE)
Talk = Callable[[socket.socket], None]


@contextmanager
def broker(victim: Bundle, talk: Talk) -> Iterator[None]:
    """Answer each connection to the container's channel by `talk`, which may read the request before."""
    path = victim.state_folder / "c1" / "nabla" / "vm"
    eventually(path.exists)
    moved = path.with_name("moved")
    path.rename(moved)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(8)

        def serve() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                with connection, suppress(OSError):
                    talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=60)
    path.unlink()
    moved.rename(path)


def says(*frames: bytes) -> Talk:
    """Say this, and close the connection."""

    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 17)
        connection.sendall(b"".join(frames))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass

    return talk


@pytest.mark.parametrize(
    ("frames", "status"),
    [
        ((GO, frame(EXIT, struct.pack("<I", 3 << 8))), 3),
        ((GO, frame(EXIT, struct.pack("<I", signal.SIGSTOP))), 128 + signal.SIGSTOP),
        ((GO, frame(EXIT, struct.pack("<I", 0x137F))), 128 + 127),
        ((GO, frame(EXIT, struct.pack("<I", 0xFFFFFFFF))), 128 + 127),
        ((GO, frame(EXIT)), 0),
        ((GO, GO), 137),
        ((GO,), 137),
        ((GO, frame(ERROR, bytes([GONE]))), 137),
        ((GO, frame(ERROR, b"\xff")), 137),
        ((GO, frame(DATA, b"x", stream=0)), 137),
        ((GO, frame(DATA, b"x", stream=255)), 137),
        ((GO, frame(CREDIT, struct.pack("<I", 1))), 137),
        ((GO, frame(CREDIT, struct.pack("<I", 0xFFFFFFFF))), 137),
        ((GO, frame(HELLO, ONE)), 137),
        ((GO, frame(200, b"x" * 100)), 137),
        ((GO, frame(DATA, b"x" * 100, stream=1, length=0xFFFFFFFF)), 137),
        ((GO, frame(DATA, b"x" * 65537, stream=1)), 137),
        ((GO, frame(DATA, b"", stream=1), frame(CLOSE, stream=1), frame(CLOSE, stream=1), frame(EXIT, ONE)), 129),
        ((GO, b"\0\0"), 137),
    ],
)
def test_after_the_start(running: Bundle, frames: tuple[bytes, ...], status: int) -> None:
    """Any frames after the start end the call, with a status that a program could return, too."""
    with broker(running, says(*frames)):
        result = running.call("exec", "c1", "true")
    assert result.returncode == status, result
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ((), "it has ended"),
        ((frame(EXIT, ONE),), "it has ended"),
        ((frame(DATA, b"x", stream=1),), "it has ended"),
        ((frame(FAILED),), "c1: "),
        ((frame(FAILED, struct.pack("<II", 0, 0xFFFFFFFF)),), "unknown error"),
        ((frame(FAILED, struct.pack("<II", 0xFFFFFFFF, 2)),), "c1: No such file or directory"),
        ((frame(FAILED, struct.pack("<II", 25, 2)),), "c1: No such file or directory"),
        ((frame(FAILED, struct.pack("<II", 24, 2)),), "c1: process: No such file or directory"),
        ((frame(ERROR, bytes([BROKEN])),), "did not follow the protocol"),
        ((frame(ERROR),), "refused the request"),
        ((frame(ERROR, b"\xff"),), "refused the request"),
    ],
)
def test_instead_of_a_start(running: Bundle, frames: tuple[bytes, ...], message: str) -> None:
    with broker(running, says(*frames)):
        running.refused(message, "exec", "c1", "true")
        pid_file = running.folder / "none"
        running.refused(message, "exec", "--detach", "--pid-file", pid_file, "c1", "true")
    assert not pid_file.exists()


def test_output_without_an_end(running: Bundle) -> None:
    """It reaches who reads it, and nothing grows."""

    def flood(connection: socket.socket) -> None:
        connection.recv(1 << 17)
        connection.sendall(GO)
        while True:
            connection.sendall(frame(DATA, b"x" * 65528, stream=1) * 2)
            connection.recv(1 << 16)  # credit

    with broker(running, flood):
        words = running.words("exec", "c1", "true")
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert len(process.stdout.read(50 << 20)) == 50 << 20
            memory = Path(f"/proc/{process.pid}/status").read_text()
            assert int(memory.partition("VmHWM:")[2].split()[0]) < 8 << 10
            process.stdout.close()
            assert process.wait(timeout=60) == 128 + signal.SIGPIPE


def test_a_broker_that_reads_nothing(running: Bundle) -> None:
    """Input waits, and a signal still ends the process."""
    release = threading.Event()

    def silent(connection: socket.socket) -> None:
        connection.sendall(GO)
        release.wait(60)

    pid_file = running.folder / "pid"
    with broker(running, silent):
        with (running.folder / "out").open("wb") as out:
            words = running.words("exec", "-d", "--pid-file", pid_file, "c1", "cat")
            subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True, timeout=60)
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        release.set()


def test_a_guest_that_kills_everything(running: Bundle) -> None:
    """Process 1 continues, and ends the container in order."""
    # the signal to -1 does not reach its sender, which may end before the container does
    assert running.call("exec", "c1", "sh", "-c", "kill -KILL -1").returncode in (0, 128 + signal.SIGKILL)
    eventually(lambda: running.state()["status"] == "stopped")


def test_the_request(running: Bundle) -> None:
    """What goes to the guest is what protocol.h says."""
    seen = []

    def record(connection: socket.socket) -> None:
        seen.append(connection.recv(1 << 17))

    with broker(running, record):
        running.call("exec", "c1", "true", "a=b")
    length, kind, _, _ = struct.unpack_from("<IBBH", seen[0])
    assert kind == START and length == len(seen[0]) - 8
    words = seen[0][20:].decode().split("\0")
    assert words[:2] == ["arg=true", "arg=a=b"] and words[-1] == ""
