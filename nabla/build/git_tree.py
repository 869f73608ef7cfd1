# SPDX-License-Identifier: Apache-2.0
"""A git tree of a component's source with one commit per patch, and its export as a patch series.

`create` tags upstream's source `upstream` and applies patches/NAME on top of it; `export` writes the commits after that
tag to patches/NAME. Neither depends on the user's git configuration, except for the author of new commits, so a commit
that was not changed exports to an unchanged file.
"""

from __future__ import annotations

import re
from pathlib import Path

from nabla.core import process
from nabla.core.errors import CommandError, PatchError
from nabla.core.paths import OUT, PATCHES, relative
from nabla.sources import fetch, recipe
from nabla.sources.recipe import Recipe

BASE = "upstream"

# git need not sync its files: they are removed with the tree.
_SPEED = ("-c", "core.compression=0", "-c", "core.fsync=none", "-c", "gc.auto=0", "-c", "core.autocrlf=false")
_COMMITTER = ("-c", "user.name=nabla", "-c", "user.email=developers@nabla.invalid")
_NO_SETTINGS = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


def folder(name: str) -> Path:
    """Return the folder of a recipe's git tree."""
    return OUT / "tree" / name


def create(name: str) -> Path:
    """Create the tree of a recipe; returns its folder.

    Raises `PatchError` if the tree exists or a patch does not apply, in which case `git am` is left to be continued.
    """
    loaded, tree = recipe.load(name), folder(name)
    if tree.exists():
        raise PatchError(f"{relative(tree)} exists", f"export it by `doit patches:export {name}`, or remove it")
    source = loaded.source[0]
    if source.local is not None:
        raise PatchError(f"{name}: the source is {source.local}/ in this repository; it has no patches")
    archive = fetch.fetch(source)
    tree.mkdir(parents=True)
    process.run(["tar", "-xf", archive, f"--strip-components={source.strip}", "--no-same-owner"], cwd=tree)
    _git(tree, "init", "--quiet", "--initial-branch=series")
    # The user's commits must not start a repack either, which would take minutes.
    _git(tree, "config", "gc.auto", "0")
    _git(tree, "add", "--all", "--force")
    dates = {f"GIT_{role}_DATE": "2026-01-01T00:00:00Z" for role in ("AUTHOR", "COMMITTER")}
    _git(tree, "commit", "--quiet", "--message", _title(loaded), **dates)
    _git(tree, "tag", BASE)
    if loaded.patches:
        try:
            _git(tree, "am", "--quiet", "--committer-date-is-author-date", *map(str, loaded.patches))
        except CommandError as error:
            hint = f"repair it in {relative(tree)}, then run `git am --continue` there\n{error.hint}"
            raise PatchError(f"{name}: a patch does not apply", hint) from error
    return tree


def export(name: str) -> list[Path]:
    """Write the commits of a recipe's tree to patches/NAME; returns the files. Raises `PatchError`."""
    loaded, tree = recipe.load(name), folder(name)
    if not tree.exists():
        raise PatchError(f"there is no {relative(tree)}", f"create it: doit patches:tree {name}")
    if _git(tree, "log", "-1", "--format=%s", BASE).strip() != _title(loaded):
        raise PatchError(f"{relative(tree)} is not a tree of {_title(loaded)}", "remove it and create it again")
    if _git(tree, "status", "--porcelain", "--untracked-files=no"):
        raise PatchError(f"{relative(tree)} has uncommitted changes", "commit or revert them")
    if _git(tree, "rev-list", "--count", f"{BASE}..HEAD").strip() == "0":
        raise PatchError(f"{relative(tree)} has no commit after the tag {BASE}")
    new = tree / ".git" / "series"
    words = ["--zero-commit", "--no-signature", "--no-numbered", f"--abbrev={_abbreviation(loaded)}"]
    _git(tree, "format-patch", "--quiet", *words, "--output-directory", str(new), f"{BASE}..HEAD")
    target = PATCHES / name
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.patch"):
        if not (new / old.name).exists():
            old.unlink()
    written = []
    for path in sorted(new.iterdir()):
        # A file that stays the same keeps its time.
        if not (target / path.name).exists() or (target / path.name).read_bytes() != path.read_bytes():
            (target / path.name).write_bytes(path.read_bytes())
        path.unlink()
        written.append(target / path.name)
    return written


def _title(loaded: Recipe) -> str:
    return f"{loaded.name} {loaded.version}"


def _abbreviation(loaded: Recipe) -> int:
    """Return the length of blob names in the present series; git derives it from the number of a tree's objects."""
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in loaded.patches)
    lengths = [len(name) for text in texts for name in re.findall(r"^index [0-9a-f]+\.\.([0-9a-f]+)", text, re.M)]
    return min(lengths, default=12)


def _git(tree: Path, *words: str, **variables: str) -> str:
    return process.run(
        ["git", *_SPEED, *_COMMITTER, "-c", f"safe.directory={tree}", *words], cwd=tree, env=_NO_SETTINGS | variables
    ).stdout
