# SPDX-License-Identifier: Apache-2.0
"""Named VMs, their client `nabla`, and frames of the control channel as bytes, for the tests of `--name`.

The numbers are those of launcher/control_wire.h.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nabla.core.paths import BIN

CLIENT = BIN / "nabla"
CONTROL_FD = 23
HELLO, START, STARTED, FAILED, DATA, CLOSE, CREDIT, SIGNAL, WINDOW, EXIT, HANGUP, ASK, ANSWER, ERROR = range(1, 15)
ASK_INFO, ASK_LINE, ASK_PORTS, ASK_STATS, ASK_PAUSE, ASK_RESUME, ASK_STOP, ASK_KILL, ASK_LOGS = range(1, 10)
NO_AGENT, BUSY, PAUSED, BROKEN, GONE, REFUSED, LATE = range(1, 8)
OUT_WINDOW, IN_WINDOW, CONTENT_MAX, SESSIONS = 256 << 10, 64 << 10, 65536, 32


def frame(kind: int, content: bytes = b"", *, stream: int = 0, number: int = 0, length: int | None = None) -> bytes:
    """Return a frame; `length`: the value in its header."""
    return struct.pack("<IBBH", len(content) if length is None else length, kind, stream, number) + content


def start(*words: str, flags: int = 0, kind: int = 0, path: str = "", user: str = "") -> bytes:
    """Return the frame that requests a session."""
    head = struct.pack("<BBHHHHH", kind, flags, 0, 0, len(words), 0, 0o644)
    return frame(START, head + b"".join(text.encode() + b"\0" for text in (user, path, *words)))


@dataclass
class Frames:
    """A socket or a pair of pipes with frames."""

    read: Any
    write: Any
    unread: bytes = b""

    def send(self, *frames: bytes) -> None:
        """Write arbitrary bytes."""
        self.write(b"".join(frames))

    def receive(self) -> tuple[int, int, int, bytes] | None:
        """Return type, stream, id and content of the next frame; None at the end."""
        while True:
            if len(self.unread) >= 8:
                length, kind, stream, number = struct.unpack_from("<IBBH", self.unread)
                if len(self.unread) >= 8 + length:
                    content, self.unread = self.unread[8 : 8 + length], self.unread[8 + length :]
                    return kind, stream, number, content
            more = self.read()
            if not more:
                return None
            self.unread += more

    def expect(self, kind: int) -> bytes:
        """Return the content of the next frame, which has this type."""
        got = self.receive()
        assert got and got[0] == kind, got
        return got[3]


@dataclass
class Named:
    """A running VM with a name, and its folder of sockets."""

    process: subprocess.Popen[bytes]
    runtime: Path
    name: str = "vm"
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The socket."""
        return self.runtime / "nabla" / self.name

    @property
    def env(self) -> dict[str, str]:
        """The environment of clients."""
        return {**os.environ, "XDG_RUNTIME_DIR": str(self.runtime)}

    def words(self, *words: str) -> list[str]:
        """Return a command line of the client."""
        return [str(CLIENT), *words]

    def nabla(self, *words: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run the client to its end."""
        usual: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60}
        argv = [str(CLIENT), *map(str, words)]
        result: subprocess.CompletedProcess[str] = subprocess.run(
            argv, env=self.env, check=False, **{**usual, **settings}
        )
        return result

    def run(self, *words: str, options: tuple[str, ...] = (), **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in the VM."""
        return self.nabla("exec", *options, self.name, "--", *words, **settings)

    def check(self, script: str) -> str:
        """Run a shell script in the VM, which must exit with status 0; returns its output."""
        result = self.run("sh", "-c", script)
        assert result.returncode == 0, result
        return result.stdout

    def started(self, *words: str, options: tuple[str, ...] = (), **settings: Any) -> subprocess.Popen[bytes]:
        """Start a command in the VM."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        argv = [str(CLIENT), "exec", *options, self.name, "--", *words]
        return subprocess.Popen(argv, env=self.env, **{**pipes, **settings})

    def connect(self) -> Frames:
        """Connect to the broker, without a client."""
        connection = socket.socket(socket.AF_UNIX)
        self.sockets.append(connection)
        connection.settimeout(60)
        connection.connect(str(self.path))

        def read() -> bytes:
            try:
                return connection.recv(1 << 17)
            except ConnectionResetError:
                return b""

        return Frames(read, connection.sendall)

    def hang_up(self) -> None:
        """Close all connections."""
        for each in self.sockets:
            each.close()
        self.sockets.clear()

    def ask(self, what: int) -> bytes:
        """Send a request to the broker."""
        peer = self.connect()
        peer.send(frame(ASK, bytes([what])))
        return peer.expect(ANSWER)

    def all_children(self) -> list[int]:
        """Return the children of nabla-run."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def children(self, own: bool) -> list[int]:
        """Return the children of nabla-run that are processes of nabla-run itself, or those that are other programs."""
        program = os.readlink(f"/proc/{self.process.pid}/exe")
        wanted = []
        for child in self.all_children():
            with contextlib.suppress(FileNotFoundError):  # it has just ended
                if (os.readlink(f"/proc/{child}/exe") == program) is own:
                    wanted.append(child)
        return wanted

    def kill(self) -> None:
        """End nabla-run, and wait for its children: a VM that has not ended yet holds the lock of its image."""
        children = [pidfd_of(child) for child in self.all_children()]
        self.process.kill()
        for child in filter(None, children):
            select.select([child], [], [], 60)
            os.close(child)

    def broker(self) -> int:
        """Return the process ID of the broker. Root's nabla-run has one more process, which removes the socket."""
        parts = self.children(own=True)
        if os.geteuid() == 0:
            parts = [child for child in parts if os.readlink(f"/proc/{child}/fd/3").startswith("socket:")]
        (broker,) = parts
        return broker

    def vm(self) -> int:
        """Return the process ID of the VM."""
        (vm,) = self.children(own=False)
        return vm


def pidfd_of(process: int) -> int | None:
    """Return a descriptor of the process, which becomes readable when it ends; None if it has ended."""
    try:
        return os.pidfd_open(process)
    except ProcessLookupError:
        return None


def until(condition: Any, timeout: float = 30) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)


@contextlib.contextmanager
def named(words: list[str], folder: Path, name: str = "vm", **settings: Any) -> Iterator[Named]:
    """Start nabla-run, whose words follow `--name NAME`, and wait for its socket; end it afterwards."""
    runtime = folder / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        [words[0], "--name", name, *words[1:]],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        **{**pipes, **settings},
    )
    vm = Named(process, runtime, name)
    try:
        until(lambda: vm.path.exists() or process.poll() is not None)
        yield vm
    finally:
        vm.hang_up()
        if process.poll() is None:
            vm.kill()
        process.wait(60)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
