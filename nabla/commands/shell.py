# SPDX-License-Identifier: Apache-2.0
"""Open a shell in the build sandbox: `doit shell [RECIPE]`."""

from __future__ import annotations

import sys

from nabla.build import component, kernel, source_tree
from nabla.build.source_tree import Work
from nabla.core import files
from nabla.core.errors import HostError, NablaError
from nabla.engine.action import Job, log_path
from nabla.packages import builder
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources import recipe
from nabla.sources.recipe import PackageRecipe


def open_shell(names: list[str]) -> None:
    """Open a shell, in a recipe's build folder if a recipe is given. Raises `HostError`, `NablaError`."""
    if not sys.stdin.isatty():
        raise HostError("doit shell needs a terminal")
    if not names:
        files.make_folder(Work("shell").base)
        sandbox = Sandbox((Bind(Work("shell").base, "/build", writable=True),))
    elif names[0] in ("kernel", kernel.RECIPE) and Work(kernel.RECIPE).objects.is_dir():
        # Objects from a farm's worker have no source here.
        source_tree.ensure_source_tree(Job("shell", log_path("shell")), recipe.load(kernel.RECIPE))
        sandbox = kernel.enter(Work(kernel.RECIPE).objects)
    elif (Work(names[0]).build / names[0]).is_dir():
        loaded = recipe.load(names[0])
        if isinstance(loaded, PackageRecipe):
            sandbox = builder.enter(loaded)
        else:
            sandbox = component.Build(loaded, with_musl=loaded.name != "musl").sandbox()
    else:
        raise NablaError(
            f"there is no build folder of {names[0]!r}",
            "give the name of a recipe that was built here; a result from the cache has none, which this creates:\n"
            f"doit clean {names[0]} && doit fresh=1 {names[0]}",
        )
    sandbox.shell()
