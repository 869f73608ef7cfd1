# SPDX-License-Identifier: Apache-2.0
"""Stores of results on other machines (docs/store.md).

cache:push, cache:pull, cache:stat, cache:gc, cache:challenge
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nabla.commands import cache, challenge
from nabla.engine.task import TaskDict, command


def _days(what: str, default: int) -> dict[str, Any]:
    return {"name": "days", "long": "days", "type": int, "default": default, "help": what}


def task_cache() -> Iterator[TaskDict]:
    """Share results with other machines."""
    yield command(
        "cache:push",
        cache.push,
        doc="upload results that were built here, and pinned files, to the stores: doit cache:push [-- TITLE…]",
        params=[
            _days("only results that were used in the last DAYS days", 30),
            {
                "name": "current",
                "long": "current",
                "type": bool,
                "default": False,
                "help": "only results that this checkout now uses",
            },
            {"name": "without_files", "long": "without-files", "type": bool, "default": False, "help": "results only"},
        ],
        words="words",
    )
    yield command("cache:pull", cache.pull, doc="download pinned files and known results from the stores")
    yield command("cache:stat", cache.stat, doc="print the contents of the cache and of the stores")
    yield command(
        "cache:gc",
        cache.gc,
        doc="remove unused results from the cache and from stores in folders",
        params=[_days("remove entries that were not used for DAYS days", 30)],
    )
    yield command(
        "cache:challenge",
        challenge.run,
        doc="build results of stores again and name the signers of those that differ: doit cache:challenge [N [TASK…]]",
        params=[{"name": "seed", "long": "seed", "type": str, "default": "", "help": "choose the same results again"}],
        words="words",
        interactive=True,
    )
