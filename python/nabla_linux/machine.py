# SPDX-License-Identifier: Apache-2.0
"""The process of a sandbox: nabla-run with a private folder of sockets. For `Sandbox` and `AsyncSandbox`."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from . import parts
from .errors import ProtocolError, SnapshotError, StartError

NAME = "sandbox"
START_S = 30.0
POLL_S = (0.0002, 0.02)  # from one look for the socket to the next, at first and later
COPY_MAX = 1 << 30


@dataclass(frozen=True)
class Settings:
    """How to start a sandbox: what `Sandbox.create` was given."""

    image: Path
    memory: str | None
    timeout: float | None
    env: Mapping[str, str]
    mounts: tuple[str, ...]
    ports: tuple[str, ...]
    network: str | None
    snapshot: Path | None
    nabla_run: Path

    def restored_from(self, snapshot: Path) -> Settings:
        """Return the settings of a sandbox that continues from the saved state of another one."""
        return replace(self, snapshot=snapshot, memory=None)

    @classmethod
    def of(
        cls,
        image: str | os.PathLike[str] | None,
        memory: str | None,
        timeout: float | None,
        env: Mapping[str, str] | None,
        mounts: Iterable[str],
        ports: Iterable[str],
        network: str | None,
        snapshot: str | os.PathLike[str] | None,
        nabla_run: str | os.PathLike[str] | None,
    ) -> Settings:
        """Find the program and the image. Raises `StartError`."""
        return cls(
            image=Path(image) if image is not None else parts.image(),
            memory=memory,
            timeout=timeout,
            env=dict(env or {}),
            mounts=tuple(mounts),
            ports=tuple(ports),
            network=network,
            snapshot=None if snapshot is None else Path(snapshot),
            nabla_run=parts.nabla_run(nabla_run),
        )

    def words(self, saved: Path) -> list[str]:
        """Return the command line of nabla-run; the VM can save itself in `saved`."""
        words = [str(self.nabla_run), "--name", NAME, "--ephemeral"]
        words += ["--memory", self.memory] if self.memory is not None else []
        words += ["--restore", str(self.snapshot)] if self.snapshot is not None else []
        # a shared directory prevents both
        words += ["--snapshot", str(saved)] if not self.mounts else []
        words += ["--timeout", f"{self.timeout:g}"] if self.timeout is not None else []
        words += ["--net", self.network] if self.network is not None else []
        for option, values in (("--mount", self.mounts), ("--publish", self.ports)):
            for value in values:
                words += [option, value]
        return [*words, str(self.image), "--", "/bin/sleep", "2147483647"]


class Machine:
    """A running nabla-run."""

    def __init__(self, settings: Settings) -> None:
        """Start it. Raises `StartError`."""
        self.settings = settings
        # files of a disk take more time than the rest of a start
        self.folder = Path(tempfile.mkdtemp(prefix="nabla-", dir=memory_folder()))
        self.path = self.folder / "nabla" / NAME
        # a snapshot is large, and such folders are not
        self.saved = Path(tempfile.gettempdir(), f"nabla-{secrets.token_hex(16)}.saved")
        self._log = os.memfd_create("nabla-run")
        try:
            self.process = subprocess.Popen(
                settings.words(self.saved),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env={**os.environ, "XDG_RUNTIME_DIR": str(self.folder)},
            )
        except OSError as error:
            self.clean()
            raise StartError(f"{settings.nabla_run}: {error.strerror}") from None

    @property
    def address(self) -> str:
        """The address of the broker's socket."""
        return str(self.path)

    def started(self) -> bool:
        """Say whether the VM can be spoken to. Raises `StartError` if it has ended."""
        if self.path.exists():
            return True
        if self.process.poll() is not None:
            raise StartError(self.log() or "nabla-run ended")
        return False

    def log(self) -> str:
        """Return what nabla-run printed."""
        return os.pread(self._log, 4096, 0).decode(errors="replace").strip()

    def running(self) -> bool:
        """Return whether the VM runs."""
        return self.process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Wait until the VM has ended; say whether it has. `Popen.wait` would look again and again."""
        if self.running():
            watched = os.pidfd_open(self.process.pid)
            try:
                events = select.poll()
                events.register(watched, select.POLLIN)
                events.poll(seconds * 1000)
            finally:
                os.close(watched)
        return not self.running()

    def clean(self) -> None:
        """Remove all files. The process must have ended."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        shutil.rmtree(self.folder, ignore_errors=True)
        self.saved.unlink(missing_ok=True)

    def copy_saved(self, target: Path) -> None:
        """Copy what the VM saved, which it could still change, with its holes. Raises `SnapshotError`."""
        source = os.open(self.saved, os.O_RDONLY | os.O_CLOEXEC)
        try:
            file = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                copy_sparse(source, file)
            except BaseException:
                target.unlink()
                raise
            finally:
                os.close(file)
        except OSError as error:
            raise SnapshotError(f"{target}: {error.strerror}") from None
        finally:
            os.close(source)

    def own_copy(self) -> Path:
        """Copy what the VM saved to a temporary file, for its forks."""
        target = self.saved.with_suffix(".copy")
        self.copy_saved(target)
        return target


def memory_folder() -> str | None:
    """Return a folder in memory for a socket, None: there is none."""
    for name in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"):
        if name and os.path.isabs(name) and os.access(name, os.W_OK | os.X_OK):
            return name
    return None


def copy_sparse(source: int, target: int) -> None:
    """Copy a file and its holes, as it is now."""
    size = os.fstat(source).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError:
            break
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        at = start
        while at < end:
            done = os.copy_file_range(source, target, min(end - at, COPY_MAX), at, at)
            if not done:
                return
            at += done
    os.ftruncate(target, size)


def pauses() -> Iterator[float]:
    """Yield the seconds from one look to the next."""
    pause, most = POLL_S
    while True:
        yield pause
        pause = min(pause * 1.25, most)


def gone(error: OSError) -> ProtocolError:
    """Return the exception of a broker that cannot be reached."""
    return ProtocolError(f"the sandbox has ended, or does not answer: {error.strerror}")


def check_savable(settings: Settings) -> None:
    """Raise `SnapshotError` if no such VM can be saved."""
    if settings.mounts:
        raise SnapshotError("a sandbox with a directory of the host cannot be saved")


def check_saved(output: str, errors: str, status: int) -> None:
    """Raise `SnapshotError` if nabla-snapshot did not save the VM."""
    if status or output.strip() != "original":
        raise SnapshotError(errors.strip() or "the guest did not save itself; its image needs nabla-snapshot")
