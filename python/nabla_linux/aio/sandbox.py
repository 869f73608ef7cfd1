# SPDX-License-Identifier: Apache-2.0
"""A sandbox for asyncio, with the names of `Sandbox`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from .. import interpreter, wire
from ..commands import CommandResult
from ..errors import SandboxError, SandboxTimeout, StartError
from ..interpreter import CodeResult
from ..machine import START_S, Machine, Settings, check_savable, check_saved, gone, pauses
from ..session import ask, numbers_of
from .streams import AsyncCommands, AsyncConnection, AsyncFiles


class AsyncSandbox:
    """A running VM. `create` makes one; an asynchronous context manager kills it. See `Sandbox`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.commands = AsyncCommands(self._connect, machine.settings.env)
        self.files = AsyncFiles(self._connect, self.commands)

    @classmethod
    async def create(
        cls,
        image: str | os.PathLike[str] | None = None,
        *,
        memory: str | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        mounts: Iterable[str] = (),
        ports: Iterable[str] = (),
        network: str | None = None,
        snapshot: str | os.PathLike[str] | None = None,
        nabla_run: str | os.PathLike[str] | None = None,
    ) -> AsyncSandbox:
        """Start a VM. See `Sandbox.create`."""
        settings = Settings.of(image, memory, timeout, env, mounts, ports, network, snapshot, nabla_run)
        return (await cls._start(settings, 1))[0]

    @classmethod
    async def _start(cls, settings: Settings, count: int) -> list[AsyncSandbox]:
        sandboxes: list[AsyncSandbox] = []
        try:
            for _ in range(count):
                sandboxes.append(cls(Machine(settings)))
            await asyncio.gather(*(each._wait_for_start() for each in sandboxes))
        except BaseException:
            for each in sandboxes:
                each._machine.process.kill()
                await each.kill()
            raise
        return sandboxes

    async def __aenter__(self) -> AsyncSandbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    def is_running(self) -> bool:
        """Say whether the VM runs."""
        return self._machine.running()

    async def kill(self) -> None:
        """End the VM at once. Does nothing if it has ended."""
        process = self._machine.process
        try:
            if self.is_running():
                with contextlib.suppress(SandboxError, TimeoutError):
                    async with asyncio.timeout(10), await self._connect() as peer:
                        await peer.send(wire.frame(wire.ASK, bytes([wire.ASK_KILL])))
                        await self._ended()
        finally:
            process.kill()
            process.wait()
            self._machine.clean()

    async def pause(self) -> None:
        """Stop the VM's process; the guest's clock keeps running."""
        await self._ask(wire.ASK_PAUSE)

    async def resume(self) -> None:
        """Continue after `pause`."""
        await self._ask(wire.ASK_RESUME)

    async def metrics(self) -> dict[str, int]:
        """Return `uptime_us`, `cpu_us`, `memory_kib` (0: unknown) and `memory_limit_kib`."""
        return numbers_of(await self._ask(wire.ASK_STATS))

    async def snapshot(self, file: str | os.PathLike[str]) -> Path:
        """Save the VM in a new file and continue. See `Sandbox.snapshot`."""
        await self._save()
        await asyncio.to_thread(self._machine.copy_saved, Path(file))
        return Path(file)

    async def fork(self, count: int = 1) -> list[AsyncSandbox]:
        """Save the VM as `snapshot` does, and return new sandboxes that continue from that state."""
        await self._save()
        copy = await asyncio.to_thread(self._machine.own_copy)
        try:
            return await self._start(self._machine.settings.restored_from(copy), count)
        finally:
            copy.unlink()

    async def run_code(self, code: str, *, timeout: float | None = 60) -> CodeResult:
        """Run Python code in an interpreter of the guest that keeps its variables. See `Sandbox.run_code`."""
        result = await self._send_code(code, timeout)
        if interpreter.is_missing(result):
            await self.files.make_dir(interpreter.FOLDER)
            await self.files.write(interpreter.PROGRAM, interpreter.SOURCE.read_bytes())
            interpreter.check_start(await self.commands.run(interpreter.start_words()))
            interpreter.check_start(await self.commands.run(interpreter.WAIT))
            result = await self._send_code(code, timeout)
        return interpreter.decode(result)

    async def _send_code(self, code: str, timeout: float | None) -> CommandResult:
        try:
            return await self.commands.run(interpreter.CLIENT, stdin=code, timeout=timeout)
        except SandboxTimeout:
            await self.commands.run(interpreter.STOP)
            raise interpreter.too_late(timeout) from None

    async def _save(self) -> None:
        check_savable(self._machine.settings)
        done = await self.commands.run(["nabla-snapshot"])
        check_saved(done.stdout, done.stderr, done.exit_code)

    async def _ask(self, what: int) -> bytes:
        try:
            async with asyncio.timeout(10), await self._connect() as peer:
                return await peer.drive(ask(what))
        except TimeoutError:
            raise SandboxTimeout("the sandbox did not answer in time") from None

    async def _connect(self) -> AsyncConnection:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            for pause in pauses():
                try:
                    connection.connect(self._machine.address)
                    break
                except BlockingIOError:
                    # more connections wait than the broker's socket holds; nothing says when there is room
                    await asyncio.sleep(pause)
            return AsyncConnection(connection)
        except OSError as error:
            connection.close()
            raise gone(error) from None
        except BaseException:
            connection.close()
            raise

    async def _ended(self) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        watched = os.pidfd_open(self._machine.process.pid)
        try:
            loop.add_reader(watched, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(watched)
            os.close(watched)

    async def _wait_for_start(self) -> None:
        try:
            async with asyncio.timeout(START_S):
                for pause in pauses():
                    if self._machine.started():
                        return
                    await asyncio.sleep(pause)
        except TimeoutError:
            raise StartError(f"the VM did not start within {START_S:g} s") from None
