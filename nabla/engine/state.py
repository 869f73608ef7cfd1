# SPDX-License-Identifier: Apache-2.0
"""doit's database of finished tasks, saved after each task, so that a killed doit loses nothing.

doit's back-ends write only at the end of a run, which SIGTERM and SIGKILL prevent. Its default checker relies on the
mtime, which is the same for all reproducible outputs.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doit.dependency import FileChangedChecker
from doit.exceptions import InvalidTask

from nabla.core import digest, log

_CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# Made by the build; safe to remove, no need to back up.\n"
)


class Sha256Checker(FileChangedChecker):
    """A file is unchanged if its sha256 is; nabla.core.digest makes that fast."""

    def check_modified(self, file_path: str, file_stat: os.stat_result, state: str) -> bool:
        """Return whether the file's content differs from the saved state."""
        return digest.sha256_file(Path(file_path)) != state

    def get_state(self, dep: str, current_state: str | None) -> str | None:
        """Return the state to save, or None if it is unchanged."""
        state = digest.sha256_file(Path(dep))
        return None if state == current_state else state


class StateError(InvalidTask):
    """The database cannot be used. doit always prints this kind of exception without a traceback."""


class TaskStateDB:
    """A back-end of doit: one JSON record for each task in SQLite, written in one transaction when the task ends.

    A damaged database is renamed; then all tasks run again.
    """

    desc = "SQLite, saved after each task"

    def __init__(self, name: str, codec: Any, *, module_name: str | None = None) -> None:
        self.name = name
        self._records: dict[str, dict[str, Any]] = {}
        self._on_database(self._prepare)

    def get(self, task_id: str, dependency: str) -> Any:
        """Return a saved value, or None."""
        return self._record(task_id).get(dependency)

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Save a value; `deps:` is the last one doit sets for a finished task, `ignore:` for an ignored one."""
        self._record(task_id)[dependency] = value
        if dependency in ("deps:", "ignore:"):
            text = json.dumps(self._record(task_id))
            self._on_database(
                lambda: self._database.execute("insert or replace into tasks values (?, ?)", (task_id, text))
            )

    def in_(self, task_id: str) -> bool:
        """Return whether a value is saved for the task."""
        return bool(self._record(task_id))

    def remove(self, task_id: str) -> None:
        """Forget one task."""
        self._records[task_id] = {}
        self._on_database(lambda: self._database.execute("delete from tasks where task = ?", (task_id,)))

    def remove_all(self) -> None:
        """Forget all tasks."""
        self._records.clear()
        self._on_database(lambda: self._database.execute("delete from tasks"))

    def dump(self) -> None:
        """Called by doit at the end of a run, when all values are saved."""
        self._database.close()

    def _record(self, task_id: str) -> dict[str, Any]:
        if task_id not in self._records:
            cursor = self._on_database(
                lambda: self._database.execute("select record from tasks where task = ?", (task_id,))
            )
            row = cursor.fetchone()
            self._records[task_id] = json.loads(row[0]) if row else {}
        return self._records[task_id]

    def _prepare(self) -> None:
        path = Path(self.name).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        tag = path.parent.parent / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(_CACHEDIR_TAG)
        self._open_or_renew(path)

    def _open_or_renew(self, path: Path) -> None:
        try:
            self._open(path)
        except sqlite3.OperationalError:
            raise  # locked, or the disk is full: the file is not damaged
        except sqlite3.DatabaseError as error:
            log.warn(f"{self.name} is damaged ({error}) and was renamed; all tasks run again")
            for suffix in ("-journal", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            path.rename(path.with_name(path.name + ".damaged"))
            self._open(path)

    def _open(self, path: Path) -> None:
        self._database = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._database.execute("pragma journal_mode=truncate")
        self._database.execute("create table if not exists tasks (task text primary key, record text)")
        self._database.execute("select count(record) from tasks").fetchone()

    def _on_database(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (sqlite3.Error, OSError) as error:
            raise StateError(f"cannot use the state database {self.name}: {error}") from error
