# SPDX-License-Identifier: Apache-2.0
"""The common ground of a client and a worker: the commit, and the data in which a checkout differs from it.

A worker runs only the code of its own commit. Data, such as recipes, patches and kernel options, may differ from the
commit: the changed files travel through the store, by digest, and only to folders of data.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from nabla.core import files
from nabla.core.errors import CommandError, ConfigError
from nabla.core.paths import ROOT
from nabla.core.process import run

# Folders whose files are compiled or read in the sandbox, but never run outside of it.
DATA = ("init", "kernel-config", "launcher", "oci", "patches", "recipes", "rootfs")
# Folders that no step on another machine reads.
_IRRELEVANT = (".ci", ".github", "bench", "demo", "digests", "docs", "tests")
_REMOVED = "removed"
_CHANGED = "changed"


def commit(root: Path = ROOT) -> str:
    """Return the commit of a checkout. Raises `ConfigError` if it is not a git checkout."""
    try:
        return _git(root, "rev-parse", "--verify", "HEAD^{commit}").strip()
    except CommandError:
        raise ConfigError(f"{root} is not a git checkout", "a farm compares commits: clone the repository") from None


def changes(root: Path = ROOT) -> list[str]:
    """Return the paths of data that differ from the commit. Raises `ConfigError` if code differs."""
    changed = _git(root, "diff", "--name-only", "-z", "--no-renames", "HEAD", "--").split("\0")
    new = _git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    paths = sorted({*changed, *new} - {""})
    code = [path for path in paths if not _is_in(path, DATA) and not _is_in(path, _IRRELEVANT) and _is_code(path)]
    if code:
        more = f" and {len(code) - 1} more" if len(code) > 1 else ""
        raise ConfigError(
            f"{code[0]}{more} differs from the commit: workers run only the code of their own commit",
            "commit the change, and update the workers to that commit",
        )
    return [path for path in paths if _is_in(path, DATA)]


def write_changes(paths: Sequence[str], target: Path, root: Path = ROOT) -> None:
    """Write changed data to a new folder `target`, with the list of removed files."""
    removed: list[str] = []
    (target / _CHANGED).mkdir(parents=True)
    for name in paths:
        source, copy = root / name, target / _CHANGED / name
        if source.is_symlink() or not source.exists():
            removed.append(name)
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        copy.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
    (target / _REMOVED).write_text("".join(f"{name}\n" for name in removed), encoding="utf-8")


def apply_changes(source: Path, root: Path) -> None:
    """Apply the output of `write_changes` to a clean checkout. Raises `ConfigError` for a path outside of the data."""
    changed, removed = source / _CHANGED, (source / _REMOVED).read_text(encoding="utf-8").splitlines()
    copies = []
    for folder, _, names in os.walk(changed):
        for name in names:
            path = Path(folder) / name
            copies.append(str(path.relative_to(changed)))
            if not stat.S_ISREG(path.lstat().st_mode):
                raise ConfigError(f"the changed data contains {copies[-1]!r}, which is not a file")
    for name in (*copies, *removed):
        if not _is_in(name, DATA) or ".." in Path(name).parts:
            raise ConfigError(f"the changed data contains {name!r}, which is outside of the folders of data")
    for name in copies:
        target = root / name
        files.make_folder(target.parent)
        files.remove(target)
        shutil.copy(changed / name, target)
    for name in removed:
        files.remove(root / name)


def clone(root: Path, wanted: str, source: Path = ROOT) -> None:
    """Make `root` a clean checkout of a commit of this repository; its outputs stay."""
    if not (root / ".git").exists():
        files.remove(root)
        files.make_folder(root.parent)
        _git(source, "clone", "--quiet", "--shared", "--no-checkout", str(source), str(root))
    _git(root, "checkout", "--quiet", "--force", "--detach", wanted)
    # Ignored files, the outputs, stay.
    _git(root, "clean", "--quiet", "-ffd")


def _is_in(path: str, folders: Sequence[str]) -> bool:
    return path.partition("/")[0] in folders and "/" in path


def _is_code(path: str) -> bool:
    # Documents beside the code do not affect steps.
    return not ("/" not in path and path.endswith(".md"))


def _git(root: Path, *words: str) -> str:
    # The checkout may belong to another user.
    argv = ["git", "-c", "safe.directory=*", "-C", str(root), *words]
    return run(argv, env={"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}).stdout
