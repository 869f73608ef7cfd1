# SPDX-License-Identifier: Apache-2.0
"""The locked inputs of a checkout: its commit, its lock files, and the sources in its recipes."""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from verify.release.files import sha256
from verify.release.statement import Dependency

ROOT = Path(__file__).resolve().parents[2]


def commit(root: Path = ROOT) -> str | None:
    """Return the commit of a checkout: `$NABLA_COMMIT`, else from git; None without git."""
    if os.environ.get("NABLA_COMMIT"):
        return os.environ["NABLA_COMMIT"]
    # Without the check for .git, git would find the repository of a parent folder.
    if not (root / ".git").exists():
        return None
    argv = ["git", "-c", f"safe.directory={root}", "-C", str(root), "rev-parse", "--verify", "HEAD"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def sources(root: Path = ROOT) -> Iterator[Dependency]:
    """Yield the lock files and the sources of a checkout."""
    for path in (*(root / "toolchain").glob("*.lock"), root / "requirements.txt"):
        yield Dependency(str(path.relative_to(root)), "sha256", sha256(path))
    for path in (root / "recipes").glob("*/recipe.toml"):
        yield Dependency(str(path.relative_to(root)), "sha256", sha256(path))
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
        for source in recipe.get("source", ()):
            for origin in source.get("origin", ()):
                address = origin["url"][0] if "url" in origin else ""
                # An origin without `file` has the file name in its address or its path in the archive.
                name = origin.get("file") or PurePosixPath((address or origin["pool"]).split("?")[0]).name
                yield Dependency(f"recipes/{path.parent.name}/{name}", "sha256", origin["sha256"], address)
