# SPDX-License-Identifier: Apache-2.0
"""Simulate a build on N workers, from the measured durations of its steps.

List scheduling in critical-path order, as in doit and Dask. Steps that need the user's keys, and steps whose results
cannot be stored, use the slots of the client. A step on a worker takes `OVERHEAD` longer, for the start of its process,
its inputs and its result. Durations were measured on two cores, and a worker has two cores.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from nabla.engine import order

OVERHEAD = 2.0  # seconds, measured: test builds with steps that do nothing
CLIENT = 2  # slots


@dataclass(frozen=True)
class Outcome:
    """A simulated build. `busy`: the part of the workers' time in which they run steps."""

    workers: int
    seconds: float
    busy: float


def simulate(
    needs: Mapping[str, Iterable[str]], seconds: Mapping[str, float], remote: Set[str], workers: int
) -> Outcome:
    """Return the duration of a build whose task `name` needs the tasks `needs[name]`. 0 workers: all on the client."""
    paths = order.remaining_paths(needs, seconds)
    missing = {name: {each for each in needs[name] if each in needs} for name in needs}
    behind: dict[str, list[str]] = {name: [] for name in needs}
    for name, needed_by_it in missing.items():
        for needed in needed_by_it:
            behind[needed].append(name)
    free = {True: workers, False: CLIENT}
    ready: dict[bool, list[tuple[float, str]]] = {True: [], False: []}
    running: list[tuple[float, str, bool]] = []
    now, used = 0.0, 0.0

    def offer(name: str) -> None:
        heapq.heappush(ready[name in remote and workers > 0], (-paths[name], name))

    for name, needed_by_it in missing.items():
        if not needed_by_it:
            offer(name)
    while running or ready[True] or ready[False]:
        for where in (True, False):
            while ready[where] and free[where]:
                _, name = heapq.heappop(ready[where])
                takes = seconds.get(name, 0.0) + (OVERHEAD if where else 0.0)
                used += takes if where else 0.0
                free[where] -= 1
                heapq.heappush(running, (now + takes, name, where))
        now, name, where = heapq.heappop(running)
        free[where] += 1
        for each in behind[name]:
            missing[each].discard(name)
            if not missing[each]:
                offer(each)
    return Outcome(workers, now, used / (now * workers) if workers and now else 0.0)


def critical_path(needs: Mapping[str, Iterable[str]], seconds: Mapping[str, float]) -> list[str]:
    """Return the longest chain of tasks, from its start to its end."""
    weights = {name: seconds.get(name, 0.0) for name in needs}
    paths = order.remaining_paths(needs, weights)
    behind: dict[str, list[str]] = {}
    for name, each in needs.items():
        for needed in each:
            behind.setdefault(needed, []).append(name)
    chain = [max(paths, key=lambda name: paths[name])] if paths else []
    while chain and (following := behind.get(chain[-1])):
        chain.append(max(following, key=lambda name: paths[name]))
    return chain
