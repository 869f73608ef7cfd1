# SPDX-License-Identifier: Apache-2.0
"""Critical-path order: of the tasks that `doit -n` may start, the one with the longest remaining path comes first.

doit runs tasks in the order of their selection. With several workers, the longest chain of packages would run last and
leave processors idle; list scheduling by critical path (Graham 1969) is close to the best order. Durations come from
the measured build (bench/results/build.json); an unmeasured task counts as one second.
"""

from __future__ import annotations

import graphlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from nabla.core.paths import ROOT

_MEASURED = ROOT / "bench" / "results" / "build.json"


def ordered(tasks: Iterable[Any], selected: Iterable[str]) -> list[str]:
    """Return the selected tasks of doit and all their dependencies, the longest remaining path first."""
    needs = dependencies(tasks, selected)
    paths = remaining_paths(needs, measured())
    return sorted(needs, key=lambda name: (-paths.get(name, 0.0), name))


def priorities(tasks: Iterable[Any], selected: Iterable[str]) -> dict[str, float]:
    """Return the remaining path of the selected tasks of doit and of all their dependencies, in seconds."""
    return remaining_paths(dependencies(tasks, selected), measured())


def dependencies(tasks: Iterable[Any], selected: Iterable[str]) -> dict[str, set[str]]:
    """Return the direct dependencies of each selected task of doit, and of each task that these need."""
    by_name = {task.name: task for task in tasks}
    makers = {target: task.name for task in by_name.values() for target in task.targets}
    needs: dict[str, set[str]] = {}
    pending = list(selected)
    while pending:
        name = pending.pop()
        if name in by_name and name not in needs:
            task = by_name[name]
            needs[name] = {*task.task_dep, *(makers[path] for path in task.file_dep if path in makers)}
            pending += needs[name]
    return needs


def remaining_paths(needs: Mapping[str, Iterable[str]], seconds: Mapping[str, float]) -> dict[str, float]:
    """Return, for each task, the minimum time from its start to the end of the last task that depends on it.

    `needs`: task -> its dependencies. `seconds`: task -> measured duration. Empty for a graph with a cycle, which doit
    reports.
    """
    behind = dict.fromkeys(needs, 0.0)
    try:
        order = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError:
        return {}
    paths: dict[str, float] = {}
    for name in reversed(order):
        paths[name] = behind.get(name, 0.0) + seconds.get(name, 1.0)
        for needed in needs.get(name, ()):
            behind[needed] = max(behind.get(needed, 0.0), paths[name])
    return paths


def measured() -> dict[str, float]:
    """Return the measured duration of each task, in seconds; empty without a measurement."""
    # A build needs no measurement; nabla.report.benchmarks checks the file.
    with suppress(OSError, ValueError, KeyError, TypeError):
        steps = json.loads(_MEASURED.read_text(encoding="utf-8"))["steps"]
        return {step["name"]: float(step["seconds"]) for step in steps}
    return {}
