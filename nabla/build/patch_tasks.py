# SPDX-License-Identifier: Apache-2.0
"""Work on a patch series with git.

patches:tree NAME (on demand)   -> out/tree/NAME, one commit per patch
patches:export NAME (on demand) -> patches/NAME/NNNN-title.patch
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.build import git_tree
from nabla.core import log
from nabla.core.errors import PatchError
from nabla.core.paths import relative
from nabla.engine import task
from nabla.engine.task import TaskDict


def task_patches() -> Iterator[TaskDict]:
    """Convert a series into a git tree, and back."""
    for name, action, doc in (
        ("tree", create, "create a git tree of a source with one commit per patch: doit patches:tree NAME"),
        ("export", export, "write the commits of that git tree to patches/NAME: doit patches:export NAME"),
    ):
        yield task.command(f"patches:{name}", action, doc=doc, words="words")


def create(words: list[str]) -> None:
    """Create the git tree of one recipe."""
    name = _only(words, "tree")
    log.info(f"{relative(git_tree.create(name))}: commit changes there, then run `doit patches:export {name}`")


def export(words: list[str]) -> None:
    """Export the git tree of one recipe."""
    name = _only(words, "export")
    log.info(f"patches/{name}: {len(git_tree.export(name))} patches")


def _only(words: list[str], command: str) -> str:
    if len(words) != 1:
        raise PatchError(f"patches:{command} needs the name of a recipe", f"doit patches:{command} linux")
    return words[0]
