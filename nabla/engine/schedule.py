# SPDX-License-Identifier: Apache-2.0
"""In which order doit starts what could be started: what most is to be waited for comes first.

doit itself takes whatever became ready first, and where several tasks waited for the same one, any of these. With two
tasks at a time it left Python, on the longest way through the packages, for the end, and a processor idle. List
scheduling by the length of the way that is still to go ("critical path", Graham 1969) comes close to the best order.
How long each task takes is known from the measured build (bench/results/build.json); of others, one second is assumed.
The order of what a user names on the command line stays.
"""

from __future__ import annotations

import graphlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from doit.control import TaskDispatcher

from nabla.core.paths import ROOT

_MEASURED = ROOT / "bench" / "results" / "build.json"


def install() -> None:
    """Have every doit run in this process go by this order. To be called by dodo.py."""
    # There is no setting for it, and the commands make their dispatcher themselves.
    TaskDispatcher._get_next_node = _in_order(TaskDispatcher._get_next_node)


def ways(waits_for: Mapping[str, list[str]], seconds: Mapping[str, float]) -> dict[str, float]:
    """Return for each task how many seconds pass at least from its start to the end of the last that waits for it.

    `waits_for`: names of the tasks that must have ended, by task. `seconds`: by task, where known. Nothing for a graph
    that has a circle: doit will tell of it.
    """
    sorter = graphlib.TopologicalSorter(waits_for)
    after = dict.fromkeys(waits_for, 0.0)
    try:
        order = list(sorter.static_order())
    except graphlib.CycleError:
        return {}
    way: dict[str, float] = {}
    for name in reversed(order):
        way[name] = after.get(name, 0.0) + seconds.get(name, 1.0)
        for needed in waits_for.get(name, ()):
            after[needed] = max(after.get(needed, 0.0), way[name])
    return way


def _in_order(original: Callable[..., Any]) -> Callable[..., Any]:
    def next_node(self: Any, ready: deque[Any], tasks_to_run: list[str]) -> Any:
        if len(ready) < 2:
            return original(self, ready, tasks_to_run)
        if not hasattr(self, "ways"):
            self.ways = ways({name: task.task_dep for name, task in self.tasks.items()}, _measured())
            self.asked = set()
        # What has to wait does not run when its turn comes: doit only learns what it waits for. Of equals the first.
        node = max(ready, key=lambda each: (_is_news(self, each), self.ways.get(each.task.name, 0.0)))
        ready.remove(node)
        self.asked.add(node.task.name)
        return node

    return next_node


def _is_news(dispatcher: Any, node: Any) -> bool:
    if node.task.name in dispatcher.asked:
        return False
    needed = (dispatcher.nodes.get(name) for name in node.task.task_dep)
    return any(each is None or each.run_status in (None, "run") for each in needed)


def _measured() -> dict[str, float]:
    # Nobody's build fails for want of a measurement. Read here, as every doit loads this module: nabla.report
    # .benchmarks, which says whether the file is right, needs many others.
    with suppress(OSError, ValueError, KeyError, TypeError):
        steps = json.loads(_MEASURED.read_text(encoding="utf-8"))["steps"]
        return {step["name"]: float(step["seconds"]) for step in steps}
    return {}
