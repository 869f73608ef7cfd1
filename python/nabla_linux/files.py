# SPDX-License-Identifier: Apache-2.0
"""Files of a sandbox, as root of the guest. Paths are absolute."""

from __future__ import annotations

import os
from collections.abc import Sequence

from . import wire
from .commands import CommandResult, Commands, Connect
from .errors import GuestFileError
from .session import OUTPUT_MAX, transfer

EXISTS = 'test -e "$1" || test -L "$1"'
LIST = (
    'test -d "$1" || { echo "not a folder" >&2; exit 1; }; cd -- "$1" || exit; for each in * .*; do '
    'if test -e "$each" || test -L "$each"; then printf "%s\\0" "$each"; fi; done'
)
REMOVE = f'if {EXISTS}; then exec rm -rf -- "$1"; else echo "{os.strerror(2)}" >&2; exit 1; fi'


def script(text: str, path: str) -> list[str]:
    """Return the words of a shell script with a path as its argument."""
    return ["/bin/sh", "-c", text, "sh", absolute(path)]


def make_dir(path: str) -> list[str]:
    """Return the words that create a folder."""
    return ["mkdir", "-p", "--", absolute(path)]


def rename(old: str, new: str) -> list[str]:
    """Return the words that rename a file."""
    return ["mv", "--", absolute(old), absolute(new)]


def names_of(listing: str) -> list[str]:
    """Return the names that LIST printed, sorted."""
    return sorted(set(listing.split("\0")) - {"", ".", ".."})


def output_of(result: CommandResult, path: str) -> str:
    """Return the output of a program about a file. Raises `GuestFileError` if it failed."""
    if result.exit_code:
        raise GuestFileError(f"{path}: {result.stderr.strip() or 'it cannot be done'}")
    return result.stdout


def transfer_content(kind: int, path: str, mode: int) -> bytes:
    """Return the content of the START frame that reads or writes a file."""
    return wire.start_content(kind, wire.INPUT if kind == wire.WRITE else 0, "", absolute(path), [], [], mode)


def read_of(done: tuple[int, bytes], path: str) -> bytes:
    """Return what was read. Raises `GuestFileError`."""
    error, data = done
    if error:
        raise GuestFileError(f"{path}: {wire.error_text(error)}")
    return data


def absolute(path: str) -> str:
    """Return the path. Raises `ValueError` if it is relative."""
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path of the guest")
    return path


class Files:
    """Reads by the agent; folders by programs of the guest (`sh`, `rm`, `mkdir`, `mv`, `test`)."""

    def __init__(self, connect: Connect, commands: Commands) -> None:
        self._connect = connect
        self._commands = commands

    def read(self, path: str, max_size: int = OUTPUT_MAX) -> bytes:
        """Return the content of a regular file. Raises `GuestFileError`; `OutputLimit` beyond `max_size` bytes."""
        return self._transfer(wire.READ, path, b"", 0, max_size)

    def write(self, path: str, data: str | bytes, mode: int = 0o644) -> None:
        """Replace or create a regular file. Raises `GuestFileError`."""
        self._transfer(wire.WRITE, path, data.encode() if isinstance(data, str) else data, mode, 0)

    def exists(self, path: str) -> bool:
        """Return whether a file of any kind exists; a symbolic link counts by itself."""
        return self._commands.run(script(EXISTS, path)).exit_code == 0

    def list(self, path: str) -> list[str]:
        """Return the sorted names in a folder. Raises `GuestFileError`."""
        return names_of(self._run(script(LIST, path), path))

    def make_dir(self, path: str) -> None:
        """Create a folder and its parents."""
        self._run(make_dir(path), path)

    def remove(self, path: str) -> None:
        """Remove a file, or a folder and its contents."""
        self._run(script(REMOVE, path), path)

    def rename(self, old: str, new: str) -> None:
        """Rename a file or folder."""
        self._run(rename(old, new), old)

    def _run(self, words: Sequence[str], path: str) -> str:
        return output_of(self._commands.run(words), path)

    def _transfer(self, kind: int, path: str, data: bytes, mode: int, most: int) -> bytes:
        content = transfer_content(kind, path, mode)
        with self._connect() as peer:
            return read_of(peer.drive(transfer(kind, content, data, most)), path)
