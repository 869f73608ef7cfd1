# SPDX-License-Identifier: Apache-2.0
"""A sandbox: one VM of nabla-run, private to this process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from . import wire
from .commands import Commands
from .connection import Connection
from .errors import SandboxError, StartError
from .files import Files
from .interpreter import CodeResult, Interpreter
from .machine import START_S, Machine, Settings, check_savable, check_saved, gone, pauses
from .session import ask, numbers_of


class Sandbox:
    """A running VM. `create` makes one; a context manager kills it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.commands = Commands(self._connect, machine.settings.env)
        self.files = Files(self._connect, self.commands)
        self._interpreter = Interpreter(self.commands, self.files)

    @classmethod
    def create(
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
    ) -> Sandbox:
        """Start a VM on an image, by default the package's, whose changes are discarded at the end.

        `memory` (by default 256M, with a snapshot as much as it has), `mounts`, `ports` and `network` are values of
        `--memory`, `--mount`, `--publish` and `--net`. `timeout` ends the VM after so many seconds. `env` are variables
        of all commands. `snapshot` is a file that `snapshot()` wrote, of a VM on the same image. `nabla_run` is the
        program, else `$NABLA_RUN`, else the package's, else the one on PATH. Raises `StartError`.
        """
        return cls._start(Settings.of(image, memory, timeout, env, mounts, ports, network, snapshot, nabla_run), 1)[0]

    @classmethod
    def _start(cls, settings: Settings, count: int) -> list[Sandbox]:
        sandboxes: list[Sandbox] = []
        try:
            for _ in range(count):
                sandboxes.append(cls(Machine(settings)))
            late = time.monotonic() + START_S
            for each in sandboxes:
                each._wait_for_start(late)
        except BaseException:
            for each in sandboxes:
                each.kill()
            raise
        return sandboxes

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def is_running(self) -> bool:
        """Return whether the VM runs."""
        return self._machine.running()

    def kill(self) -> None:
        """End the VM at once. Does nothing if it has ended."""
        process = self._machine.process
        if self.is_running():
            try:
                with self._connect() as peer:
                    peer.deadline = time.monotonic() + 10
                    peer.send(wire.frame(wire.ASK, bytes([wire.ASK_KILL])))
                    self._machine.wait(10)
            except SandboxError:
                pass
        process.kill()
        process.wait()
        self._machine.clean()

    def pause(self) -> None:
        """Stop the VM's process; the guest's clock keeps running."""
        self._ask(wire.ASK_PAUSE)

    def resume(self) -> None:
        """Continue after `pause`."""
        self._ask(wire.ASK_RESUME)

    def metrics(self) -> dict[str, int]:
        """Return `uptime_us`, `cpu_us`, `memory_kib` (0: unknown) and `memory_limit_kib`."""
        return numbers_of(self._ask(wire.ASK_STATS))

    def snapshot(self, file: str | os.PathLike[str]) -> Path:
        """Save the VM, with all its programs, in a new file and continue. A sandbox can be saved once.

        `Sandbox.create(image, snapshot=file)` starts others from it. Commands that run now are in none of them. Raises
        `SnapshotError`.
        """
        self._save()
        self._machine.copy_saved(Path(file))
        return Path(file)

    def fork(self, count: int = 1) -> list[Sandbox]:
        """Save the VM as `snapshot` does, and return new sandboxes that continue from that state."""
        self._save()
        copy = self._machine.own_copy()
        try:
            return self._start(self._machine.settings.restored_from(copy), count)
        finally:
            copy.unlink()

    def run_code(self, code: str, *, timeout: float | None = 60) -> CodeResult:
        """Run Python code in an interpreter of the guest that keeps its variables from call to call.

        It starts with the first call, and needs Python 3.10 in the image; a sandbox from the snapshot of `warm_python`
        has it already. Code that does not end within `timeout` seconds ends the interpreter, with `SandboxTimeout`.
        """
        return self._interpreter.run(code, timeout)

    def _save(self) -> None:
        check_savable(self._machine.settings)
        done = self.commands.run(["nabla-snapshot"])
        check_saved(done.stdout, done.stderr, done.exit_code)

    def _ask(self, what: int) -> bytes:
        with self._connect() as peer:
            peer.deadline = time.monotonic() + 10
            return peer.drive(ask(what))

    def _connect(self) -> Connection:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._machine.address)
        except OSError as error:
            connection.close()
            raise gone(error) from None
        return Connection(connection)

    def _wait_for_start(self, late: float) -> None:
        for pause in pauses():
            if self._machine.started():
                return
            if time.monotonic() > late:
                raise StartError(f"the VM did not start within {START_S:g} s")
            time.sleep(pause)
