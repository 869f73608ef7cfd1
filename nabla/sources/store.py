# SPDX-License-Identifier: Apache-2.0
"""Content-addressed files: the name of a file is its sha256, so its content can always be verified.

<root>/sha256/ab/abcd…    complete, checked files, never changed
<root>/partial/abcd….part unfinished downloads
<root>/damaged/abcd….1    entries whose content no longer had their digest, for the user to inspect
<root>/locks/abcd…        lock files: concurrent processes wait for each other instead of fetching twice
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nabla.core import files, manifest
from nabla.core.errors import ChecksumError, NablaError
from nabla.core.files import lock, make_folder, raise_full, sync_folder
from nabla.core.paths import cache_dir

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Store:
    """A content-addressed folder. Methods raise `NablaError`s only."""

    root: Path

    def path(self, sha256: str) -> Path:
        """Return the path of the file with that digest, whether or not it exists."""
        return self.root / "sha256" / sha256[:2] / sha256

    def partial(self, sha256: str) -> Path:
        """Return the path of an unfinished download of that file; creates the folder."""
        path = self.root / "partial" / f"{sha256}.part"
        make_folder(path.parent)
        return path

    def get(self, sha256: str, size: int) -> Path | None:
        """Return the file after reading and verifying all of it, or None if there is none.

        Raises `ChecksumError` for a damaged entry; `set_aside` makes room for a good one.
        """
        path = self.path(sha256)
        try:
            actual_size = path.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NablaError(f"cannot read the cache: {error}") from error
        actual = manifest.file_sha256(path) if actual_size == size else "another size"
        if actual != sha256:
            raise ChecksumError(
                f"the cache entry {path} is damaged: it has {actual_size} bytes of {size}, sha256 {actual}",
                f"remove it and run again: rm '{path}'",
            )
        return path

    def set_aside(self, sha256: str) -> Path:
        """Move a damaged entry aside and return its new path. Another process may already have done so."""
        path = self.path(sha256)
        folder = self.root / "damaged"
        make_folder(folder)
        number = 1 + sum(1 for _ in folder.glob(f"{sha256}.*"))
        target = folder / f"{sha256}.{number}"
        try:
            path.rename(target)
        except FileNotFoundError:
            return target
        except OSError as error:
            raise_full(error, target)
        return target

    def add(self, file: Path, sha256: str) -> Path:
        """Move a verified file into the store, durably; returns its path."""
        path = self.path(sha256)
        make_folder(path.parent)
        try:
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
            if os.stat(file).st_dev != os.stat(path.parent).st_dev:
                file = self._import(file, path.parent)
            os.chmod(file, 0o444)
            os.rename(file, path)
            sync_folder(path.parent)
        except OSError as error:
            raise_full(error, path)
        return path

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock with that name; prints a message while another process holds it."""
        with lock(self.root / "locks" / name, f"waiting for another process that works on {name[:12]}"):
            yield

    def scratch(self) -> AbstractContextManager[Path]:
        """A temporary folder on the same file system, removed at the end."""
        return files.scratch(self.root / "tmp")

    def _import(self, file: Path, folder: Path) -> Path:
        handle, name = tempfile.mkstemp(dir=folder)
        with file.open("rb") as source, open(handle, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        return Path(name)


def cache() -> Store:
    """Return the store of downloads in the user's cache directory."""
    return Store(cache_dir())


def is_offline() -> bool:
    """Return whether connections are forbidden: `NABLA_OFFLINE` is set, and not 0."""
    return os.environ.get("NABLA_OFFLINE", "0") not in ("", "0")
