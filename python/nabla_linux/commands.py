# SPDX-License-Identifier: Apache-2.0
"""Programs in a sandbox: one session of the control channel each."""

from __future__ import annotations

import signal as signals
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from . import wire
from .connection import Connection
from .errors import CommandStartError, SandboxTimeout
from .session import OUTPUT_MAX, Session

Connect = Callable[[], Connection]
Take = Callable[[str], object]
STAGES = {2: "there is no such user, or it cannot be used", 3: "the working directory cannot be entered"}


@dataclass(frozen=True)
class CommandResult:
    """How a command ended. `exit_code` is 128+N after signal N; bytes that are not UTF-8 became U+FFFD."""

    exit_code: int
    stdout: str
    stderr: str


def words_of(cmd: str | Sequence[str]) -> list[str]:
    """Return the words of a command: a string is a script of /bin/sh. Raises `ValueError` if there are none."""
    words = ["/bin/sh", "-c", cmd] if isinstance(cmd, str) else [*cmd]
    if not words:
        raise ValueError("cmd is empty")
    return words


def content_of(words: list[str], cwd: str, env: Mapping[str, str], user: str, stdin: bool) -> bytes:
    """Return the content of the START frame of a command. Raises `ValueError` if it is too long or contains NUL."""
    variables = [f"{name}={value}" for name, value in env.items()]
    return wire.start_content(wire.EXEC, wire.INPUT if stdin else 0, user, cwd, words, variables)


def check_started(words: list[str], failed: tuple[int, int]) -> None:
    """Raise `CommandStartError` if a session did not begin."""
    stage, error = failed
    if error:
        raise CommandStartError(f"{words[0]}: {STAGES.get(stage, wire.error_text(error))} (errno {error})")


def watch(session: Session, on_stdout: Take | None, on_stderr: Take | None) -> None:
    """Pass output on as text, piece by piece."""
    for stream, take in ((1, on_stdout), (2, on_stderr)):
        if take:
            session.take[stream] = _as_text(take)


def _as_text(take: Take) -> Callable[[bytes], object]:
    return lambda content: take(content.decode(errors="replace"))


def result_of(session: Session) -> CommandResult:
    """Return how a session that is over has ended."""
    return CommandResult(wire.exit_code(session.status or 0), session.text(1), session.text(2))


def too_late(timeout: float | None) -> SandboxTimeout:
    """Return the exception of a command that did not end in time."""
    return SandboxTimeout(f"the command did not end within {timeout:g} s")


class CommandHandle:
    """A program in the background.

    Only `wait` and `send_stdin` read its output; a program that has written 256 KB to a stream waits for one of them.
    Leaving the context, or `close`, hangs up: the program gets SIGHUP.
    """

    def __init__(self, peer: Connection, session: Session, stdin: bool) -> None:
        self._peer = peer
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
        self._peer.drive(self._session.write(data.encode() if isinstance(data, str) else data))

    def close_stdin(self) -> None:
        """End the program's standard input."""
        if self._stdin:
            self._peer.drive(self._session.close_input())
            self._stdin = False

    def kill(self, number: int = signals.SIGKILL) -> None:
        """Send a signal to the program and its group."""
        self._peer.send(wire.frame(wire.SIGNAL, bytes([number])))

    def close(self) -> None:
        """End the session."""
        self._peer.socket.close()

    def wait(self, timeout: float | None = None) -> CommandResult:
        """Wait for the end. After `timeout` seconds, hang up, kill the program and raise `SandboxTimeout`."""
        self._peer.deadline = None if timeout is None else time.monotonic() + timeout
        try:
            self.close_stdin()
            self._peer.drive(self._session.wait())
        except SandboxTimeout:
            self._peer.deadline = time.monotonic() + 5
            self.kill()
            raise too_late(timeout) from None
        finally:
            self.close()
        return result_of(self._session)


class Commands:
    """Starts programs. `env` are variables of all of them."""

    def __init__(self, connect: Connect, env: Mapping[str, str]) -> None:
        self._connect = connect
        self._env = dict(env)

    def start(
        self,
        cmd: str | Sequence[str],
        *,
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        user: str = "",
        stdin: bool = False,
        on_stdout: Take | None = None,
        on_stderr: Take | None = None,
        max_output: int = OUTPUT_MAX,
    ) -> CommandHandle:
        """Start a program, or a script of /bin/sh if `cmd` is a string. Raises `CommandStartError`.

        A program that writes more than `max_output` bytes to a stream ends with `OutputLimit` where its output is read.
        """
        words = words_of(cmd)
        content = content_of(words, cwd, {**self._env, **(env or {})}, user, stdin)
        peer = self._connect()
        session = Session(max_output)
        try:
            check_started(words, peer.drive(session.start(content)))
        except BaseException:
            peer.socket.close()
            raise
        watch(session, on_stdout, on_stderr)
        return CommandHandle(peer, session, stdin)

    def run(
        self,
        cmd: str | Sequence[str],
        *,
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        user: str = "",
        timeout: float | None = 60,
        stdin: str | bytes | None = None,
        on_stdout: Take | None = None,
        on_stderr: Take | None = None,
        max_output: int = OUTPUT_MAX,
    ) -> CommandResult:
        """Run a program to its end. Raises `CommandStartError`, `OutputLimit`; `SandboxTimeout` after `timeout` s."""
        late = None if timeout is None else time.monotonic() + timeout
        handle = self.start(
            cmd,
            cwd=cwd,
            env=env,
            user=user,
            stdin=stdin is not None,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            max_output=max_output,
        )
        handle._peer.deadline = late
        try:
            if stdin is not None:
                handle.send_stdin(stdin)
        except SandboxTimeout:
            late = 0
        except BaseException:
            handle.close()
            raise
        try:
            return handle.wait(None if late is None else max(0.0, late - time.monotonic()))
        except SandboxTimeout:
            raise too_late(timeout) from None
