# SPDX-License-Identifier: Apache-2.0
"""Tasks of doit: steps, which write outputs, and commands, which a user runs.

    step("musl:build", build_musl, doc="…", inputs=[…], outputs=[Tree(MUSL)], config={…})

returns the dictionary of one doit task `musl:build`. The task calls `build_musl(job)` with a `Job`: `job.out(path)` is
the temporary path of a declared output, `job.run(argv)` starts a program with the task's log file.

A step runs again if the content of an input, its configuration, its code or one of its outputs has changed since the
last success. The code consists of the function's module and its imports (nabla.engine.code). Functions must be those
of a module, and arguments plain data, because `doit -n 2` sends tasks to other processes.
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
    remote: bool = True,
    repeated: bool = False,
) -> TaskDict:
    """Return the doit task `area` or `area:step`.

    `inputs`: files and `Tree`s; the tasks that build them run before. `after`: other tasks that must run before.
    `config`: JSON data; the task runs again if it changes. `checks`: additional up-to-date checks. `always`: never up
    to date. `cacheable`: outputs are stored in the result cache and restored from it (nabla.engine.result_cache defines
    which steps are cacheable). `remote`: a cacheable step may run on another machine (docs/farm.md).
    `repeated`: a second build always runs this cacheable step, because it takes seconds.
    """
    outs = tuple(outputs)
    ins = tuple(inputs)
    unchanged = ConfigUnchanged({"config": config, "args": list(args)}, action.__module__)
    return {
        **_names(name),
        "doc": doc,
        "actions": [Action(name, action, ins, outs, tuple(args), unchanged, cacheable, remote, repeated)],
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
    """Return the doit task of a command: `action` is called with `args`, options and arguments.

    `params`: doit's description of options. `words`: name of the parameter that receives the other arguments.
    `interactive`: it runs for any length of time and releases the lock, so that other doits can run in this checkout.
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
    """Return the doit task that runs all steps `name:…`; yield it with them."""
    return {"basename": name, "name": None, "doc": doc, "task_dep": list(after)}


def ungrouped(task: TaskDict) -> TaskDict:
    """Make the step `area:step` a separate task, for an area whose name is a task with actions."""
    return {
        **{key: value for key, value in task.items() if key != "name"},
        "basename": f"{task['basename']}:{task['name']}",
    }


def alias(name: str, doc: str, after: Iterable[str]) -> TaskDict:
    """Return a task without actions that depends on others."""
    return {"basename": name, "doc": doc, "actions": None, "task_dep": list(after)}


def guard(function: Callable[..., BaseFail | None], *, interactive: bool = False) -> Callable[..., BaseFail | None]:
    """Return a doit action that reports a `NablaError` without a traceback, for tasks other than steps."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> BaseFail | None:
        if interactive:
            lock.release()
        results: list[BaseFail | None] = []
        failure = guarded(function.__name__, lambda: results.append(function(*args, **kwargs)))
        return failure or results[0]

    return wrapper


def source_files(folder: Path, *patterns: str) -> list[Path]:
    """Return the files below a folder of the repository, sorted, for use as inputs.

    `patterns` (default: all) are shell patterns for the path relative to `folder`. Hidden files, Python byte code and
    editors' backup files are left out.
    """
    files = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if any(part.startswith(".") or part == "__pycache__" for part in name.parts) or path.name.endswith("~"):
            continue
        if path.is_file() and (not patterns or any(fnmatch.fnmatch(str(name), p) for p in patterns)):
            files.append(path)
    return sorted(files)


def _names(name: str) -> TaskDict:
    area, _, sub = name.partition(":")
    return {"basename": area, **({"name": sub} if sub else {})}


def _targets(item: Path | Tree) -> list[Path]:
    return [item.path, item.stamp] if isinstance(item, Tree) else [item]
