# SPDX-License-Identifier: Apache-2.0
"""A worker of a farm, in the foreground: it runs steps in separate checkouts, `out/farm/<slot>`.

The process is a Dask worker that loads only the objects in Dask's own messages and `nabla.farm.protocol.run`: a client
cannot send code. Each request runs in a process of nabla.farm.slot, with the code of this checkout's commit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from nabla.core import files, log
from nabla.core.errors import EXIT_USER, ConfigError, HostError, NablaError
from nabla.core.paths import OUT, cache_dir
from nabla.core.process import run
from nabla.engine.remote import settings as store_settings
from nabla.engine.remote import stores
from nabla.engine.remote.record import EntryError
from nabla.engine.remote.transport import StoreError
from nabla.farm import identity, protocol, settings
from nabla.farm.protocol import Reply, Request, Started

_RETRY = (1.0, 2.0, 5.0, 10.0)  # seconds between attempts to reach the scheduler; the last one repeats
_POLL = 0.2
_LEAST_ROOM = 1 << 30  # free bytes that a worker needs to run a step


@dataclass
class Runner:
    """Runs each request in a free slot."""

    name: str
    commit: str
    slots: int
    stopped: threading.Event = field(default_factory=threading.Event)
    _free: queue.LifoQueue[Path] = field(default_factory=queue.LifoQueue)

    def __post_init__(self) -> None:
        for number in range(self.slots, 0, -1):
            self._free.put(OUT / "farm" / str(number))

    def handle(self, request: Request) -> Reply:
        """Run one request; every problem of this host becomes a reply."""
        begin = time.monotonic()
        root = self._free.get()
        try:
            reply = self._refusal(request) or self._run(request, root)
        except NablaError as error:
            reply = Reply("unfit", self.name, error.message)
        except (OSError, EntryError, StoreError) as error:
            reply = Reply("unfit", self.name, str(error))
        finally:
            self._free.put(root)
        log.info(f"{request.task}: {reply.outcome}{f', {reply.message}' if reply.message else ''}")
        return msgspec.structs.replace(reply, worker=self.name, seconds=round(time.monotonic() - begin, 3))

    def _refusal(self, request: Request) -> Reply | None:
        if request.commit != self.commit:
            return Reply("unfit", self.name, f"the worker has commit {self.commit[:12]}, not {request.commit[:12]}")
        if request.architecture != settings.architecture():
            return Reply("unfit", self.name, f"the worker is {settings.architecture()}, not {request.architecture}")
        if not request.key and not any(_matches(request.task, each) for each in protocol.WHOLE_TASKS):
            return Reply("failed", self.name, f"workers do not run {request.task}", _allowed_tasks())
        for path in (OUT, cache_dir()):
            status = os.statvfs(path)
            if status.f_bavail * status.f_frsize < _LEAST_ROOM:
                return Reply("unfit", self.name, f"the worker's disk is full: {path}")
        return None

    def _run(self, request: Request, root: Path) -> Reply:
        worker, key = _present_task()
        log.info(f"{request.task}: started for {request.client}")
        if worker is not None:
            started = Started(request.task, request.client, self.name)
            worker.log_event(protocol.TOPIC, msgspec.to_builtins(started))
        identity.clone(root, self.commit)
        if request.changes is not None:
            with files.scratch(cache_dir() / "tmp") as scratch:
                stores.take_output(request.changes, scratch / "changes")
                identity.apply_changes(scratch / "changes", root)
        reader, writer = os.pipe()
        finished = threading.Event()
        watch = threading.Thread(target=self._watch, args=(worker, key, writer, finished), daemon=True)
        watch.start()
        with tempfile.TemporaryDirectory(prefix="nabla-farm-") as scratch_name:
            answer = Path(scratch_name) / "reply"
            text = msgspec.json.encode(request).decode()
            words = [sys.executable, "-m", "nabla.farm.slot", text, str(answer), str(reader)]
            environment = {"PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
            try:
                run(words, cwd=root, env=environment, log=root / "out" / "farm.log", check=False, pass_fds=[reader])
            finally:
                finished.set()
                os.close(reader)
                watch.join()
            try:
                return msgspec.json.decode(answer.read_bytes(), type=Reply)
            except (FileNotFoundError, msgspec.DecodeError):
                return Reply("unfit", self.name, f"the process of {request.task} ended early, see {root}/out/farm.log")

    def _watch(self, worker: Any, key: str, writer: int, finished: threading.Event) -> None:
        """Close `writer`, which ends the process of the slot, when the worker stops or nobody waits for the result."""
        while not finished.wait(_POLL):
            if self.stopped.is_set() or (worker is not None and not _is_wanted(worker, key)):
                break
        os.close(writer)


def serve(words: list[str], slots: int, name: str) -> None:
    """Run a worker until SIGINT or SIGTERM. Raises `ConfigError`, `HostError`."""
    if len(words) != 1:
        raise ConfigError("farm:worker takes the address of a scheduler", "example: doit farm:worker tls://host:8786")
    if os.geteuid() == 0:
        raise HostError("a worker does not run as root", "start it as a dedicated user: it builds what clients request")
    if slots < 1:
        raise ConfigError("a worker needs at least one slot", "example: --slots 2")
    if not any(each.push for each in store_settings.load().stores):
        raise ConfigError("a worker needs a writable store", "see docs/farm.md: NABLA_STORE, NABLA_STORE_PUSH=1")
    settings.need_packages()
    settings.configure()
    address = settings.address(words[0])
    runner = Runner(name or f"{os.uname().nodename}-{os.getpid()}", identity.commit(), slots)
    files.make_folder(cache_dir())
    files.make_folder(OUT / "farm")
    protocol.handle_by(runner.handle)
    asyncio.run(_serve(address, runner))


async def _serve(address: str, runner: Runner) -> None:
    from distributed import Worker

    class FarmWorker(Worker):
        """A Dask worker that ends its steps when it closes."""

        async def close(self, *args: Any, **options: Any) -> Any:
            """Close the worker."""
            runner.stopped.set()
            return await super().close(*args, **options)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    attempt = 0
    while not stop.is_set():
        settings.preflight(address, "worker") if attempt == 0 else None
        runner.stopped.clear()
        try:
            worker = FarmWorker(
                address,
                nthreads=runner.slots,
                name=runner.name,
                resources={
                    name: amount * runner.slots
                    for name, amount in protocol.resources(runner.commit, settings.architecture()).items()
                },
                security=settings.security("worker"),
                memory_limit=0,
                local_directory=str(OUT / "farm" / "dask"),
                death_timeout=20,
                dashboard=False,
                dashboard_address=None,
                extensions={},
            )
            async with worker:
                attempt = 0
                log.info(f"worker {runner.name} of {address}: {runner.slots} slots, commit {runner.commit[:12]}")
                ended = asyncio.ensure_future(worker.finished())
                stopping = asyncio.ensure_future(stop.wait())
                await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
                for each in (ended, stopping):
                    each.cancel()
        except (OSError, RuntimeError) as error:
            # RuntimeError: the scheduler refuses the worker, perhaps because it has not noticed yet that it was lost.
            if attempt == 1:
                log.warn(f"the scheduler {address} does not accept this worker ({_cause(error)}); trying again")
        if stop.is_set():
            break
        attempt += 1
        if attempt == 1:
            log.warn(f"the connection to {address} is lost; trying again")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _RETRY[min(attempt, len(_RETRY)) - 1])


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__).splitlines()[0]


def _present_task() -> tuple[Any, str]:
    """Return the Dask worker and the key of the task in this thread; None outside of Dask."""
    from distributed import get_worker

    try:
        worker = get_worker()
        return worker, str(worker.get_current_task())
    except (ValueError, KeyError):
        return None, ""


def _is_wanted(worker: Any, key: str) -> bool:
    state = worker.state.tasks.get(key)
    return state is not None and state.state not in ("cancelled", "released", "forgotten")


def _matches(task: str, pattern: str) -> bool:
    return task.startswith(pattern.removesuffix("*"))


def _allowed_tasks() -> str:
    return f"they run steps, and {', '.join(protocol.WHOLE_TASKS)}"


def main() -> int:
    """Run a worker that dask-jobqueue starts: `python -m nabla.farm.worker ADDRESS --name NAME --nthreads N …`."""
    parser = argparse.ArgumentParser(prog="nabla.farm.worker", description="a worker with one slot (docs/farm.md)")
    parser.add_argument("address")
    parser.add_argument("--name", default="")
    parser.add_argument("--nthreads", default="", help="compilers at a time")
    options, _ = parser.parse_known_args()
    if options.nthreads:
        os.environ.setdefault("NABLA_JOBS", options.nthreads)
    try:
        serve([options.address], 1, options.name)
    except NablaError as error:
        print(error.render(), file=sys.stderr)
        return EXIT_USER
    return 0


if __name__ == "__main__":
    sys.exit(main())
