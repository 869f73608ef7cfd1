# SPDX-License-Identifier: Apache-2.0
"""The version of the checkout, from the tags of git; `v1.2.3` is the tag of version 1.2.3.

    tag on this commit      1.2.3
    tag on an earlier one   1.2.3-dev; 0.0.0-dev without a tag or without git
    $NABLA_VERSION          its value

The version of a commit without a tag does not contain its digest, so artifacts do not change between commits unless
their inputs change. The provenance of a release names its commit.
"""

from __future__ import annotations

import os
import re
import shutil
from functools import cache
from pathlib import Path

from nabla.core.errors import ConfigError
from nabla.core.paths import ROOT
from nabla.core.process import run

NO_TAG = "0.0.0"
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_DESCRIBED = re.compile(r"v(?P<version>.+)-(?P<distance>[0-9]+)-g[0-9a-f]+")


def version(root: Path = ROOT) -> str:
    """Return the version of a checkout. Raises `ConfigError` for an invalid `$NABLA_VERSION`."""
    return _explicit("NABLA_VERSION", _VERSION, "like 1.2.3 or 1.2.3-rc1") or _described(root)


def commit(root: Path = ROOT) -> str | None:
    """Return the commit of a checkout: `$NABLA_COMMIT`, else from git; None without git.

    Raises `ConfigError` if the variable is invalid.
    """
    return _explicit("NABLA_COMMIT", _COMMIT, "40 or 64 lower-case hexadecimal digits") or _git(
        root, "rev-parse", "--verify", "HEAD"
    )


def is_modified(root: Path = ROOT) -> bool:
    """Return whether files of a checkout differ from its commit, including untracked files, but not ignored ones.

    With `$NABLA_COMMIT` the user is responsible for that.
    """
    return not os.environ.get("NABLA_COMMIT") and bool(_git(root, "status", "--porcelain"))


def has_history(root: Path = ROOT) -> bool:
    """Return whether a checkout belongs to git, even if the program git is missing."""
    return (root / ".git").exists()


@cache
def _described(root: Path) -> str:
    text = _git(root, "describe", "--tags", "--long", "--match", "v[0-9]*.[0-9]*.[0-9]*")
    match = _DESCRIBED.fullmatch(text or "")
    if match is None or not _VERSION.fullmatch(match["version"]):
        return f"{NO_TAG}-dev"
    return match["version"] if match["distance"] == "0" else f"{match['version']}-dev"


def _git(root: Path, *words: str) -> str | None:
    # Without the check for .git, git would find the repository of a parent folder.
    if not has_history(root) or shutil.which("git") is None:
        return None
    # Reading a checkout of another user is safe.
    result = run(["git", "-c", f"safe.directory={root}", "-C", root, *words], check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def _explicit(name: str, pattern: re.Pattern[str], words: str) -> str | None:
    value = os.environ.get(name)
    if value and not pattern.fullmatch(value):
        raise ConfigError(f"${name} is {value!r}", f"it must be {words}")
    return value or None
