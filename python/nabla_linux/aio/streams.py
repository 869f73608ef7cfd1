# SPDX-License-Identifier: Apache-2.0
"""Connections, programs and files of sandboxes for asyncio, with the names of their synchronous counterparts."""

from __future__ import annotations

import asyncio
import signal as signals
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import TypeVar

from .. import files, wire
from ..commands import CommandResult, Take, check_started, content_of, result_of, too_late, watch, words_of
from ..connection import ENDED, PIECE
from ..errors import ProtocolError
from ..session import OUTPUT_MAX, Session, Steps, transfer
from ..wire import Frame, Parser

T = TypeVar("T")


class AsyncConnection:
    """A connected socket that does not block."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._parser = Parser()

    async def __aenter__(self) -> AsyncConnection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    async def drive(self, steps: Steps[T]) -> T:
        """Do what is to be said and heard; return the result."""
        try:
            request = next(steps)
            while True:
                if request is None:
                    request = steps.send(await self.receive())
                else:
                    await self.send(request)
                    request = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result

    async def send(self, content: bytes) -> None:
        """Send bytes. Nothing is reported if the peer has ended: what it sent before can still be received."""
        try:
            await asyncio.get_running_loop().sock_sendall(self.socket, content)
        except ENDED:
            pass
        except OSError as error:
            raise ProtocolError(f"the connection to the sandbox has ended: {error.strerror}") from None

    async def receive(self) -> Frame:
        """Return the next frame. Raises `ProtocolError` for ERROR and at the end."""
        while (frame := self._parser.next()) is None:
            try:
                self._parser.feed(await asyncio.get_running_loop().sock_recv(self.socket, PIECE))
            except OSError as error:
                raise ProtocolError(f"the connection to the sandbox has ended: {error.strerror}") from None
        return frame


Connect = Callable[[], Awaitable[AsyncConnection]]


class AsyncCommandHandle:
    """A program in the background. See `CommandHandle`."""

    def __init__(self, peer: AsyncConnection, session: Session, stdin: bool) -> None:
        self._peer = peer
        self._session = session
        self._stdin = stdin

    async def __aenter__(self) -> AsyncCommandHandle:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def send_stdin(self, data: str | bytes) -> None:
        """Write to the program's standard input. Raises `ValueError` if it was started without `stdin`."""
        if not self._stdin:
            raise ValueError("the command has no standard input; start it with stdin=True")
        await self._peer.drive(self._session.write(data.encode() if isinstance(data, str) else data))

    async def close_stdin(self) -> None:
        """End the program's standard input."""
        if self._stdin:
            await self._peer.drive(self._session.close_input())
            self._stdin = False

    async def kill(self, number: int = signals.SIGKILL) -> None:
        """Send a signal to the program and its group."""
        await self._peer.send(wire.frame(wire.SIGNAL, bytes([number])))

    def close(self) -> None:
        """End the session."""
        self._peer.socket.close()

    async def wait(self, timeout: float | None = None) -> CommandResult:
        """Wait for the end. After `timeout` seconds, hangs up, kills the program and raises `SandboxTimeout`."""
        return await self._finish(None, timeout)

    async def _finish(self, stdin: str | bytes | None, timeout: float | None) -> CommandResult:
        try:
            async with asyncio.timeout(timeout):
                if stdin is not None:
                    await self.send_stdin(stdin)
                await self.close_stdin()
                await self._peer.drive(self._session.wait())
        except TimeoutError:
            async with asyncio.timeout(5):
                await self.kill()
            raise too_late(timeout) from None
        finally:
            self.close()
        return result_of(self._session)


class AsyncCommands:
    """Starts programs. See `Commands`."""

    def __init__(self, connect: Connect, env: Mapping[str, str]) -> None:
        self._connect = connect
        self._env = dict(env)

    async def start(
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
    ) -> AsyncCommandHandle:
        """Start a program, or a script of /bin/sh if `cmd` is a string. Raises `CommandStartError`."""
        words = words_of(cmd)
        content = content_of(words, cwd, {**self._env, **(env or {})}, user, stdin)
        peer = await self._connect()
        session = Session(max_output)
        try:
            check_started(words, await peer.drive(session.start(content)))
        except BaseException:
            peer.socket.close()
            raise
        watch(session, on_stdout, on_stderr)
        return AsyncCommandHandle(peer, session, stdin)

    async def run(
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
        handle = await self.start(
            cmd,
            cwd=cwd,
            env=env,
            user=user,
            stdin=stdin is not None,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            max_output=max_output,
        )
        return await handle._finish(stdin, timeout)


class AsyncFiles:
    """Files of a sandbox, as root of the guest. See `Files`."""

    def __init__(self, connect: Connect, commands: AsyncCommands) -> None:
        self._connect = connect
        self._commands = commands

    async def read(self, path: str, max_size: int = OUTPUT_MAX) -> bytes:
        """Return the content of a regular file. Raises `GuestFileError`; `OutputLimit` beyond `max_size` bytes."""
        return await self._transfer(wire.READ, path, b"", 0, max_size)

    async def write(self, path: str, data: str | bytes, mode: int = 0o644) -> None:
        """Replace or create a regular file. Raises `GuestFileError`."""
        await self._transfer(wire.WRITE, path, data.encode() if isinstance(data, str) else data, mode, 0)

    async def exists(self, path: str) -> bool:
        """Say whether there is a file of any kind; a symbolic link counts by itself."""
        return (await self._commands.run(files.script(files.EXISTS, path))).exit_code == 0

    async def list(self, path: str) -> list[str]:
        """Return the sorted names in a folder. Raises `GuestFileError`."""
        return files.names_of(await self._run(files.script(files.LIST, path), path))

    async def make_dir(self, path: str) -> None:
        """Create a folder and its parents."""
        await self._run(files.make_dir(path), path)

    async def remove(self, path: str) -> None:
        """Remove a file, or a folder with all in it."""
        await self._run(files.script(files.REMOVE, path), path)

    async def rename(self, old: str, new: str) -> None:
        """Rename a file or folder."""
        await self._run(files.rename(old, new), old)

    async def _run(self, words: Sequence[str], path: str) -> str:
        return files.output_of(await self._commands.run(words), path)

    async def _transfer(self, kind: int, path: str, data: bytes, mode: int, most: int) -> bytes:
        content = files.transfer_content(kind, path, mode)
        async with await self._connect() as peer:
            return files.read_of(await peer.drive(transfer(kind, content, data, most)), path)
