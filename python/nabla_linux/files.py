# SPDX-License-Identifier: Apache-2.0
"""Files of a sandbox, as root of the guest. Paths are absolute."""

from __future__ import annotations

import os
from collections.abc import Sequence

from . import wire
from .commands import Commands, Connect, Session
from .errors import GuestFileError


class Files:
    """The agent transfers files; programs of the guest (`ls`, `rm`, `mkdir`, `mv`, `test`) handle folders."""

    def __init__(self, connect: Connect, commands: Commands) -> None:
        self._connect = connect
        self._commands = commands

    def read(self, path: str) -> bytes:
        """Return the content of a regular file. Raises `GuestFileError`."""
        return b"".join(self._transfer(wire.READ, path).output[1])

    def write(self, path: str, data: str | bytes, mode: int = 0o644) -> None:
        """Replace or create a regular file. Raises `GuestFileError`."""
        self._transfer(wire.WRITE, path, data.encode() if isinstance(data, str) else data, mode)

    def exists(self, path: str) -> bool:
        """Return whether a file of any kind exists; a symbolic link counts by itself."""
        script = 'test -e "$1" || test -L "$1"'
        return self._commands.run(["/bin/sh", "-c", script, "sh", _absolute(path)]).exit_code == 0

    def list(self, path: str) -> list[str]:
        """Return the sorted names in a folder. Raises `GuestFileError`."""
        script = (
            'cd -- "$1" || exit; for each in * .*; do '
            'if test -e "$each" || test -L "$each"; then printf "%s\\0" "$each"; fi; done'
        )
        self._run(["test", "-d", _absolute(path)], path, "not a folder")
        names = self._run(["/bin/sh", "-c", script, "sh", path], path).split("\0")
        return sorted(set(names) - {"", ".", ".."})

    def make_dir(self, path: str) -> None:
        """Create a folder and its parents."""
        self._run(["mkdir", "-p", "--", _absolute(path)], path)

    def remove(self, path: str) -> None:
        """Remove a file, or a folder and its contents."""
        if not self.exists(path):
            raise GuestFileError(f"{path}: {os.strerror(2)}")
        self._run(["rm", "-rf", "--", path], path)

    def rename(self, old: str, new: str) -> None:
        """Rename a file or folder."""
        self._run(["mv", "--", _absolute(old), _absolute(new)], old)

    def _run(self, words: Sequence[str], path: str, why: str = "it cannot be done") -> str:
        result = self._commands.run([*words])
        if result.exit_code:
            raise GuestFileError(f"{path}: {result.stderr.strip() or why}")
        return result.stdout

    def _transfer(self, kind: int, path: str, data: bytes = b"", mode: int = 0o644) -> Session:
        peer = self._connect()
        try:
            flags = wire.INPUT if kind == wire.WRITE else 0
            session = Session(peer, wire.start_content(kind, flags, "", _absolute(path), [], [], mode))
            error = session.failed[1]
            if not error:
                if kind == wire.WRITE:
                    session.write(data)
                    session.close_input()
                error = session.wait()
        finally:
            peer.socket.close()
        if error:
            raise GuestFileError(f"{path}: {os.strerror(error)}")
        return session


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path of the guest")
    return path
