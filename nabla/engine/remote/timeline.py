# SPDX-License-Identifier: Apache-2.0
"""A record of which step ran where and when, out/state/timeline.jsonl: one JSON object on each line.

    {"run": ["all"], "time": 1764415200.0}                                   a doit started
    {"task": "kernel:build", "begin": …, "end": …, "how": "built", …}        a step ended

`how` is built, restored (from the cache or a store), farm or failed; `where` is a worker of a farm, `started` the time
at which it started the step. `doit trace` reads the file. Times are seconds since 1970 by the clock of this host.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from nabla.core.paths import STATE

PATH = STATE / "timeline.jsonl"
_LIMIT = 4 << 20  # bytes, at the start of a run

_current = threading.local()


def start(words: Sequence[str]) -> None:
    """Record that a run started."""
    with suppress(OSError):
        if PATH.stat().st_size > _LIMIT:
            PATH.unlink()
    _append({"run": list(words), "time": time.time()})


@contextmanager
def span(task: str) -> Iterator[None]:
    """Record the duration of a step."""
    begin = time.time()
    _current.values = {"how": "built"}
    try:
        yield
    except BaseException:
        _current.values["how"] = "failed"
        raise
    finally:
        lane = f"{os.getpid()}.{threading.get_ident()}"
        _append({"task": task, "begin": begin, "end": time.time(), "lane": lane, **_current.values})


def note(how: str, **values: Any) -> None:
    """Record how the current step got its result, with `where` and `started` for a farm."""
    if hasattr(_current, "values"):
        _current.values.update(how=how, **values)


def _append(record: dict[str, Any]) -> None:
    # One write, so that lines of several processes do not mix. A build must not fail because of it.
    with suppress(OSError):
        STATE.mkdir(parents=True, exist_ok=True)
        with PATH.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
