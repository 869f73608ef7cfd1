# SPDX-License-Identifier: Apache-2.0
"""Digests and entries of files on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


def sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha512(path: Path) -> str:
    """Return the SHA-512 of a file in hexadecimal. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha512").hexdigest()


def entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path, relative to `root`, and the status of each entry below it; does not follow links."""
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(folder, name)
            yield str(path.relative_to(root)), path.lstat()
