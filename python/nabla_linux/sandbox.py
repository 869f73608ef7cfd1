# SPDX-License-Identifier: Apache-2.0
"""A sandbox: one VM of nabla-run, private to this process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from . import wire
from .commands import Commands
from .errors import ProtocolError, SandboxError, StartError
from .files import Files

NAME = "sandbox"
START_S = 30.0


class Sandbox:
    """A running VM. `create` makes one; a context manager kills it."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.commands = Commands(self._connect)
        self.files = Files(self._connect, self.commands)

    @classmethod
    def create(
        cls,
        image: str | os.PathLike[str],
        *,
        memory: str = "256M",
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        mounts: Iterable[str] = (),
        ports: Iterable[str] = (),
        network: str | None = None,
        nabla_run: str | os.PathLike[str] | None = None,
    ) -> Sandbox:
        """Start a VM on an image, whose changes are discarded at the end.

        `mounts` has values of `--mount`, `ports` of `--publish`, `network` of `--net`. `timeout` ends the VM after this
        number of seconds. `nabla_run` is the program, else `$NABLA_RUN`, else the one on PATH. Raises `StartError`.
        """
        program = os.fspath(nabla_run or os.environ.get("NABLA_RUN") or shutil.which("nabla-run") or "")
        if not program:
            raise StartError("nabla-run is not on PATH; set NABLA_RUN to its path")
        words = [program, "--name", NAME, "--memory", memory, "--ephemeral"]
        words += ["--timeout", f"{timeout:g}"] if timeout is not None else []
        words += ["--net", network] if network is not None else []
        for option, values in (("--mount", mounts), ("--publish", ports)):
            for value in values:
                words += [option, value]
        for name, text in (env or {}).items():
            words += ["--env", f"{name}={text}"]
        words += [os.fspath(image), "--", "/bin/sleep", "2147483647"]
        folder = Path(tempfile.mkdtemp(prefix="nabla-"))
        with open(folder / "log", "wb") as log:
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
                )
            except OSError as error:
                shutil.rmtree(folder)
                raise StartError(f"{program}: {error.strerror}") from None
        sandbox = cls(process, folder)
        try:
            sandbox._wait_for_start()
        except BaseException:
            sandbox.kill()
            raise
        return sandbox

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def is_running(self) -> bool:
        """Return whether the VM runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the VM at once. Does nothing if it has ended."""
        if self.is_running():
            try:
                self._ask(wire.ASK_KILL, end=True)
                self._process.wait(10)
            except (SandboxError, subprocess.TimeoutExpired):
                self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def pause(self) -> None:
        """Stop the VM's process; the guest's clock keeps running."""
        self._ask(wire.ASK_PAUSE)

    def resume(self) -> None:
        """Continue after `pause`."""
        self._ask(wire.ASK_RESUME)

    def metrics(self) -> dict[str, int]:
        """Return `uptime_us`, `cpu_us`, `memory_kib` (0: unknown) and `memory_limit_kib`."""
        answer = json.loads(self._ask(wire.ASK_STATS))
        return {name: value for name, value in answer.items() if isinstance(value, int)}

    def _ask(self, what: int, end: bool = False) -> bytes:
        peer = self._connect()
        peer.deadline = time.monotonic() + 10
        with peer.socket:
            peer.send(wire.ASK, bytes([what]))
            if end:
                return b""
            kind, _, content = peer.receive()
        if kind != wire.ANSWER:
            raise ProtocolError(f"the broker answered with a frame of type {kind}")
        return content

    def _connect(self) -> wire.Connection:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self._folder / "nabla" / NAME))
        except OSError as error:
            connection.close()
            raise ProtocolError(f"the sandbox has ended, or does not answer: {error.strerror}") from None
        return wire.Connection(connection)

    def _wait_for_start(self) -> None:
        late = time.monotonic() + START_S
        path = self._folder / "nabla" / NAME
        while not path.exists():
            if self._process.poll() is not None:
                raise StartError((self._folder / "log").read_text(errors="replace").strip() or "nabla-run ended")
            if time.monotonic() > late:
                raise StartError(f"the VM did not start within {START_S:g} s")
            time.sleep(0.0005)
