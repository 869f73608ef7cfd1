# SPDX-License-Identifier: Apache-2.0
"""The messages between clients and workers: names, keys and digests, as JSON; files travel through the store.

`run` is the only function that a worker runs. Dask sends its name, and each process looks it up in its own code:
members of a farm load no objects except those in Dask's own messages.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from nabla.engine.remote.record import Hex, Output

# The objects in Dask's own messages, and the one function of a farm.
ALLOWED = frozenset(
    {
        ("nabla.farm.protocol", "run"),
        ("dask._expr", "Expr._reconstruct"),
        ("dask._expr", "LLGExpr"),
        ("dask._task_spec", "Alias"),
        ("dask._task_spec", "DataNode"),
        ("dask._task_spec", "Task"),
        ("dask._task_spec", "TaskRef"),
        ("distributed.scheduler", "KilledWorker"),
        ("builtins", "bytes"),
        ("builtins", "str"),
    }
)

TOPIC = "nabla"  # of Dask's events: a worker started a step
SLOTS = "slots"
# Tasks of these groups may run on a worker as a whole, by `doit farm:run`.
WHOLE_TASKS = ("check:*", "fuzz:*", "repro:*", "verify:*")

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9:+._-]{0,199}\Z")]
Commit = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40,64}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=20_000)]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Run one task. `key`: of its result; empty for a whole task. `changes`: the data that differs from the commit."""

    task: Name
    key: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
    commit: Commit
    architecture: Name
    client: Name
    changes: Output | None = None


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file in the store."""

    sha256: Hex
    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)]


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The end of a task.

    `outcome`: `done`; `failed`: the step itself failed, as it would anywhere; `unfit`: this worker cannot run it.
    `folders`: the work folders of a failed step, as blobs by their path below out/work.
    """

    outcome: Literal["done", "failed", "unfit"]
    worker: Text
    message: Text = ""
    hint: Text = ""
    log: File | None = None
    folders: dict[str, Output] = {}
    seconds: float = 0.0


class Started(msgspec.Struct, frozen=True):
    """A worker has started a task of a client. Dask adds fields to it."""

    task: Name
    client: Name
    name: Text


class RefusedError(Exception):
    """A message names an object that no member of a farm loads."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return one of the allowed objects."""
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        raise RefusedError(f"a farm runs only steps, not {module}.{name}")


def restricted_loads(data: Any, *, buffers: Any = ()) -> Any:
    """Like pickle.loads, for the allowed objects. Raises `RefusedError`."""
    return _Unpickler(io.BytesIO(bytes(data)), buffers=buffers or None).load()


def restrict() -> None:
    """Restrict Dask in this process to the allowed objects."""
    import distributed  # all of its modules, some of which have a reference to the function
    from distributed.protocol import pickle as dask_pickle

    original = vars(dask_pickle)["loads"]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in (distributed.__name__, "dask"):
            for each, value in list(vars(module).items()):
                if value is original:
                    vars(module)[each] = restricted_loads


_handler: Callable[[Request], Reply] | None = None


def handle_by(handler: Callable[[Request], Reply]) -> None:
    """Set what `run` calls, in a worker."""
    global _handler
    _handler = handler


def run(text: str) -> str:
    """Run the request in `text`, in a worker; return the reply."""
    if _handler is None:
        raise RuntimeError("this process is not a worker of nabla: start one with `doit farm:worker`")
    request = msgspec.json.decode(text, type=Request)
    return msgspec.json.encode(_handler(request)).decode()


def resources(commit: str, architecture: str) -> dict[str, float]:
    """Return the resources that a step needs. Dask assigns it only to workers that have all of them."""
    return {SLOTS: 1.0, architecture: 1.0, commit_resource(commit): 1.0}


def commit_resource(commit: str) -> str:
    """Return the name of the resource of workers on a commit."""
    return f"commit {commit[:12]}"
