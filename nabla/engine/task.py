# SPDX-License-Identifier: Apache-2.0
"""Steps of the build as doit tasks, with doit's traps designed out.

    step("musl:build", build_musl, doc="…", inputs=[…], outputs=[Tree(MUSL)], config={…})

gives the dictionary of one doit task `musl:build`. When it runs, `build_musl(job)` is called with a `Job`:
`job.out(path)` is where a declared output is to be written, `job.run(argv)` starts a program with the task's log file.
Outputs take their real names only after the action ended well: a killed or failed task leaves the previous ones as
they were.

A task runs when an input's content, its configuration, its code, or one of its outputs has changed since the last
success. Actions must be functions of a module (`doit -n 2` sends tasks to other processes), arguments plain data.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from doit.exceptions import BaseFail, TaskError, TaskFailed

from nabla.core import digest, files
from nabla.core.artifacts import Tree
from nabla.core.errors import NablaError
from nabla.core.files import remove
from nabla.core.paths import LOGS, OUT, ROOT, STATE, WORK, relative
from nabla.core.process import Result, run
from nabla.engine import build_record

_UNUSED = 30 * 86400.0  # seconds

TaskDict = dict[str, Any]
Check = Callable[[Any, Mapping[str, Any]], bool]  # called with doit's task and its saved values


@dataclass
class Job:
    """What an action gets: the task's name, its log file, places for its outputs."""

    name: str
    log: Path
    outputs: tuple[Path | Tree, ...] = ()
    _scratch: Path | None = None

    def out(self, output: Path | Tree) -> Path:
        """Return where to write a declared output for now: a place beside the real one, absent at the start."""
        if output not in self.outputs:
            raise ValueError(f"{self.name}: {output} is not among the outputs of this task")
        return _partial(_place(output))

    def run(self, argv: Sequence[str | Path], **options: Any) -> Result:
        """Run a program with the task's log file; the options are those of `nabla.core.process.run`."""
        return run(argv, log=self.log, **options)

    def scratch(self) -> Path:
        """Return an empty folder below out/work for the task's own use; removed after success, kept after failure."""
        if self._scratch is None:
            self._scratch = WORK / self.name.replace(":", "-")
            remove(self._scratch)
            files.make_folder(self._scratch)
        return self._scratch

    def note(self, text: str) -> None:
        """Append one line to the log file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")


def step(
    name: str,
    action: Callable[..., None],
    *,
    doc: str,
    inputs: Iterable[Path | Tree] = (),
    outputs: Iterable[Path | Tree] = (),
    after: Iterable[str] = (),
    config: Any = None,
    code: Iterable[ModuleType | Path] = (),
    args: Sequence[Any] = (),
    checks: Iterable[Check] = (),
    always: bool = False,
    kept: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> TaskDict:
    """Return the doit task `area` or `area:step`.

    `inputs`: files, and `Tree`s that are outputs of other tasks. `after`: names of tasks that must have run. `config`:
    JSON data; the task runs again when it differs. `code`: further modules, or their files, whose code decides the
    result (the action's own module always counts). `checks`: further conditions for being up to date. `always`: run
    whenever asked for. `kept`: the outputs go to the cache, and come from there (nabla.engine.result_cache says for
    which steps).
    `extra`: further keys of the doit task.
    """
    area, _, sub = name.partition(":")
    outs = tuple(outputs)
    ins = tuple(inputs)
    modules = sorted({_module_file(sys.modules[action.__module__]), *map(_module_file, code)})
    record = {"config": config, "args": list(args), "code": [relative(path) for path in modules]}
    recorded = Recorded(record, tuple(modules))
    task: TaskDict = {
        "basename": area,
        "doc": doc,
        "actions": [Action(name, action, ins, outs, tuple(args), recorded, always, kept)],
        "file_dep": [str(_seen(item)) for item in ins],
        "targets": [str(path) for item in outs for path in _targets(item)],
        "task_dep": list(after),
        "uptodate": [False] if always else [recorded, Intact(outs), *checks],
        "clean": [(_clean, [[str(path) for item in outs for path in _targets(item)]])],
        "verbosity": 2,
        "meta": {"log": str(log_path(name))},
    }
    if sub:
        task["name"] = sub
    task.update(extra or {})
    return task


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


def guard(function: Callable[..., None]) -> Callable[..., BaseFail | None]:
    """Return a doit action that tells a `NablaError` in plain words; for tasks that are not made by `step`."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> BaseFail | None:
        return _guarded(function.__name__, functools.partial(function, *args, **kwargs))

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


def log_path(name: str) -> Path:
    """Return the log file of a task: out/logs/area-step.log."""
    return LOGS / f"{name.replace(':', '-').replace('/', '-')}.log"


@dataclass(frozen=True)
class Action:
    """The doit action of a step: calls the function, checks the inputs again, publishes the outputs."""

    name: str
    function: Callable[..., None]
    inputs: tuple[Path | Tree, ...]
    outputs: tuple[Path | Tree, ...]
    args: tuple[Any, ...]
    recorded: Recorded
    always: bool = False
    kept: bool = False

    def __call__(self) -> BaseFail | None:
        return _guarded(self.name, self._run)

    def _run(self) -> None:
        with files.lock(STATE / "locks" / self.name, f"{self.name}: waiting for another doit in this checkout"):
            before = _digests(self.inputs)
            facts = [self.recorded.values(), before]
            if not self.always and build_record.meanwhile(self.name, facts, self._made()):
                return
            job = Job(self.name, log_path(self.name), self.outputs)
            files.make_folder(LOGS)
            job.log.write_text("")
            places = [_place(item) for item in self.outputs]
            for place in places:
                files.make_folder(place.parent)
                remove(_partial(place))
            try:
                self._make(job, before)
                for item in self.outputs:
                    _publish(self.name, item)
            except BaseException:
                for place in places:
                    remove(_partial(place))
                raise
            if job._scratch is not None:
                remove(job._scratch)
            build_record.tell(self.name, facts, self._made())

    def _made(self) -> dict[str, str | None]:
        return Intact(self.outputs).digests()

    def _make(self, job: Job, before: list[str | None]) -> None:
        """Have all outputs at their places for now: from the cache, or made."""
        found = None
        partials = [_partial(_place(item)) for item in self.outputs]
        if self.kept:
            # Here: it needs this module.
            from nabla.engine import result_cache

            inputs = {relative(_seen(item)): told for item, told in zip(self.inputs, before, strict=True)}
            found = result_cache.key(self.name, self.recorded.record, self.recorded.values()["code"], inputs)
            if result_cache.take(found, partials):
                job.note(f"taken from the cache: {found}")
                return
        self.function(job, *self.args)
        if _digests(self.inputs) != before:
            raise NablaError(f"{self.name}: an input changed while the task ran", "run the same command again")
        if found is not None and all(partial.exists() for partial in partials):
            result_cache.keep(found, self.name, partials)


@dataclass
class Recorded:
    """doit's up-to-date check for configuration and code; keeps them as JSON for `explain`."""

    record: Any
    modules: tuple[Path, ...]
    current: dict[str, Any] = field(default_factory=dict)

    def configure_task(self, task: Any) -> None:
        """Called by doit: have the record saved after each success."""
        task.value_savers.append(self.values)

    def values(self) -> dict[str, Any]:
        """Return what is saved in doit's database."""
        if not self.current:
            code = digest.config_digest([digest.python_digest(path) for path in self.modules])
            self.current = {"record": self.record, "record_digest": digest.config_digest(self.record), "code": code}
        return self.current

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        now = self.values()
        return all(values.get(key) == now[key] for key in ("record_digest", "code"))


@dataclass(frozen=True)
class Intact:
    """doit's up-to-date check for outputs: they are what the task made, not damaged or edited since."""

    outputs: tuple[Path | Tree, ...]

    def configure_task(self, task: Any) -> None:
        """Called by doit: have the digests saved after each success."""
        task.value_savers.append(self.values)

    def values(self) -> dict[str, Any]:
        """Return what is saved in doit's database."""
        return {"outputs": self.digests()}

    def digests(self) -> dict[str, str | None]:
        """Return the digest of each output as it is now, by path relative to the checkout; None where it is absent."""
        return {relative(_place(item)): digest.path_digest(_place(item)) for item in self.outputs}

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        return bool(values.get("outputs", {}) == self.digests())


def _guarded(name: str, function: Callable[[], None]) -> BaseFail | None:
    """Call a function; map errors of the user (exit code 2) and bugs (exit code 1) to doit's two kinds of failure."""
    try:
        function()
    except NablaError as error:
        return TaskError(error.render())
    except Exception as error:
        full = _as_full(error) if isinstance(error, OSError) else None
        if full is not None:
            return TaskError(full.render())
        return TaskFailed(f"bug in {name}, please report it:\n{traceback.format_exc()}")
    return None


def _place(item: Path | Tree) -> Path:
    return item.path if isinstance(item, Tree) else item


def _seen(item: Path | Tree) -> Path:
    return item.stamp if isinstance(item, Tree) else item


def _targets(item: Path | Tree) -> list[Path]:
    return [item.path, item.stamp] if isinstance(item, Tree) else [item]


def _partial(place: Path) -> Path:
    return place.with_name(f".{place.name}.partial")


def _digests(items: Iterable[Path | Tree]) -> list[str | None]:
    return [digest.path_digest(_seen(item)) for item in items]


def _publish(name: str, item: Path | Tree) -> None:
    """Give one finished output its real name."""
    place = _place(item)
    partial = _partial(place)
    if not partial.exists() or partial.is_dir() != isinstance(item, Tree):
        raise RuntimeError(f"{name} did not write its output {relative(place)}")
    if isinstance(item, Tree):
        old = place.with_name(f".{place.name}.old")
        remove(old)
        if place.exists():
            place.rename(old)
        partial.rename(place)
        remove(old)
        files.make_folder(item.stamp.parent)
        temporary = _partial(item.stamp)
        temporary.write_text(digest.tree_digest(place) + "\n")
        temporary.rename(item.stamp)
        return
    # Whatever the umask is: folders are compared with the modes of what they hold.
    partial.chmod(0o755 if partial.stat().st_mode & 0o100 else 0o644)
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.rename(place)
    files.sync_folder(place.parent)


def _module_file(module: ModuleType | Path) -> Path:
    if isinstance(module, Path):
        return module
    assert module.__file__ is not None
    return Path(module.__file__)


def _as_full(error: OSError) -> NablaError | None:
    try:
        files.raise_full(error, Path(error.filename) if isinstance(error.filename, str) else OUT)
    except NablaError as converted:
        return converted if type(converted) is not NablaError else None


def _clean(targets: Sequence[str]) -> None:
    for target in targets:
        path = Path(target)
        if path.is_relative_to(OUT) or not path.is_relative_to(ROOT):
            remove(path)
