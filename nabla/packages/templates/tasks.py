# SPDX-License-Identifier: Apache-2.0
"""Help for packagers: a template for a new recipe, and the graph of build dependencies.

recipe:new NAME VERSION (on demand) -> recipes/NAME/recipe.toml
graph (on demand)                   -> out/graph/packages.{dot,md}
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.core import log
from nabla.core.errors import RecipeError
from nabla.core.paths import OUT, RECIPES, relative
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.task import TaskDict
from nabla.packages import catalog
from nabla.packages.templates import render

GRAPH = OUT / "graph"


def task_recipe() -> Iterator[TaskDict]:
    """Write the template of a recipe."""
    yield task.command(
        "recipe:new",
        new,
        doc="write the template of a recipe: doit recipe:new NAME VERSION; reads the source, if Debian has it",
        words="words",
    )


def task_graph() -> TaskDict:
    """Draw the build dependencies."""
    return task.step(
        "graph",
        draw,
        doc="draw the build dependencies of recipes: out/graph/packages.dot and .md",
        outputs=[GRAPH / "packages.dot", GRAPH / "packages.md"],
        config={name: list(catalog.needs(name)) for name in catalog.names()},
    )


def new(words: list[str]) -> None:
    """Write recipes/NAME/recipe.toml. Raises `RecipeError` if it exists or the name is invalid."""
    if len(words) != 2:
        raise RecipeError("recipe:new needs a name and a version", "doit recipe:new zlib 1.3.1")
    name, version = words
    # Before Debian's archive is asked, and before a path is derived from the name.
    render.check_names(name, version)
    path = RECIPES / name / "recipe.toml"
    if path.exists():
        raise RecipeError(f"{relative(path)} is there already")
    package = render.look_up(name, version)
    seen = render.look_into(package) if package is not None else None
    text = render.render(name, version, package, seen, catalog.owners())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    how = f", built by {seen.system}" if seen is not None and seen.system else ""
    log.info(f"{relative(path)}{how}: check it, replace the capitalized words, then run `doit packages:{name}`")


def draw(job: Job) -> None:
    """Write the graph in the languages of graphviz and mermaid, which repository sites render."""
    edges = {name: catalog.needs(name) for name in catalog.names()}
    job.out(GRAPH / "packages.dot").write_text(render.as_dot(edges), encoding="utf-8")
    job.out(GRAPH / "packages.md").write_text(render.as_mermaid(edges), encoding="utf-8")
