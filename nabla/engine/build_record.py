# SPDX-License-Identifier: Apache-2.0
"""What steps of this checkout made, told to other doit processes that run in it at the same time.

Each doit decides from what its database said when it looked: two that were started together both find a step out of
date. A step's lock only has the second one wait; if it then made the outputs once more, it would pull them away from
the first one, which already reads them. So who makes a step writes down what of, and how it came out, before it frees
the lock; who gets the lock and finds its own step made like that, after it was started itself, has nothing to do.
What was made earlier does not count: `doit --always-execute` and `doit forget` mean it.

out/state/made/<step>.json   time (seconds since the epoch), from (digest of what went in), outputs (digest by path)
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nabla.core import digest, files
from nabla.core.paths import STATE

# Workers are forked from the doit that decides, and so keep its time.
_STARTED = time.time()


def tell(name: str, facts: Any, outputs: Mapping[str, str | None]) -> None:
    """Write down that a step was made. To be called by who holds its lock.

    `facts`: all that decides the outputs, JSON data; `outputs`: digests by path. Raises `NablaError`, OSError.
    """
    record = {"time": time.time(), "from": digest.config_digest(facts), "outputs": dict(outputs)}
    path = _path(name)
    files.make_folder(path.parent)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(record) + "\n", encoding="utf-8")
    partial.rename(path)


def meanwhile(name: str, facts: Any, outputs: Mapping[str, str | None]) -> bool:
    """Tell whether another doit made the step of the same facts since this one started, and its outputs are whole.

    To be called by who holds the step's lock. A record that cannot be read is none.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(_path(name).read_text(encoding="utf-8"))
        return bool(
            record["time"] >= _STARTED
            and record["from"] == digest.config_digest(facts)
            and record["outputs"] == dict(outputs)
        )
    return False


def _path(name: str) -> Path:
    return STATE / "made" / f"{name.replace('/', '+')}.json"
