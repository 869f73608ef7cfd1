# SPDX-License-Identifier: Apache-2.0
"""Describe the content of a directory tree, compare two trees, and detect changes.

A *manifest* describes the content: one line `type mode sha256 path [-> target]` for each entry, sorted by bytes,
without owners and times; its sha256 identifies the tree. An *index* is a fast way to detect changes: size, mode and
time of each entry.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path (relative to `root`, with slashes) and lstat of each entry below `root`, in any order."""
    stack = [""]
    while stack:
        prefix = stack.pop()
        with os.scandir(root / prefix) as listing:
            for entry in listing:
                path = f"{prefix}{entry.name}"
                yield path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    stack.append(f"{path}/")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def manifest(root: Path) -> str:
    """Return the manifest of a tree; entries other than files, links and directories have the type `?`."""
    items = sorted(entries(root), key=lambda item: os.fsencode(item[0]))
    with ThreadPoolExecutor() as pool:  # hashlib releases the GIL
        return "".join(pool.map(lambda item: _line(root, *item), items))


def _line(root: Path, path: str, status: os.stat_result) -> str:
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode):
        return f"f {mode:o} {file_sha256(root / path)} {path}\n"
    if stat.S_ISLNK(status.st_mode):
        return f"l - - {path} -> {os.readlink(root / path)}\n"
    return f"{'d' if stat.S_ISDIR(status.st_mode) else '?'} {mode:o} - {path}\n"


def digest(root: Path) -> str:
    """Return the sha256 of the tree's manifest, in hex."""
    return hashlib.sha256(manifest(root).encode(errors="surrogateescape")).hexdigest()


def differences(one: str, other: str) -> list[str]:
    """Return the paths whose manifest lines differ between two manifests, sorted."""
    return sorted({line.split(" ", 3)[3] for line in set(one.split("\n")) ^ set(other.split("\n"))})


def normalize_metadata(root: Path, epoch: int, programs: Collection[Path] = ()) -> None:
    """Set the modes and the time of all entries: 755 for folders and programs, else 644. `epoch`: in seconds."""
    for path in (*root.rglob("*"), root):
        # A link has no mode of its own, and its target may lie outside of the tree.
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path in programs else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def index(root: Path) -> str:
    """Return the index of a tree as JSON: path -> mode, and for entries other than directories size and time."""
    return json.dumps(_index(root), sort_keys=True)


def touched(root: Path, recorded: str) -> list[str]:
    """Return the paths that were added, removed or changed after `recorded = index(root)`, sorted."""
    before: dict[str, list[int]] = json.loads(recorded)
    now = _index(root) if root.is_dir() else {}
    return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))


def _index(root: Path) -> dict[str, list[int]]:
    table: dict[str, list[int]] = {}
    for path, status in entries(root):
        directory = stat.S_ISDIR(status.st_mode)
        table[path] = [status.st_mode] if directory else [status.st_mode, status.st_size, status.st_mtime_ns]
    return table
