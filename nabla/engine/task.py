# SPDX-License-Identifier: Apache-2.0
"""Tasks of doit, with doit's traps designed out: steps, which make outputs, and commands, which a user asks for.

    step("musl:build", build_musl, doc="…", inputs=[…], outputs=[Tree(MUSL)], config={…})

gives the dictionary of one doit task `musl:build`. When it runs, `build_musl(job)` is called with a `Job`:
`job.out(path)` is where a declared output is to be written, `job.run(argv)` starts a program with the task's log file.

A step runs again when an input's content, its configuration, its code or one of its outputs has changed since the last
success. The code is the function's module and what that imports (nabla.engine.code). Functions must be those of a
module (`doit -n 2` sends tasks to other processes), arguments plain data.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from doit.exceptions import BaseFail

from nabla.core.artifacts import Tree
from nabla.engine import lock
from nabla.engine.action import Action, guarded, log_path
from nabla.engine.uptodate import ConfigUnchanged, OutputsUnchanged, tracked_path

TaskDict = dict[str, Any]
Check = Callable[[Any, Mapping[str, Any]], bool]  # called with doit's task and its saved values


def step(
    name: str,
    action: Callable[..., None],
    *,
    doc: str,
    inputs: Iterable[Path | Tree] = (),
    outputs: Iterable[Path | Tree] = (),
    after: Iterable[str] = (),
    config: Any = None,
    args: Sequence[Any] = (),
    checks: Iterable[Check] = (),
    always: bool = False,
    cacheable: bool = False,
) -> TaskDict:
    """Return the doit task `area` or `area:step`.

    `inputs`: files and `Tree`s; the tasks that make them run before. `after`: further tasks that must have run, none of
    those. `config`: JSON data; the task runs again when it differs. `checks`: further conditions for being up to date.
    `always`: run whenever asked for. `cacheable`: outputs go to the result cache and are restored from there
    (nabla.engine.result_cache says when a step is).
    """
    outs = tuple(outputs)
    ins = tuple(inputs)
    unchanged = ConfigUnchanged({"config": config, "args": list(args)}, action.__module__)
    return {
        **_names(name),
        "doc": doc,
        "actions": [Action(name, action, ins, outs, tuple(args), unchanged, cacheable)],
        "file_dep": [str(tracked_path(item)) for item in ins],
        "targets": [str(path) for item in outs for path in _targets(item)],
        "task_dep": list(after),
        "uptodate": [False] if always else [unchanged, OutputsUnchanged(outs), *checks],
        "verbosity": 2,
        "meta": {"log": str(log_path(name))},
    }


def command(
    name: str,
    action: Callable[..., BaseFail | None],
    *,
    doc: str,
    after: Iterable[str] = (),
    args: Sequence[Any] = (),
    params: Sequence[Mapping[str, Any]] = (),
    words: str = "",
    interactive: bool = False,
    grouped: bool = False,
) -> TaskDict:
    """Return the doit task of a command: `action` is called with `args` and what the user wrote.

    `params`: doit's description of options. `words`: name of the parameter that gets the other words of the command
    line. `interactive`: it runs as long as the user likes, so other doits may run in this checkout meanwhile.
    `grouped`: it is a task of the group before the colon.
    """
    return {
        **(_names(name) if grouped else {"basename": name}),
        "doc": doc,
        "actions": [(guard(action, interactive=interactive), list(args))],
        "params": list(params),
        **({"pos_arg": words} if words else {}),
        "task_dep": list(after),
        "uptodate": [False],
        "verbosity": 2,
    }


def group(name: str, doc: str, after: Iterable[str] = ()) -> TaskDict:
    """Return the doit task that stands for all steps `name:…`; yield it beside them."""
    return {"basename": name, "name": None, "doc": doc, "task_dep": list(after)}


def ungrouped(task: TaskDict) -> TaskDict:
    """Make the step `area:step` a task of its own, for an area whose name is a task that runs by itself."""
    return {
        **{key: value for key, value in task.items() if key != "name"},
        "basename": f"{task['basename']}:{task['name']}",
    }


def alias(name: str, doc: str, after: Iterable[str]) -> TaskDict:
    """Return a task that does nothing but need others."""
    return {"basename": name, "doc": doc, "actions": None, "task_dep": list(after)}


def guard(function: Callable[..., BaseFail | None], *, interactive: bool = False) -> Callable[..., BaseFail | None]:
    """Return a doit action that reports a `NablaError` in one line; for tasks that are not made by `step`."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> BaseFail | None:
        if interactive:
            lock.release()
        results: list[BaseFail | None] = []
        failure = guarded(function.__name__, lambda: results.append(function(*args, **kwargs)))
        return failure or results[0]

    return wrapper


def source_files(folder: Path, *patterns: str) -> list[Path]:
    """Return the committed-looking files below a folder of the repository, sorted, for use as inputs.

    `patterns` (default all) are shell patterns on the path relative to `folder`. Hidden files, Python byte code and
    editors' copies are left out.
    """
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if any(part.startswith(".") or part == "__pycache__" for part in name.parts) or path.name.endswith("~"):
            continue
        if path.is_file() and (not patterns or any(fnmatch.fnmatch(str(name), p) for p in patterns)):
            found.append(path)
    return sorted(found)


def _names(name: str) -> TaskDict:
    area, _, sub = name.partition(":")
    return {"basename": area, **({"name": sub} if sub else {})}


def _targets(item: Path | Tree) -> list[Path]:
    return [item.path, item.stamp] if isinstance(item, Tree) else [item]
