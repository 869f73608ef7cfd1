# SPDX-License-Identifier: Apache-2.0
"""Programs in a sandbox: one session of the control channel each."""

from __future__ import annotations

import os
import signal as signals
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

from . import wire
from .errors import CommandStartError, ProtocolError, SandboxTimeout

Connect = Callable[[], wire.Connection]
Take = Callable[[str], object]
STAGES = {2: "there is no such user, or it cannot be used", 3: "the working directory cannot be entered"}


@dataclass(frozen=True)
class CommandResult:
    """How a command ended. `exit_code` is 128+N after signal N; bytes that are not UTF-8 became U+FFFD."""

    exit_code: int
    stdout: str
    stderr: str


class Session:
    """A running session of a program or a file, as bytes."""

    def __init__(self, peer: wire.Connection, content: bytes) -> None:
        self.peer = peer
        self.output: dict[int, list[bytes]] = {1: [], 2: []}
        self.take: dict[int, Callable[[bytes], object]] = {}
        self.status: int | None = None
        self._taken = {1: 0, 2: 0}
        self._credit = wire.IN_WINDOW
        peer.send(wire.START, content)
        kind, _, answer = peer.receive()
        if kind == wire.FAILED:
            self.failed = (wire.number(answer), wire.number(answer, 4))
        elif kind == wire.STARTED:
            self.failed = (0, 0)
        else:
            raise ProtocolError(f"the sandbox answered a request with a frame of type {kind}")

    def step(self) -> None:
        """Receive the next frame."""
        kind, stream, content = self.peer.receive()
        if kind == wire.DATA and stream in (1, 2):
            self.take.get(stream, self.output[stream].append)(content)
            self._taken[stream] += wire.HEADER.size + len(content)
            if self._taken[stream] >= wire.OUT_WINDOW // 4:
                self.peer.send(wire.CREDIT, self._taken[stream].to_bytes(4, "little"), stream)
                self._taken[stream] = 0
        elif kind == wire.CREDIT:
            self._credit += wire.number(content)
        elif kind == wire.EXIT:
            self.status = wire.number(content)
        elif kind != wire.CLOSE:
            raise ProtocolError(f"the sandbox sent a frame of type {kind} in a session")

    def write(self, content: bytes) -> None:
        """Send standard input. Data that the program no longer reads is dropped."""
        rest = memoryview(content)
        while rest and self.status is None:
            size = min(len(rest), self._credit - wire.HEADER.size, 32 << 10)
            if size <= 0:
                self.step()
                continue
            self.peer.send(wire.DATA, bytes(rest[:size]))
            self._credit -= wire.HEADER.size + size
            rest = rest[size:]

    def close_input(self) -> None:
        """End standard input."""
        if self.status is None:
            self.peer.send(wire.CLOSE)

    def wait(self) -> int:
        """Return the wait status, or the error number of a file."""
        while self.status is None:
            self.step()
        return self.status


class CommandHandle:
    """A program in the background.

    Only `wait` and `send_stdin` read its output; a program that has written 256 KB to a stream waits for one of them.
    Leaving the context, or `close`, hangs up: the program gets SIGHUP.
    """

    def __init__(self, session: Session, stdin: bool) -> None:
        self._session = session
        self._stdin = stdin

    def __enter__(self) -> CommandHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send_stdin(self, data: str | bytes) -> None:
        """Write to the program's standard input. Raises `ValueError` if it was started without `stdin`."""
        if not self._stdin:
            raise ValueError("the command has no standard input; start it with stdin=True")
        self._session.write(data.encode() if isinstance(data, str) else data)

    def close_stdin(self) -> None:
        """End the program's standard input."""
        if self._stdin:
            self._session.close_input()
            self._stdin = False

    def kill(self, number: int = signals.SIGKILL) -> None:
        """Send a signal to the program and its group."""
        self._session.peer.send(wire.SIGNAL, bytes([number]))

    def close(self) -> None:
        """End the session."""
        self._session.peer.socket.close()

    def wait(self, timeout: float | None = None) -> CommandResult:
        """Wait for the end. After `timeout` seconds, hang up, kill the program and raise `SandboxTimeout`."""
        peer = self._session.peer
        peer.deadline = None if timeout is None else time.monotonic() + timeout
        try:
            self.close_stdin()
            status = self._session.wait()
        except SandboxTimeout:
            peer.deadline = time.monotonic() + 5
            self.kill()
            raise SandboxTimeout(f"the command did not end within {timeout:g} s") from None
        finally:
            self.close()
        code = os.waitstatus_to_exitcode(status)
        texts = [b"".join(self._session.output[stream]).decode(errors="replace") for stream in (1, 2)]
        return CommandResult(code if code >= 0 else 128 - code, *texts)


class Commands:
    """Starts programs."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    def start(
        self,
        cmd: str | list[str],
        *,
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        user: str = "",
        stdin: bool = False,
        on_stdout: Take | None = None,
        on_stderr: Take | None = None,
    ) -> CommandHandle:
        """Start a program, or a script of /bin/sh if `cmd` is a string. Raises `CommandStartError`."""
        words = ["/bin/sh", "-c", cmd] if isinstance(cmd, str) else cmd
        if not words:
            raise ValueError("cmd is empty")
        variables = [f"{name}={value}" for name, value in (env or {}).items()]
        content = wire.start_content(wire.EXEC, wire.INPUT if stdin else 0, user, cwd, words, variables)
        peer = self._connect()
        try:
            session = Session(peer, content)
            stage, error = session.failed
            if error:
                raise CommandStartError(f"{words[0]}: {STAGES.get(stage, os.strerror(error))} (errno {error})")
        except BaseException:
            peer.socket.close()
            raise
        for stream, take in ((1, on_stdout), (2, on_stderr)):
            if take:
                session.take[stream] = _both(session.output[stream], take)
        return CommandHandle(session, stdin)

    def run(
        self,
        cmd: str | list[str],
        *,
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        user: str = "",
        timeout: float | None = 60,
        stdin: str | bytes | None = None,
        on_stdout: Take | None = None,
        on_stderr: Take | None = None,
    ) -> CommandResult:
        """Run a program to its end. Raises `CommandStartError`, and `SandboxTimeout` after `timeout` seconds."""
        late = None if timeout is None else time.monotonic() + timeout
        handle = self.start(
            cmd, cwd=cwd, env=env, user=user, stdin=stdin is not None, on_stdout=on_stdout, on_stderr=on_stderr
        )
        handle._session.peer.deadline = late
        try:
            if stdin is not None:
                handle.send_stdin(stdin)
        except SandboxTimeout:
            late = 0
        except BaseException:
            handle.close()
            raise
        left = None if late is None else max(0.0, late - time.monotonic())
        try:
            return handle.wait(left)
        except SandboxTimeout:
            raise SandboxTimeout(f"the command did not end within {timeout:g} s") from None


def _both(chunks: list[bytes], take: Take) -> Callable[[bytes], object]:
    def each(content: bytes) -> None:
        chunks.append(content)
        take(content.decode(errors="replace"))

    return each
