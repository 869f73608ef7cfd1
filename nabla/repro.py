# SPDX-License-Identifier: Apache-2.0
"""Build a second time, as differently as this host allows, and compare the bytes.

The second build happens in a copy of the checkout: another path (with a blank and a letter outside ASCII), another user
(in a user namespace, as only root could really become one), another umask, time zone, locale, home, number of jobs, and
an empty compiler cache; only checked downloads are shared. What differs in the result would differ between two people.

Packages take long: images are compared with those of the first build, `doit repro:packages` compiles them all again.
They are signed with one key, an input like any other.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nabla import apk, digest, log, sandbox, store, tasklib, tree
from nabla.errors import NablaError
from nabla.paths import ROOT, STATE, cache_dir, relative
from nabla.run import run

OTHER_USER = "4321"
_RECORD = STATE / "second-build"
_NOT_COPIED = ("out", ".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")


class DifferenceError(NablaError):
    """Two builds of the same thing differ."""


@dataclass(frozen=True)
class SecondBuild:
    """The copy of the checkout at `root`, with a cache of its own beside it."""

    root: Path

    @property
    def base(self) -> Path:
        """The folder of all that belongs to this second build."""
        return self.root.parent

    def build(self, tasks: Sequence[str], task_log: Path, *, fresh_packages: bool = False) -> None:
        """Run doit there, offline. Raises `CommandError`."""
        packages = self.base / "cache" / "packages"
        tasklib.remove(packages)
        if not fresh_packages:
            _share_packages(packages)
        # umask has no program of its own, hence the shell.
        words = ["/bin/sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-m", "doit", *tasks]
        words = ["bwrap", "--unshare-user", "--uid", OTHER_USER, "--gid", OTHER_USER, "--dev-bind", "/", "/", *words]
        variation = {
            "HOME": str(self.base / "home"),
            "NABLA_CACHE": str(self.base / "cache"),
            "NABLA_JOBS": str(sandbox.jobs() + 1),
            "NABLA_KEYS": str(apk.keys_dir()),
            "NABLA_OFFLINE": "1",
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TZ": "<+1345>-13:45",
            "LANG": "tr_TR.UTF-8",
            "LC_ALL": "tr_TR.UTF-8",
            "TMPDIR": str(self.base / "tmp"),
            "USER": "someone",
        }
        run(words, cwd=self.root, env=variation, log=task_log)

    def sums(self, artifacts: Sequence[Path]) -> list[str]:
        """Compare artifacts of this checkout with those there; returns a line `sha256  path` for each.

        Raises `DifferenceError` naming the first file that differs, `NablaError` where one is missing.
        """
        lines = []
        for first in artifacts:
            second = self.root / first.relative_to(ROOT)
            for path in (first, second):
                if not path.exists():
                    raise NablaError(f"{relative(path)} was not built")
            one, other = _manifest(first), _manifest(second)
            if one != other:
                names = sorted({line.split(" ", 3)[3] for line in set(one) ^ set(other)})
                place = relative(first) if first.is_file() else f"{relative(first)}/{names[0]}"
                hint = f"compare it with {second if first.is_file() else second / names[0]}"
                raise DifferenceError(f"two builds differ: {place} ({len(names)} such entries)", hint)
            lines.append(f"{digest.path_digest(first)}  {relative(first)}")
        return lines


def prepare() -> SecondBuild:
    """Make a fresh second checkout, after removing that of an earlier call. Raises `NablaError`, `DiskFullError`."""
    discard()
    base = Path(tempfile.mkdtemp(prefix="nabla-second-"))
    store.make_folder(STATE)
    _RECORD.write_text(str(base))
    second = SecondBuild(base / "ein anderer Ört")
    with log.step(f"copy the checkout to {second.root}"):
        shutil.copytree(ROOT, second.root, symlinks=True, ignore=_ignored)
        for name in ("home", "tmp"):
            (base / name).mkdir()
        _share_downloads(base / "cache")
    return second


def current() -> SecondBuild:
    """Return the second checkout that `prepare` made. Raises `NablaError` where there is none."""
    try:
        base = Path(_RECORD.read_text())
        root = next(path for path in base.iterdir() if (path / "dodo.py").exists())
    except (OSError, StopIteration):
        raise NablaError("there is no second checkout", "run `doit repro`") from None
    return SecondBuild(root)


def discard() -> None:
    """Remove the second checkout, if there is one."""
    try:
        base = Path(_RECORD.read_text())
    except FileNotFoundError:
        return
    if base.name.startswith("nabla-second-") and base.is_dir():
        tasklib.remove(base)
    _RECORD.unlink()


def _ignored(folder: str, names: list[str]) -> set[str]:
    top = Path(folder) == ROOT
    return {name for name in names if name in _NOT_COPIED and (top or name.startswith((".", "_")))}


def _share_downloads(cache: Path) -> None:
    """Offer the checked downloads to the second build: links where possible, they are never written to."""
    for path in (cache_dir() / "sha256").glob("??/*"):
        target = cache / path.relative_to(cache_dir())
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copy(path, target)


def _share_packages(target: Path) -> None:
    """Offer what the first build made of recipes with packages."""
    source = cache_dir() / "packages"
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _manifest(path: Path) -> list[str]:
    if path.is_dir():
        return tree.manifest(path).splitlines()
    return [f"f - {digest.sha256_file(path)} {path.name}"]
