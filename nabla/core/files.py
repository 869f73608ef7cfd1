# SPDX-License-Identifier: Apache-2.0
"""Files and folders: write, move, remove and lock them, with errors that name the cause."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from nabla.core import log
from nabla.core.errors import DiskFullError, NablaError
from nabla.core.process import run

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNUSED = 30 * 86400.0  # seconds


def write(path: Path, content: str | bytes) -> None:
    """Write a file atomically; creates its folder. Raises `NablaError`."""
    make_folder(path.parent)
    # Two processes may write the same file.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise_full(error, path)


def move(source: Path, target: Path) -> None:
    """Move a file or folder, also to another file system; preserves hard links. Raises `CommandError`."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        run(["cp", "-a", source, target])
        remove(source)


def remove(path: Path) -> None:
    """Remove a file or a folder with its content, even if it is write-protected or absent."""
    if path.is_dir() and not path.is_symlink():
        path.chmod(0o755)
        for folder, names, _ in os.walk(path):
            for name in names:
                inner = os.path.join(folder, name)
                if not os.path.islink(inner):
                    os.chmod(inner, 0o755)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_unused(folders: Iterable[Path]) -> None:
    """Remove folders of a cache that were unused for a month; each use sets the time of the folder."""
    for folder in folders:
        with suppress(FileNotFoundError):  # another process may do the same
            if time.time() - folder.stat().st_mtime > _UNUSED:
                remove(folder)


@contextmanager
def lock(path: Path, waiting: str) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, created if absent; prints `waiting` if another process holds it.

    The kernel releases the lock when its holder dies.
    """
    make_folder(path.parent)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info(waiting)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A temporary folder below `parent`, removed at the end."""
    make_folder(parent)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Create a folder and its parents. Raises `NablaError` if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise_full(error, path)


def sync_folder(path: Path) -> None:
    """Make renames within a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def raise_full(error: OSError, path: Path) -> NoReturn:
    """Raise `DiskFullError` or another `NablaError` with the reason of `error`."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        raise DiskFullError(
            f"no room left while writing {path}: {reason}",
            "free some space there; NABLA_CACHE moves the downloads, TMPDIR temporary files",
        ) from error
    raise NablaError(f"cannot write {path}: {reason}") from error
