# SPDX-License-Identifier: Apache-2.0
"""A series as a git tree and back, with musl's source and git itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nabla.build import git_tree, patch_tasks
from nabla.core import paths
from nabla.core.errors import PatchError
from nabla.sources import recipe


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> Path:
    """The git tree of musl, with a copy of its series."""
    monkeypatch.setenv("NABLA_CACHE", str(user_cache))
    shutil.copytree(paths.PATCHES / "musl", tmp_path / "patches" / "musl")
    monkeypatch.setattr(git_tree, "PATCHES", tmp_path / "patches")
    monkeypatch.setattr(git_tree, "OUT", tmp_path / "out")
    return git_tree.create("musl")


def git(tree: Path, *words: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", f"safe.directory={tree}"]
    subprocess.run(["git", *who, *words], cwd=tree, check=True, capture_output=True)


def series(tree: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tree.parents[2] / "patches" / "musl").iterdir()}


def test_round_trip(tree: Path) -> None:
    """Unchanged commits give unchanged files; a new commit is one more; a dropped one is one less."""
    before = series(tree)
    names = [path.name for path in git_tree.export("musl")]
    assert (series(tree), names) == (before, sorted(before))
    (tree / "VERSION").write_text("1.2.5-mine\n")
    git(tree, "commit", "--all", "--message", "version: name this library")
    (new,) = {path.name for path in git_tree.export("musl")} - before.keys()
    assert new.endswith("-version-name-this-library.patch")
    git(tree, "reset", "--hard", "HEAD~2")
    git_tree.export("musl")
    assert series(tree) == {name: before[name] for name in sorted(before)[:-1]}


def test_errors(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = series(tree)
    with pytest.raises(PatchError, match=r"tree/musl exists"):
        git_tree.create("musl")
    (tree / "VERSION").write_text("changed\n")
    with pytest.raises(PatchError, match="uncommitted changes"):
        git_tree.export("musl")
    git(tree, "reset", "--hard", git_tree.BASE)
    with pytest.raises(PatchError, match="no commit after the tag upstream"):
        git_tree.export("musl")
    git(tree, "commit", "--allow-empty", "--message", "musl 0.9")
    git(tree, "tag", "--force", git_tree.BASE)
    with pytest.raises(PatchError, match=r"is not a tree of musl 1"):
        git_tree.export("musl")
    shutil.rmtree(tree)
    with pytest.raises(PatchError, match="there is no"):
        git_tree.export("musl")
    with pytest.raises(PatchError, match=r"launcher/ in this repository"):
        git_tree.create("nabla-run")
    with pytest.raises(PatchError, match="needs the name of a recipe"):
        patch_tasks.create([])
    assert series(tree) == before


def test_a_patch_that_does_not_apply_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """git stops at it, and can continue after a repair."""
    shutil.rmtree(tree)
    first = recipe.load("musl").patches[0]
    monkeypatch.setattr(recipe.Recipe, "patches", property(lambda self: (first, first)))
    with pytest.raises(PatchError, match="musl: a patch does not apply") as caught:
        git_tree.create("musl")
    assert "out/tree/musl" in caught.value.hint
    assert (tree / ".git" / "rebase-apply").is_dir()
