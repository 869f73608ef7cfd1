# SPDX-License-Identifier: Apache-2.0
"""sha256 of files, folders, Python code and configuration data.

Digests of files are remembered in a small database by (path, device, inode, size, mtime, ctime), so that a build with
nothing to do reads no artifact again. The kernel sets ctime itself and nobody can set it back: a clamped mtime cannot
hide a change. A file changed within the last moments is not remembered: a second change could carry the same times.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nabla.core import manifest
from nabla.core.paths import STATE

_CHUNK = 1 << 20
# The clock of a file system may tick as seldom as each 10 ms (jiffies); a change within this time could stay unseen.
_SETTLED_NS = 50_000_000

_connection: sqlite3.Connection | None = None
_owner = 0


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file, remembered while its status does not change. Raises OSError."""
    return remembered("sha256", path, manifest.file_sha256)


def python_digest(path: Path) -> str:
    """Return a digest of what a Python file does: comments, layout and docstrings do not count."""
    return remembered("python", path, _python_digest)


def config_digest(data: Any) -> str:
    """Return the digest of JSON data; the order of keys does not count."""
    return sha256_bytes(canonical(data).encode())


def canonical(data: Any) -> str:
    """Return JSON data as the one text it always has. Raises TypeError for anything else than JSON data."""
    return json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def tree_digest(root: Path) -> str:
    """Return the digest of a folder's manifest, remembered while no entry's status changes. Raises OSError."""
    return remembered("tree", root, manifest.digest)


def path_digest(path: Path) -> str | None:
    """Return the digest of a file or folder, or None where there is neither."""
    try:
        return tree_digest(path) if path.is_dir() else sha256_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _python_digest(path: Path) -> str:
    module = ast.parse(path.read_bytes())
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            first = body[0] if body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = body[1:]
    return sha256_bytes(ast.dump(module).encode())


def remembered(kind: str, path: Path, compute: Callable[[Path], str]) -> str:
    """Return `compute(path)`, taken from the database while the status of the file or folder does not change."""
    key = f"{kind}:{os.path.abspath(path)}"
    before, _ = _status(path)
    database = _database()
    if database is not None:
        with suppress(sqlite3.Error):
            row = database.execute("select status, digest from digests where key = ?", (key,)).fetchone()
            if row is not None and row[0] == before:
                return str(row[1])
    digest = compute(path)
    after, changed_ns = _status(path)
    if database is not None and before == after and time.time_ns() - changed_ns > _SETTLED_NS:
        # A database that is locked or full costs time, not correctness.
        with suppress(sqlite3.Error):
            database.execute("insert or replace into digests values (?, ?, ?)", (key, before, digest))
    return digest


def _status(path: Path) -> tuple[str, int]:
    """Return a text that changes whenever the file, or any entry of the folder, does, and the newest ctime in ns."""
    info = path.stat()
    if not stat.S_ISDIR(info.st_mode):
        return _identity(info), info.st_ctime_ns
    newest = info.st_ctime_ns
    entries: list[str] = []
    pending = [os.fspath(path)]
    while pending:
        with os.scandir(pending.pop()) as listing:
            for entry in listing:
                info = entry.stat(follow_symlinks=False)
                entries.append(f"{entry.path} {_identity(info)}")
                newest = max(newest, info.st_ctime_ns)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return sha256_bytes("\n".join(sorted(entries)).encode(errors="surrogateescape")), newest


def _identity(info: os.stat_result) -> str:
    return f"{info.st_mode:o} {info.st_dev} {info.st_ino} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}"


def _database() -> sqlite3.Connection | None:
    """Return this process's own connection: SQLite's must not be used across a fork."""
    global _connection, _owner
    if _connection is None or _owner != os.getpid():
        try:
            STATE.mkdir(parents=True, exist_ok=True)
            _connection = sqlite3.connect(STATE / "digests.sqlite", timeout=10, isolation_level=None)
            _connection.execute("pragma journal_mode=wal")
            _connection.execute("pragma synchronous=off")
            _connection.execute("create table if not exists digests (key text primary key, status text, digest text)")
        except (sqlite3.Error, OSError):
            _connection = None
        _owner = os.getpid()
    return _connection
