# SPDX-License-Identifier: Apache-2.0
"""One module for each area of the build; every function `task_…` in them is found and becomes a doit task.

A new area is a new file here, with no list to edit.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from nabla.errors import EXIT_USER, NablaError

TaskCreator = Callable[..., Any]


def discover() -> dict[str, TaskCreator]:
    """Return all task creators by name, for dodo.py to put into its namespace."""
    found: dict[str, TaskCreator] = {}
    for module in modules():
        for name, value in vars(module).items():
            if name.startswith("task_") and value.__module__ == module.__name__:
                found[name] = _guarded(value)
    return found


def modules() -> list[ModuleType]:
    """Return the modules of all areas, by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


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
