# SPDX-License-Identifier: Apache-2.0
"""Find newer versions of sources, and update recipes to them.

outdated [RECIPE…] (on demand) -> a table          bump:RECIPE VERSION (on demand) -> recipes/RECIPE/recipe.toml
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Iterator

from nabla.core import log
from nabla.core.errors import PatchError, RecipeError
from nabla.core.paths import relative
from nabla.engine import task
from nabla.engine.task import TaskDict
from nabla.sources import fetch, recipe, store
from nabla.sources.recipe import Recipe, Source
from nabla.update import bump, outdated, recipe_edit, try_patches
from verify import report

_KEEP = {
    "name": "keep",
    "long": "keep",
    "type": bool,
    "default": False,
    "help": "write the recipe even if patches do not apply",
}


def task_outdated() -> TaskDict:
    """List newer versions at the origins."""
    return task.command(
        "outdated",
        show_outdated,
        doc="list newer versions of all recipes or of the named ones: doit outdated [RECIPE…] [--json]",
        params=[{"name": "as_json", "long": "json", "type": bool, "default": False, "help": "print JSON"}],
        words="names",
    )


def task_bump() -> Iterator[TaskDict]:
    """Update a source to another version."""
    yield task.group("bump", "update a source to another version: doit bump:RECIPE [--keep] VERSION")
    for name in recipe.names():
        yield task.command(
            f"bump:{name}",
            take,
            doc=f"fetch and verify another version of {name}, try its patches, write it into the recipe",
            args=[name],
            params=[_KEEP],
            words="words",
            grouped=True,
        )


def take(name: str, words: list[str], keep: bool) -> None:
    """Update a recipe to another version; `FetchError`, `RecipeError` and `PatchError` leave it unchanged."""
    if len(words) != 1:
        raise RecipeError("a bump needs the new version", f"doit bump:{name} 1.2.3")
    _take(recipe.load(name), words[0], keep)


def _take(loaded: Recipe, version: str, keep: bool) -> None:
    number, source = bump.the_source(loaded)
    results = bump.find(loaded, source, version)
    if number == 0 and loaded.patches:
        _try_patches(loaded, source, version, dict.fromkeys(f.new.sha256 for f in results if f.new), keep)
    before = loaded.path.read_text(encoding="utf-8")
    after = recipe_edit.rewrite(before, number, [result.new for result in results], version)
    _write(loaded, after)
    for result in results:
        where = fetch.provider(result.old)
        if result.new is None:
            log.warn(f"{loaded.name}: removed the origin {fetch.describe(result.old)}: {result.problem}")
        elif result.problem:
            log.warn(
                f"{loaded.name}: {where} did not answer ({result.problem}); it has the signed file of another origin"
            )
        else:
            log.info(f"{loaded.name}: {where} has {result.new.file}, sha256 {result.new.sha256}")
    log.info(f"{relative(loaded.path)}: updated from {loaded.version} to {version}")
    for line in recipe_edit.mentions(after, loaded.version):
        log.info(f"{relative(loaded.path)} still contains {loaded.version} in line {line}")


def _try_patches(loaded: Recipe, source: Source, version: str, files: Iterable[str], keep: bool) -> None:
    """Try the patches on the new files. Raises `PatchError` if one does not apply, or with `keep` only warns."""
    for sha256 in files:
        problems = try_patches.failures(store.cache().path(sha256), source, loaded.patches)
        if not problems:
            log.info(f"{loaded.name}: all {len(loaded.patches)} patches apply to {version}")
            continue
        text = "\n".join(f"{error.message}\n{textwrap.indent(error.hint, '  ')}" for error in problems)
        head = f"{len(problems)} of {len(loaded.patches)} patches do not apply to {loaded.name} {version}"
        if not keep:
            hint = f"the recipe is unchanged; `doit bump:{loaded.name} --keep {version}` writes it anyway\n{text}"
            raise PatchError(head, hint)
        log.warn(f"{head}:\n{text}")


def _write(loaded: Recipe, text: str) -> None:
    """Replace the recipe by a text that is a valid recipe."""
    partial = loaded.path.with_name(f".{loaded.path.name}.new")
    try:
        partial.write_text(text, encoding="utf-8")
        recipe.load_file(partial)
        partial.rename(loaded.path)
    finally:
        partial.unlink(missing_ok=True)


def show_outdated(names: list[str], as_json: bool) -> None:
    """Print the table. Raises `OfflineError`, `FetchError`, `RecipeError`."""
    answers = outdated.query(names or recipe.names())
    if as_json:
        print(report.as_json([dataclasses.asdict(answer) for answer in answers]))
        return
    print(report.table(("recipe", "current", "newest", "where"), outdated.rows(answers)))
    problems = outdated.problems(answers)
    if problems:
        print("\nno answer from:\n" + "\n".join(f"  {line}" for line in problems))
