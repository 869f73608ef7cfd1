# SPDX-License-Identifier: Apache-2.0
"""recipe:lint (on demand): check recipes, and the files of built packages."""

from __future__ import annotations

from collections.abc import Iterator

from nabla.core import log
from nabla.core.artifacts import package_record
from nabla.core.errors import NablaError
from nabla.engine import task
from nabla.engine.task import TaskDict
from nabla.packages import catalog
from nabla.packages.lint import contents, recipes


class LintError(NablaError):
    """A recipe or a package violates a rule."""


def task_recipe_lint() -> Iterator[TaskDict]:
    """Check recipes and packages."""
    yield task.command(
        "recipe:lint",
        lint,
        doc="check recipes, and the files of built packages: doit recipe:lint [NAME…]",
        words="words",
    )


def lint(words: list[str]) -> None:
    """Print the violations of all recipes, or of the named ones. Raises `LintError` if there are any."""
    names = words or [loaded.name for loaded in catalog.all_recipes()]
    findings: list[recipes.Finding] = []
    built = 0
    for name in names:
        findings += recipes.examine(catalog.load(name))
        if package_record(name).is_file():
            findings += contents.examine(name)
            built += 1
    for each in findings:
        log.info(f"{each.component}: {each.rule}: {each.sentence}")
    if findings:
        raise LintError(
            f"violations: {len(findings)}; checked recipes: {len(names)}", "docs/packages.md explains the rules"
        )
    log.info(f"{len(names)} recipes have no violation; {built} of them are built, and their files have none")
