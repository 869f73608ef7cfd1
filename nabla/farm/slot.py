# SPDX-License-Identifier: Apache-2.0
"""Run one request in a worker's checkout; the worker starts this module as a process.

    python -m nabla.farm.slot REQUEST REPLY DESCRIPTOR

doit runs the task with the tasks that it needs, whose results come from the store. For a package, only its installed
files are built. The process ends when the other end of DESCRIPTOR is closed: the worker has died, or nobody waits for
the result any longer.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Set
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from doit.doit_cmd import DoitMain
from doit.exceptions import BaseFail

from nabla.build.source_tree import Work
from nabla.core import errors, files, manifest
from nabla.core.artifacts import package_record
from nabla.core.errors import EXIT_INTERRUPTED, NablaError
from nabla.core.paths import WORK, cache_dir
from nabla.engine import discovery, result_cache
from nabla.engine.action import Action, Job, guarded, log_path
from nabla.engine.remote import elsewhere, stores
from nabla.engine.remote.record import EntryError, Output
from nabla.engine.remote.transport import StoreError
from nabla.engine.reporter import Reporter
from nabla.farm.protocol import File, Reply, Request
from nabla.packages import builder, catalog

# After one of these errors, the step itself is not at fault.
_OF_THE_HOST = (
    errors.DiskFullError,
    errors.HostError,
    errors.FetchError,
    errors.LockError,
)
_MAX_LOG = 64 << 20
_MAX_TEXT = 20_000
_PACKAGES = "packages:"
_FOLDERS = ("build", "objects", "sysroot")


class OtherInputsError(errors.HostError):
    """The key of the step differs from the client's."""


@dataclass
class _Guard:
    """Compares the key of the step just before it would run."""

    request: Request

    def build(self, task: str, key: str, log: Path) -> bool:
        """Always build here. Raises `OtherInputsError`."""
        if task == self.request.task and key != self.request.key:
            raise OtherInputsError(
                f"the inputs of {task} differ from the client's", "a file that only one of them has, or another host"
            )
        return False

    def have(self, key: str) -> None:
        """Do nothing: other machines need no results of this process."""

    def here(self) -> AbstractContextManager[None]:
        """The process has one task."""
        return nullcontext()


def main() -> int:
    """Run the request; write the reply."""
    request = msgspec.json.decode(sys.argv[1], type=Request)
    threading.Thread(target=_end_with, args=(int(sys.argv[3]),), daemon=True).start()
    reply = _run_step(request) if request.key else _run_whole(request)
    files.write(Path(sys.argv[2]), msgspec.json.encode(reply))
    return 0


def _end_with(descriptor: int) -> None:
    with suppress(OSError):
        os.read(descriptor, 1)
    # As ^C: programs are ended and incomplete outputs removed.
    os.kill(os.getpid(), signal.SIGTERM)


def _doit(*tasks: str) -> int:
    Reporter.failed.clear()
    try:
        return int(DoitMain().run(["run", *tasks]) or 0)
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1


def _run_step(request: Request) -> Reply:
    elsewhere.use(_Guard(request))
    if request.task.startswith(_PACKAGES):
        return _run_package(request)
    status = _doit(request.task)
    failure = _failure(request, status)
    return failure or _finished(request)


def _run_package(request: Request) -> Reply:
    """Compile a package, without writing a package file, which would require the user's key, and time."""
    name = request.task.removeprefix(_PACKAGES)
    # The key of a package contains the digests of its own sources.
    packages = {f"{_PACKAGES}{each}" for each in (name, *catalog.closure(name))}
    needed = [each for each in _makers(packages) if not each.startswith(_PACKAGES)]
    failure = _failure(request, _doit(*needed))
    if failure is not None:
        return failure
    for each in catalog.closure(name):
        problem = guarded(each, functools.partial(_record_package, each))
        if problem is not None:
            return Reply("unfit", "", f"{_PACKAGES}{each}: {_text(problem)}")
    job = Job(request.task, log_path(request.task))
    job.log.write_text("")
    problem = guarded(request.task, lambda: builder.compile_package(job, catalog.load(name)))
    return _finished(request) if problem is None else _failed(request, request.task, problem)


def _record_package(name: str) -> None:
    task = f"{_PACKAGES}{name}"
    job = Job(task, log_path(task))
    built = builder.obtain(job, catalog.load(name))
    files.write(package_record(name), msgspec.json.format(msgspec.json.encode(built), indent=1) + b"\n")


def _makers(tasks: Set[str]) -> list[str]:
    """Return the tasks that build the inputs of these tasks."""
    makers: dict[str, str] = {}
    needs: list[str] = []
    for creator in discovery.discover().values():
        created: Any = creator()
        for each in [created] if isinstance(created, dict) else created:
            name = f"{each['basename']}:{each['name']}" if each.get("name") else each["basename"]
            makers.update(dict.fromkeys(each.get("targets", ()), name))
            if name in tasks:
                needs += each.get("file_dep", ())
    return sorted({makers[path] for path in needs if path in makers})


def _failure(request: Request, status: int) -> Reply | None:
    """Return the reply about a doit that failed."""
    if status == EXIT_INTERRUPTED:
        return Reply("unfit", "", "interrupted")
    for name, fail in Reporter.failed:
        return _failed(request, name, fail)
    return Reply("unfit", "", f"doit ended with status {status}") if status else None


def _failed(request: Request, name: str, fail: BaseFail) -> Reply:
    error = getattr(fail, "error", None)
    log = _give_log(name)
    if name != request.task or isinstance(error, _OF_THE_HOST):
        return Reply("unfit", "", f"{name}: {_text(fail)}", log=log)
    message, hint = (error.message, error.hint) if isinstance(error, NablaError) else (_text(fail), "")
    return Reply("failed", "", message[:_MAX_TEXT], hint[:_MAX_TEXT], log, _give_folders(request.task))


def _text(fail: BaseFail) -> str:
    error = getattr(fail, "error", None)
    return error.message if isinstance(error, NablaError) else str(fail.get_msg()).rstrip()[-_MAX_TEXT:]


def _finished(request: Request) -> Reply:
    log = _give_log(request.task)
    folder = result_cache.find_local(request.key)
    if folder is None:
        return Reply("unfit", "", f"the inputs of {request.task} differ from the client's", log=log)
    problem = _give_result(request, folder)
    return Reply("unfit", "", problem, log=log) if problem else Reply("done", "", log=log)


def _run_whole(request: Request) -> Reply:
    status = _doit(request.task)
    log = _give_log(request.task)
    if status == 0:
        return Reply("done", "", log=log)
    text = "\n".join(_text(fail) for _, fail in Reporter.failed)
    return Reply("failed", "", (text or f"doit ended with status {status}")[:_MAX_TEXT], log=log)


def _give_result(request: Request, folder: Path) -> str:
    """Upload the result to the store, unless it came from there; return the reason if that fails."""
    if result_cache.origin(folder):
        return ""
    sources = {path.name: path for path in sorted(folder.iterdir()) if path.name != "manifest.json"}
    try:
        stores.give(request.key, request.task, sources)
    except (StoreError, EntryError) as error:
        return f"the result cannot be uploaded to the store: {error}"
    except NablaError as error:
        return f"the result cannot be uploaded to the store: {error.message}"
    return ""


def _give_log(task: str) -> File | None:
    path = log_path(task)
    with suppress(OSError, StoreError):
        size = path.stat().st_size
        if not 0 < size <= _MAX_LOG:
            return None
        file = File(manifest.file_sha256(path), size)
        for store in stores.writable():
            store.send(f"cas/{file.sha256}", path, f"log of {task}")
            return file
    return None


def _give_folders(task: str) -> dict[str, Output]:
    """Upload the work folders of a failed step to the store, for `doit shell` on the client."""
    given: dict[str, Output] = {}
    name = _recipe(task)
    if name is None:
        return given
    for part in _FOLDERS:
        path = Work(name).base / part
        if path.is_dir():
            with suppress(OSError, StoreError, EntryError, NablaError):
                given[str(path.relative_to(WORK))] = stores.give_output(path, f"{name}/{part}")
    return given


def _recipe(task: str) -> str | None:
    for creator in discovery.discover().values():
        created: Any = creator()
        for each in [created] if isinstance(created, dict) else created:
            for action in each.get("actions") or ():
                if isinstance(action, Action) and action.name == task and action.args:
                    return str(action.args[0])
    return None


if __name__ == "__main__":
    files.make_folder(cache_dir())
    sys.exit(main())
