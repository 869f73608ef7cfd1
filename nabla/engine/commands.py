# SPDX-License-Identifier: Apache-2.0
"""Commands of doit: `explain TASK…`, `clean [TASK…]`, and `run` with the lock of the checkout."""

from __future__ import annotations

import difflib
import functools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from doit import cmd_run as run
from doit.cmd_base import DoitCmdBase
from doit.cmdparse import CmdParseError
from doit.exceptions import InvalidCommand

from nabla.core import digest, files
from nabla.core.errors import EXIT_USER, NablaError
from nabla.core.paths import OUT, STATE, VENV, relative
from nabla.engine import lock, order
from nabla.engine.remote import timeline
from nabla.engine.uptodate import ConfigUnchanged, OutputsUnchanged

_REASONS = {
    "missing_target": "output missing",
    "changed_file_dep": "input changed",
    "missing_file_dep": "input missing",
    "removed_file_dep": "no longer an input",
    "added_file_dep": "new input",
}

_DIGITS = 12  # of a digest
_SHOWN = 100  # maximum characters of a value
_CONTEXT = 20  # characters before a difference


class _OneError:
    """A command that reports wrong arguments as one error with a hint, and exits with 2.

    doit itself prints the tables of its options, and exits with 3.
    """

    name: str

    def parse_execute(self, words: list[str]) -> Any:
        """Run the command with these arguments; returns the exit status."""
        try:
            return super().parse_execute(words)  # type: ignore[misc]
        except CmdParseError as error:
            cause = " ".join(str(error).partition(" (parsing options")[0].split())
            cause = cause.removeprefix("Error parsing Command: ")
            failure = NablaError(cause, f"list the options: ./doit.sh help {self.name}")
        except InvalidCommand as error:
            if error.not_found is None:
                raise
            failure = _no_task(error.not_found, [task.name for task in vars(self).get("task_list") or []])
        print(failure.render(), file=sys.stderr)
        return EXIT_USER


class Run(_OneError, run.Run):
    """doit's command `run` with the lock of the checkout; several workers run in critical-path order."""

    name = "run"

    def execute(self, params: Any, args: list[str]) -> Any:
        """Wait for another doit, then run tasks."""
        lock.acquire()
        timeline.start(args)
        return super().execute(params, args)

    # doit inspects the parameters of this method.
    @functools.wraps(run.Run._execute)
    def _execute(self, **options: Any) -> Any:
        names = {task.name for task in self.task_list}
        selected: list[str] = vars(self)["sel_tasks"] or []
        if options["num_process"] > 1 and not options["single"] and names.issuperset(selected):
            self.sel_tasks = order.ordered(self.task_list, selected)
        return super()._execute(**options)


class Explain(_OneError, DoitCmdBase):
    """Explain why a task would run, and list its inputs and outputs."""

    name = "explain"
    doc_purpose = "explain why a task would run; list its inputs and outputs"
    doc_usage = "TASK ..."
    doc_description = "Compares the inputs, configuration, code and outputs of a task with its last success."
    cmd_options = ()

    def _execute(self, pos_args: list[str]) -> int:
        tasks = {task.name: task for task in self.task_list}
        _require(pos_args, tasks)
        for name in _with_steps(tasks, pos_args or self.sel_tasks or []):
            self._explain(tasks[name], tasks)
        self.dep_manager.close()
        return 0

    def _explain(self, task: Any, tasks: Mapping[str, Any]) -> None:
        status = self.dep_manager.get_status(task, tasks, get_log=True)
        values = self.dep_manager.get_values(task.name)
        self._print(f"{task.name}: {task.doc or ''}")
        self._print(f"  {'up to date' if status.status == 'up-to-date' else 'would run'}")
        if status.status != "up-to-date":
            for line in self._reasons(task.name, status.reasons, values):
                self._print(f"    because: {line}")
        producers = {target: other.name for other in tasks.values() for target in other.targets}
        for path in sorted(task.file_dep):
            task_name = f"  (by {producers[path]})" if path in producers else ""
            self._print(f"  input  {relative(Path(path))}{task_name}")
        if values.get("record", {}).get("config"):
            self._print(f"  config {json.dumps(values['record']['config'], ensure_ascii=False)[:300]}")
        for path, output in values.get("outputs", {}).items():
            self._print(f"  output {path}  sha256 {output}")

    def _reasons(self, name: str, reasons: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[str]:
        if not values:
            yield "it has never succeeded here"
            return
        for check, _, _ in reasons.get("uptodate_false", []):
            if isinstance(check, ConfigUnchanged):
                yield from _differences(values.get("record"), check.record)
                yield from _code_changes(values.get("code", {}), check.code())
            elif isinstance(check, OutputsUnchanged):
                now = check.values()["outputs"]
                before = values.get("outputs", {})
                yield from (f"output damaged or missing: {path}" for path in now if now[path] != before.get(path))
            elif check is False:
                yield "it always runs"
            else:
                yield f"failed check: {getattr(check, '__name__', type(check).__name__)}"
        for kind, words in _REASONS.items():
            for path in reasons.get(kind, []):
                line = f"{words}: {relative(Path(path))}"
                before = self.dep_manager.backend.get(name, path) if kind == "changed_file_dep" else None
                if before:
                    line += f", sha256 {before[:_DIGITS]}… → {digest.sha256_file(Path(path))[:_DIGITS]}…"
                yield line

    def _print(self, line: str) -> None:
        self.outstream.write(line + "\n")


class Clean(_OneError, DoitCmdBase):
    """Remove the outputs of the given tasks, or everything in out/.

    The virtual environment and out/run stay: changes in VMs cannot be rebuilt.
    """

    name = "clean"
    doc_purpose = "remove outputs (downloads stay in the cache)"
    doc_usage = "[TASK ...]"
    doc_description = "Without a task, removes out/ except for the virtual environment and the disks of VMs."
    cmd_options = ()

    def _execute(self, pos_args: list[str]) -> int:
        tasks = {task.name: task for task in self.task_list}
        _require(pos_args, tasks)
        if pos_args:
            for name in _with_steps(tasks, pos_args):
                for target in map(Path, tasks[name].targets):
                    if target.is_relative_to(OUT) and (target.exists() or target.is_symlink()):
                        files.remove(target)
                        self.outstream.write(f"removed {relative(target)}\n")
                self.dep_manager.remove(name)
        else:
            self.dep_manager.remove_all()
            for path in sorted(OUT.iterdir()):
                if path not in (VENV, STATE, OUT / "run") and path.name != "CACHEDIR.TAG":
                    files.remove(path)
                    self.outstream.write(f"removed {relative(path)}\n")
            for name in ("trees", "sources"):
                files.remove(STATE / name)
        self.dep_manager.close()
        return 0


def _require(names: Iterable[str], tasks: Mapping[str, Any]) -> None:
    for name in names:
        if name not in tasks:
            raise InvalidCommand(not_found=name)


def _no_task(name: str, tasks: list[str]) -> NablaError:
    similar = difflib.get_close_matches(name, tasks, n=3)
    hint = f"similar names: {', '.join(similar)}\n" if similar else ""
    return NablaError(f"there is no task or command {name!r}", f"{hint}list all tasks: ./doit.sh list --all")


def _with_steps(tasks: Mapping[str, Any], names: list[str]) -> Iterator[str]:
    """Yield the names, each followed by the steps of its group."""
    for name in names:
        task = tasks[name]
        if task.actions:
            yield name
        yield from (dep for dep in task.task_dep if dep.startswith(f"{name}:"))
        if not task.actions and not task.has_subtask:
            yield from _with_steps(tasks, [dep for dep in task.task_dep if dep in tasks])


def _differences(before: Any, now: Any) -> Iterator[str]:
    if before != json.loads(json.dumps(now)):
        yield from _compare("", before, json.loads(json.dumps(now)))


def _code_changes(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for path in sorted({*before, *now}):
        if before.get(path) != now.get(path):
            yield f"the code of the task changed: {path}"


def _compare(path: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                yield from _compare(f"{path}.{key}" if path else key, before.get(key), now.get(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            if old != new:
                yield from _compare(f"{path}[{index}]", old, new)
    else:
        old, new = (json.dumps(value, ensure_ascii=False) for value in (before, now))
        # Long texts start near their first difference.
        same = next((index for index, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
        begin = same - _CONTEXT if max(len(old), len(new)) > _SHOWN else 0
        yield f"{path} changed from {_part(old, begin)} to {_part(new, begin)}"


def _part(text: str, begin: int) -> str:
    begin = max(0, begin)
    end = begin + _SHOWN
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"
