# SPDX-License-Identifier: Apache-2.0
"""Run a step: its function writes the outputs to temporary paths, which are then renamed.

A killed or failed step does not change the previous outputs. A cacheable step restores its outputs from the cache
if an earlier run, in any checkout, had the same inputs, configuration and code.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doit.exceptions import BaseFail, TaskError, TaskFailed

from nabla.core import digest, files
from nabla.core.artifacts import Tree
from nabla.core.errors import NablaError
from nabla.core.paths import LOGS, OUT, WORK, relative
from nabla.core.process import Result, run
from nabla.engine import lock, result_cache
from nabla.engine.remote import elsewhere, timeline
from nabla.engine.uptodate import ConfigUnchanged, input_digests, real_path


@dataclass
class Job:
    """The argument of a step's function: the task's name, its log file, paths for its outputs."""

    name: str
    log: Path
    outputs: tuple[Path | Tree, ...] = ()
    _scratch: Path | None = None

    def out(self, output: Path | Tree) -> Path:
        """Return the temporary path of a declared output, which does not exist at the start."""
        if output not in self.outputs:
            raise ValueError(f"{self.name}: {output} is not among the outputs of this task")
        return _partial(real_path(output))

    def run(self, argv: Sequence[str | Path], **options: Any) -> Result:
        """Run a program with the task's log file; the options are those of `nabla.core.process.run`."""
        return run(argv, log=self.log, **options)

    def scratch(self) -> Path:
        """Return an empty folder below out/work for the task, which is removed after success only."""
        if self._scratch is None:
            self._scratch = WORK / self.name.replace(":", "-")
            files.remove(self._scratch)
            files.make_folder(self._scratch)
        return self._scratch

    def note(self, text: str) -> None:
        """Append one line to the log file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")

    def clean_up(self) -> None:
        """Remove the scratch folder."""
        if self._scratch is not None:
            files.remove(self._scratch)


@dataclass(frozen=True)
class Action:
    """The doit action of a step: calls the function, checks the inputs again, renames the outputs."""

    name: str
    function: Callable[..., None]
    inputs: tuple[Path | Tree, ...]
    outputs: tuple[Path | Tree, ...]
    args: tuple[Any, ...]
    config: ConfigUnchanged
    cacheable: bool = False
    remote: bool = True
    repeated: bool = False

    def __call__(self) -> BaseFail | None:
        return guarded(self.name, self._run)

    def key(self) -> str | None:
        """Return the key of the result with the present inputs; None if it is not cacheable, or an input is absent."""
        digests = input_digests(self.inputs)
        return None if not self.cacheable or None in digests.values() else self._key(digests)

    def _key(self, digests: dict[str, str | None]) -> str:
        return result_cache.key("step", self.name, self.config.record, self.config.code(), digests)

    def _run(self) -> None:
        lock.acquire()
        job = Job(self.name, log_path(self.name), self.outputs)
        files.make_folder(LOGS)
        job.log.write_text("")
        paths = [real_path(item) for item in self.outputs]
        for path in paths:
            files.make_folder(path.parent)
            files.remove(_partial(path))
        try:
            with timeline.span(self.name), elsewhere.here():
                self._produce(job, {str(number): _partial(path) for number, path in enumerate(paths)})
                for item in self.outputs:
                    _publish(self.name, item)
        except BaseException:
            for path in paths:
                files.remove(_partial(path))
            raise
        job.clean_up()

    def _produce(self, job: Job, partials: dict[str, Path]) -> None:
        """Write all outputs to their temporary paths, from the cache or by the function."""
        before = input_digests(self.inputs)
        key = self._key(before)
        cacheable = self.cacheable and not (self.repeated and result_cache.must_repeat(key))
        with ExitStack() as stack:
            if cacheable:
                stack.enter_context(result_cache.lock(key))
                if result_cache.restore(key, partials):
                    job.note(f"restored from the cache: {key}")
                    timeline.note("restored")
                    return
                if self.remote and elsewhere.build(self.name, key, job.log) and result_cache.restore(key, partials):
                    return
            self.function(job, *self.args)
            if input_digests(self.inputs) != before:
                raise NablaError(f"{self.name}: an input changed while the task ran", "run the same command again")
            if cacheable and all(path.exists() for path in partials.values()):
                result_cache.add(key, self.name, partials)


class _Failure(TaskError):
    """A failure with its error, from which a farm's worker decides whether the step is at fault."""

    def __init__(self, error: NablaError) -> None:
        super().__init__(error.render())
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        # doit -n pickles failures.
        return (_Failure, (self.error,))


def guarded(name: str, function: Callable[[], None]) -> BaseFail | None:
    """Call a function; map a `NablaError` (exit code 2) and a bug (exit code 1) to doit's two kinds of failure."""
    try:
        function()
    except NablaError as error:
        return _Failure(error)
    except Exception as error:
        full = _as_full(error) if isinstance(error, OSError) else None
        if full is not None:
            return _Failure(full)
        return TaskFailed(f"bug in {name}, please report it:\n{traceback.format_exc()}")
    return None


def log_path(name: str) -> Path:
    """Return the log file of a task: out/logs/area-step.log."""
    return LOGS / f"{name.replace(':', '-').replace('/', '-')}.log"


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _publish(name: str, item: Path | Tree) -> None:
    """Rename one complete output to its real path."""
    path = real_path(item)
    partial = _partial(path)
    if not partial.exists() or partial.is_dir() != isinstance(item, Tree):
        raise RuntimeError(f"{name} did not write its output {relative(path)}")
    if isinstance(item, Tree):
        old = path.with_name(f".{path.name}.old")
        files.remove(old)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        files.remove(old)
        files.write(item.stamp, digest.tree_digest(path) + "\n")
        return
    # The mode must not depend on the umask: manifests of folders contain modes.
    partial.chmod(0o755 if partial.stat().st_mode & 0o100 else 0o644)
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.rename(path)
    files.sync_folder(path.parent)


def _as_full(error: OSError) -> NablaError | None:
    try:
        files.raise_full(error, Path(error.filename) if isinstance(error.filename, str) else OUT)
    except NablaError as converted:
        return converted if type(converted) is not NablaError else None
