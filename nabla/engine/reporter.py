# SPDX-License-Identifier: Apache-2.0
"""Print one line at the start and one at the end of each task, errors without tracebacks, and a summary."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from doit.exceptions import BaseFail, UnmetDependency
from doit.reporter import ConsoleReporter

from nabla.core import log
from nabla.core.paths import relative
from nabla.engine.action import log_path


class Reporter(ConsoleReporter):
    """doit reporter; tasks that are up to date are only counted."""

    desc = "one line for each task that runs"
    # Name of a task and its failure, for a caller in this process.
    failed: ClassVar[list[tuple[str, BaseFail]]] = []

    def __init__(self, outstream: Any, options: Any) -> None:
        super().__init__(outstream, options)
        self._begin = time.monotonic()
        self._started: dict[str, float] = {}
        self._counts = {"done": 0, "up to date": 0, "failed": 0}

    def execute_task(self, task: Any) -> None:
        """A task starts."""
        self._started[task.name] = time.monotonic()
        if task.actions:
            log.info(f"{task.name}: {task.doc or 'running'} …")

    def add_success(self, task: Any) -> None:
        """A task succeeded."""
        if task.actions:
            self._counts["done"] += 1
            log.info(f"{task.name}: done in {log.seconds(self._elapsed(task.name))}")

    def skip_uptodate(self, task: Any) -> None:
        """A task is up to date."""
        if task.actions:
            self._counts["up to date"] += 1

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """A task failed, or did not run because another one failed."""
        self._counts["failed"] += 1
        self.failed.append((task.name, fail))
        if isinstance(fail, UnmetDependency):
            log.error(f"{task.name}: not run, because {fail.message} failed")
            return
        log.error(f"{task.name}: failed after {log.seconds(self._elapsed(task.name))}")
        log.error(fail.get_msg().rstrip())
        path = log_path(task.name)
        if relative(path) not in fail.get_msg() and path.exists() and path.stat().st_size:
            log.error(f"log: {relative(path)}")

    def cleanup_error(self, exception: Any) -> None:
        """A teardown action failed."""
        log.error(exception.get_msg())

    def complete_run(self) -> None:
        """The run ended."""
        for message in self.runtime_errors:
            log.error(message)
        if self._counts["done"] or self._counts["up to date"] or self._counts["failed"]:
            counts = ", ".join(f"{number} {what}" for what, number in self._counts.items() if number)
            log.info(f"{counts}; {log.seconds(time.monotonic() - self._begin)}")

    def _elapsed(self, name: str) -> float:
        return time.monotonic() - self._started.get(name, time.monotonic())
