# SPDX-License-Identifier: Apache-2.0
"""Finds the tasks: every function `task_…` in a module named `tasks` or `…_tasks` of any area becomes a doit task.

An area is a sub-package; a new one needs no entry in a list.
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

TaskCreator = Callable[..., Any]


def discover(*packages: str) -> dict[str, TaskCreator]:
    """Return all task creators of these packages by name, for dodo.py to put into its namespace."""
    found: dict[str, TaskCreator] = {}
    for module in modules(*packages):
        for name, value in vars(module).items():
            if name.startswith("task_") and value.__module__ == module.__name__:
                found[name] = _guarded(value)
    return found


def modules(*packages: str) -> list[ModuleType]:
    """Return the task modules of these packages and their areas, by name."""
    found = []
    for package in packages:
        path = importlib.import_module(package).__path__
        names = [info.name for info in pkgutil.walk_packages(path, f"{package}.") if not info.ispkg]
        found += [name for name in names if re.fullmatch(r"(\w+_)?tasks", name.rpartition(".")[2])]
    return [importlib.import_module(name) for name in sorted(found)]


def steps(function: str) -> Iterator[Any]:
    """Yield what the function of that name yields in each task module of nabla: the areas' parts of one group."""
    for module in modules("nabla"):
        if hasattr(module, function):
            yield from getattr(module, function)()


def _guarded(creator: TaskCreator) -> TaskCreator:
    """Make a creator tell a `NablaError` (a broken recipe) in two lines instead of doit's traceback."""

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
