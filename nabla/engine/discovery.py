# SPDX-License-Identifier: Apache-2.0
"""Find the tasks: each function `task_…` in a module named `tasks` or `…_tasks` of an area becomes a doit task.

An area is a sub-package of nabla, or one of the packages beside it; a new sub-package needs no entry in a list.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from nabla.core.errors import EXIT_USER, NablaError
from nabla.core.paths import ROOT

TaskCreator = Callable[..., Any]

PACKAGES = ("nabla", "demo", "tests.busybox", "tests.memory", "tests.programs")


def discover() -> dict[str, TaskCreator]:
    """Return all task creators by name, for dodo.py to put into its namespace."""
    return {
        name: _guarded(value)
        for module in modules()
        for name, value in vars(module).items()
        if name.startswith("task_") and value.__module__ == module.__name__
    }


@functools.cache
def modules() -> tuple[ModuleType, ...]:
    """Return the task modules, sorted by name."""
    names: list[str] = []
    for package in PACKAGES:
        folder = ROOT.joinpath(*package.split("."))
        # A missing folder yields nothing: a checkout may lack the demo or tests.
        names += [info.name for info in pkgutil.walk_packages([str(folder)], f"{package}.") if not info.ispkg]
    tasks = [name for name in names if re.fullmatch(r"(\w+_)?tasks", name.rpartition(".")[2])]
    return tuple(importlib.import_module(name) for name in sorted(tasks))


def steps(function: str) -> Iterator[Any]:
    """Yield the results of the function with that name in each task module: the areas' contributions to one group."""
    for module in modules():
        if hasattr(module, function):
            yield from getattr(module, function)()


def _guarded(creator: TaskCreator) -> TaskCreator:
    """Make a creator report a `NablaError` (a broken recipe) in two lines instead of a traceback of doit."""

    @functools.wraps(creator)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            result = creator(*args, **kwargs)
            return _replay(list(result)) if inspect.isgenerator(result) else result
        except NablaError as error:
            print(error.render(), file=sys.stderr)
            raise SystemExit(EXIT_USER) from None

    return wrapper


def _replay(tasks: list[Any]) -> Iterator[Any]:
    yield from tasks
