# SPDX-License-Identifier: Apache-2.0
"""sha256 of files, folders, Python code and configuration data.

A database caches the digests of files by (path, device, inode, size, mtime, ctime), so that a build without changes
does not read artifacts again. The kernel sets ctime and no program can reset it, so a clamped mtime cannot hide a
change. A file that has just changed is not cached: a second change could have the same times.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nabla.core import manifest
from nabla.core.paths import STATE

_CHUNK = 1 << 20
# A file system's clock may have a resolution of 10 ms (jiffies); a change within this time could be missed.
_SETTLED_NS = 50_000_000

_local = threading.local()  # connection, owner: the process that opened it


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file, cached while its status does not change. Raises OSError."""
    return cached("sha256", path, manifest.file_sha256)


def python_digest(path: Path) -> str:
    """Return a digest of the code in a Python file, without comments, layout and docstrings."""
    return cached("python", path, _python_digest)


def config_digest(data: Any) -> str:
    """Return the digest of JSON data; the order of keys is irrelevant."""
    return sha256_bytes(canonical(data).encode())


def canonical(data: Any) -> str:
    """Return the canonical text of JSON data. Raises TypeError for other data."""
    return json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def tree_digest(root: Path) -> str:
    """Return the digest of a folder's manifest, cached while no entry's status changes. Raises OSError."""
    return cached("tree", root, manifest.digest)


def path_digest(path: Path) -> str | None:
    """Return the digest of a file or folder, or None if it does not exist."""
    try:
        return tree_digest(path) if path.is_dir() else sha256_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def sha512_file(path: Path) -> str:
    """Return the SHA-512 of a file, cached while its status does not change. Raises OSError."""
    return cached("sha512", path, _sha512)


def _sha512(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha512").hexdigest()


def _python_digest(path: Path) -> str:
    module = ast.parse(path.read_bytes())
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            first = body[0] if body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = body[1:]
    return sha256_bytes(ast.dump(module).encode())


def cached(kind: str, path: Path, compute: Callable[[Path], str]) -> str:
    """Return `compute(path)`, cached while the status of the file or folder does not change."""
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
        # Without a usable database the digest is computed again.
        with suppress(sqlite3.Error):
            database.execute("insert or replace into digests values (?, ?, ?)", (key, before, digest))
    return digest


def _status(path: Path) -> tuple[str, int]:
    """Return a text that changes with the file, or with any entry of the folder, and the newest ctime in ns."""
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
    """Return the connection of this thread; a connection of SQLite must not cross a fork."""
    if getattr(_local, "owner", 0) != os.getpid():
        try:
            STATE.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(STATE / "digests.sqlite", timeout=10, isolation_level=None)
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=off")
            connection.execute("create table if not exists digests (key text primary key, status text, digest text)")
            _local.connection = connection
        except (sqlite3.Error, OSError):
            _local.connection = None
        _local.owner = os.getpid()
    connection_of_thread: sqlite3.Connection | None = _local.connection
    return connection_of_thread
