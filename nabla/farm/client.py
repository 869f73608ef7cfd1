# SPDX-License-Identifier: Apache-2.0
"""The client of a farm, which `doit -n N --farm ADDRESS` uses instead of running a step here.

One step is one Dask task; its priority is the length of the remaining path. The build continues even if the farm fails:
a step that no worker could run is built here.
"""

from __future__ import annotations

import getpass
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from nabla.core import files, log
from nabla.core.errors import CommandError, ConfigError, FetchError, NablaError
from nabla.core.paths import WORK, cache_dir
from nabla.engine import result_cache
from nabla.engine.remote import settings as store_settings
from nabla.engine.remote import stores, timeline
from nabla.engine.remote.record import EntryError, Output
from nabla.engine.remote.transport import StoreError
from nabla.farm import identity, protocol, settings
from nabla.farm.protocol import Reply, Request, Started

_RUNNING = "is the scheduler running?"
_ATTEMPTS = 3  # workers that are tried before the step is built here
_POLL = 0.1
_ALONE = 20.0  # seconds without a suitable worker, after which steps are built here
_RECONNECT = 30.0  # seconds between attempts to reach a lost scheduler
_REST = 60.0  # seconds for which a worker that could not run a step gets no other
_FOLDER = re.compile(r"[a-z0-9][a-z0-9.+_-]*/(build|objects|sysroot)")


class _NoWorkerError(Exception):
    """No worker is left that could run a step."""


class Farm:
    """A connection to a scheduler; see nabla.engine.remote.elsewhere for the methods."""

    def __init__(self, address: str, priorities: Mapping[str, float], here: int) -> None:
        self.address = settings.address(address)
        self._priorities = priorities
        self._slots = threading.BoundedSemaphore(here)
        self._held = threading.local()
        self._lock = threading.Lock()
        self._client: Any = None
        self._lost_at = 0.0
        self._alone_since: float | None = None
        self._shared: set[str] = set()
        self._times: dict[str, float] = {}
        self._unfit: dict[str, float] = {}  # name of a worker -> time of its last failure
        self._warned: set[str] = set()
        self._name = f"{getpass.getuser()}-{os.uname().nodename}-{os.getpid()}"
        self._commit = identity.commit()
        self._changes: Output | None = None

    def __enter__(self) -> Farm:
        current = store_settings.load()
        if not current.stores:
            raise ConfigError(
                "a farm needs a store that client and workers read", "see docs/farm.md, and docs/store.md"
            )
        changed = identity.changes()
        if changed:
            self._changes = self._give_changes(changed)
            log.info(f"{len(changed)} changed files go to the workers, the first is {changed[0]}")
        self._connect()
        try:
            self._need_workers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _need_workers(self) -> None:
        try:
            suitable, others = self._workers()
        except Exception as error:  # Dask may raise any exception if the scheduler is lost at this moment
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(f"the farm {self.address} does not answer: {reason}", _RUNNING) from None
        log.info(f"farm {self.address}: {sum(suitable.values())} slots on commit {self._commit[:12]}")
        if not suitable:
            hint = f"there are {others} workers for other commits or architectures" if others else "there is no worker"
            raise ConfigError(
                f"no worker of {self.address} can run steps of commit {self._commit[:12]}",
                f"{hint}; start one: doit farm:worker {self.address}",
            )

    def __exit__(self, *error: object) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close(timeout=5)

    @contextmanager
    def here(self) -> Iterator[None]:
        """See `elsewhere.Farm`."""
        self._take_slot()
        try:
            yield
        finally:
            self._leave_slot()

    def have(self, key: str) -> None:
        """Upload a result that was built here earlier to the store: workers need it as an input."""
        with self._lock:
            if key in self._shared:
                return
            self._shared.add(key)
        folder = result_cache.entry(key)
        with suppress(OSError, ValueError):
            if store_settings.load().pushes and not result_cache.origin(folder):
                sources = {path.name: path for path in sorted(folder.iterdir()) if path.name != "manifest.json"}
                stores.offer(key, key[:12], sources)

    def build(self, task: str, key: str, log: Path) -> bool:
        """See `elsewhere.Farm`."""
        request = Request(task, key, self._commit, settings.architecture(), self._name, self._changes)
        self._leave_slot()
        try:
            for attempt in range(_ATTEMPTS):
                began = time.time()
                reply = self._submit(request, attempt)
                if reply is None:
                    return False
                started = self._times.pop(task, began)
                self._append_log(reply, log)
                if reply.outcome == "done":
                    timeline.note("farm", where=reply.worker, started=started)
                    return True
                if reply.outcome == "failed":
                    timeline.note("failed", where=reply.worker, started=started)
                    self._take_folders(reply)
                    raise CommandError(reply.message, _with_worker(reply))
                self._unfit[reply.worker] = time.monotonic()
                self._warn(f"worker {reply.worker} cannot run {task}: {reply.message}", reply.worker)
            return False
        finally:
            self._take_slot()

    def run_whole(self, task: str) -> Reply | None:
        """Run a whole task on a worker; None if the farm cannot."""
        return self._submit(Request(task, "", self._commit, settings.architecture(), self._name, self._changes), 0)

    # The slots of this host: a thread that waits for the farm holds none.

    def _take_slot(self) -> None:
        self._slots.acquire()
        self._held.value = True

    def _leave_slot(self) -> None:
        if getattr(self._held, "value", False):
            self._held.value = False
            self._slots.release()

    # The connection.

    def _connect(self) -> None:
        from distributed import Client

        settings.preflight(self.address, "client")
        try:
            client = Client(
                self.address,
                security=settings.security("client"),
                timeout=10,
                set_as_default=False,
                name=self._name,
            )
            client.subscribe_topic(protocol.TOPIC, self._on_event)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"the farm {self.address} does not answer: {error}", "is the scheduler running?"
            ) from None
        self._client = client

    def _connected(self) -> Any:
        """Return the client; None while the scheduler is lost."""
        with self._lock:
            client = self._client
            if client is not None and client.status == "running":
                return client
            if client is not None:
                self._client = None
                self._lost_at = time.monotonic()
                log.warn(f"the scheduler {self.address} is lost: steps are built here until it returns")
                with suppress(Exception):
                    client.close(timeout=1)
            if time.monotonic() - self._lost_at < _RECONNECT:
                return None
            self._lost_at = time.monotonic()
            with suppress(NablaError, Exception):
                self._connect()
                log.info(f"the scheduler {self.address} is back")
            return self._client

    def _workers(self) -> tuple[dict[str, int], int]:
        """Return the suitable workers and the number of their slots, and the number of other workers."""
        suitable, others = dict[str, int](), 0
        wanted = protocol.resources(self._commit, settings.architecture())
        for each in self._client.scheduler_info(n_workers=-1)["workers"].values():
            has = each.get("resources", {})
            if all(has.get(name, 0) >= amount for name, amount in wanted.items()):
                suitable[str(each["name"])] = int(has[protocol.SLOTS])
            else:
                others += 1
        return suitable, others

    def _chosen(self) -> list[str] | None:
        """Return the workers that may run a step; None for any suitable one. Raises `_NoWorkerError`."""
        now = time.monotonic()
        resting = {name for name, since in list(self._unfit.items()) if now - since < _REST}
        if not resting:
            return None
        left = sorted(self._workers()[0].keys() - resting)
        if not left:
            raise _NoWorkerError
        return left

    def _is_alone(self) -> bool:
        """Return whether there was no suitable worker for some time."""
        with suppress(Exception):
            if self._workers()[0]:
                self._alone_since = None
                return False
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        return now - self._alone_since > _ALONE

    # One task.

    def _submit(self, request: Request, attempt: int) -> Reply | None:
        from distributed import KilledWorker

        client = self._connected()
        if client is None:
            return None
        text = msgspec.json.encode(request).decode()
        # The same step of two clients is one task. A whole task runs for each of them.
        identifier = request.key[:32] or f"{self._name}-{time.time_ns()}"
        try:
            workers = self._chosen()
        except Exception:  # including Dask's own errors: the scheduler is lost
            return None
        future = client.submit(
            protocol.run,
            text,
            key=f"{request.task}-{identifier}-{attempt}",
            priority=round(self._priorities.get(request.task, 0.0) * 1000),
            resources=protocol.resources(request.commit, request.architecture),
            pure=False,
            workers=workers,
        )
        try:
            checked = time.monotonic()
            # `result` with a timeout may raise any exception when a worker is lost.
            while not future.done():
                time.sleep(_POLL)
                if client.status != "running":
                    self._connected()
                    return None
                if time.monotonic() - checked > 2:
                    checked = time.monotonic()
                    if self._is_alone():
                        self._warn(f"no worker of {self.address} is left: steps are built here")
                        return None
            return msgspec.json.decode(future.result(timeout=30), type=Reply)
        except KilledWorker:
            self._warn(f"{request.task}: several workers were lost while they ran it; it is built here")
        except msgspec.DecodeError as error:
            self._warn(f"{request.task}: a worker's reply is malformed: {error}")
        except Exception as error:  # after any exception of Dask, the step can be built here
            if client.status == "running" and not future.cancelled():
                self._warn(f"{request.task}: the farm failed: {type(error).__name__}: {str(error)[:120]}")
            self._connected()
        finally:
            with suppress(Exception):
                future.release()
        return None

    def _on_event(self, event: Any) -> None:
        with suppress(Exception):
            started = msgspec.convert(event[1], Started)
            if started.client == self._name:
                self._times[started.task] = time.time()
                log.info(f"{started.task}: runs on {started.name}")

    # Results and errors from workers.

    def _append_log(self, reply: Reply, path: Path) -> None:
        with suppress(OSError, NablaError), path.open("ab") as stream:
            stream.write(f"on worker {reply.worker}:\n".encode())
            if reply.log is not None:
                with files.scratch(cache_dir() / "tmp") as scratch:
                    if stores.obtain_file(reply.log.sha256, reply.log.size, scratch / "log", "log"):
                        stream.write((scratch / "log").read_bytes())

    def _take_folders(self, reply: Reply) -> None:
        """Put the work folders of a failed step where `doit shell` looks for them."""
        for name, output in reply.folders.items():
            if _FOLDER.fullmatch(name) is None:
                continue
            try:
                files.make_folder((WORK / name).parent)
                files.remove(WORK / name)
                stores.take_output(output, WORK / name)
            except (StoreError, EntryError, NablaError, OSError) as error:
                self._warn(f"{name} of the failed step cannot be fetched from the store: {error}")

    def _give_changes(self, paths: list[str]) -> Output:
        try:
            with files.scratch(cache_dir() / "tmp") as scratch:
                identity.write_changes(paths, scratch / "changes")
                return stores.give_output(scratch / "changes", "changed files")
        except (StoreError, EntryError) as error:
            raise FetchError(
                f"the changed files cannot be uploaded to the store: {error}", "see docs/farm.md"
            ) from None

    def _warn(self, line: str, once: str = "") -> None:
        """Print a warning, once for each line, or once for each value of `once`."""
        if (once or line) not in self._warned:
            self._warned.add(once or line)
            log.warn(line)


def print_status(address: str) -> None:
    """Print the workers of a farm and what they run. Raises `ConfigError`."""
    from distributed import Client

    where = settings.address(address)
    settings.preflight(where, "client")
    with Client(where, security=settings.security("client"), timeout=10, set_as_default=False) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        running = client.processing()
    print(f"{where}: {len(workers)} workers")
    for key, each in sorted(workers.items(), key=lambda item: str(item[1]["name"])):
        has = each.get("resources", {})
        commit = next((name for name in has if name.startswith("commit ")), "commit unknown")
        print(f"  {each['name']}: {has.get(protocol.SLOTS, 0):.0f} slots, {commit}, {key}")
        for task in running.get(key, ()):
            print(f"    {str(task).rsplit('-', 2)[0]}")


def _with_worker(reply: Reply) -> str:
    return f"{reply.hint}\nit ran on worker {reply.worker}".strip()
