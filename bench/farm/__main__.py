# SPDX-License-Identifier: Apache-2.0
"""Speed-up of a farm: simulated for any number of workers, from the measured durations of a build from scratch.

    python -m bench.farm [--tasks TASK…] [--workers N…] [--commit]
    python -m bench.farm --measure [--tasks TASK…]   a build on this host alone, and on three workers on this host
    python -m bench.farm --kills 50       a build on three workers, with SIGKILL of any role at 50 random moments

The simulation's durations are those in bench/results/build.json (python -m bench.build_times).
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import common
from bench.farm import simulation
from nabla.core import log
from nabla.core.errors import NablaError
from nabla.engine import discovery, order
from nabla.engine.action import Action

_WORKERS = (1, 2, 3, 8, 32, 128)


def tasks() -> dict[str, dict[str, Any]]:
    """Return all tasks of this checkout by name, in doit's form."""
    by_name: dict[str, dict[str, Any]] = {}
    for creator in discovery.discover().values():
        created: Any = creator()
        for each in [created] if isinstance(created, dict) else created:
            if each.get("name") is None and "name" in each:
                by_name.setdefault(each["basename"], each)
                continue
            by_name[f"{each['basename']}:{each['name']}" if "name" in each else each["basename"]] = each
    for name, each in by_name.items():
        # A group needs all of its tasks.
        if "name" in each and each["name"] is None:
            each["task_dep"] = [
                *each.get("task_dep", ()),
                *(other for other in by_name if other.startswith(f"{name}:")),
            ]
    return by_name


def graph(by_name: dict[str, dict[str, Any]], selected: list[str]) -> dict[str, set[str]]:
    """Return the direct dependencies of the selected tasks and of all tasks that they need."""
    makers = {path: name for name, each in by_name.items() for path in each.get("targets", ())}
    needs: dict[str, set[str]] = {}
    pending = list(selected)
    while pending:
        name = pending.pop()
        if name in needs:
            continue
        if name not in by_name:
            raise NablaError(f"there is no task {name}", "`doit list --all` lists them")
        each = by_name[name]
        needs[name] = {*each.get("task_dep", ()), *(makers[p] for p in each.get("file_dep", ()) if p in makers)}
        pending += needs[name]
    return needs


def is_remote(name: str, each: dict[str, Any]) -> bool:
    """Return whether a worker may run the task; of a package, it runs the compilation."""
    actions = [action for action in each.get("actions") or () if isinstance(action, Action)]
    return name.startswith("packages:") or any(action.cacheable and action.remote for action in actions)


def simulated(selected: list[str], workers: list[int], variants: int) -> dict[str, Any]:
    """Return the results for each number of workers. `variants`: builds at a time that share no step."""
    by_name = tasks()
    needs = graph(by_name, selected)
    seconds = order.measured()
    weights = {name: seconds.get(name, 0.0) for name in needs}
    remote = {name for name in needs if is_remote(name, by_name[name])}
    chain = [name for name in simulation.critical_path(needs, weights) if weights[name] >= 1]
    all_needs = {f"{each} {name}": {f"{each} {n}" for n in needs[name]} for each in range(variants) for name in needs}
    all_weights = {f"{each} {name}": weights[name] for each in range(variants) for name in needs}
    all_remote = {f"{each} {name}" for each in range(variants) for name in remote}
    alone = simulation.simulate(all_needs, all_weights, all_remote, 0)
    outcomes = [simulation.simulate(all_needs, all_weights, all_remote, number) for number in workers]
    return {
        "tasks": selected,
        "variants": variants,
        "steps": len(needs),
        "on workers": len(remote),
        "seconds of all steps": round(sum(all_weights.values()), 1),
        "seconds of the critical path": round(sum(weights[name] for name in chain), 1),
        "critical path": chain,
        "alone": round(alone.seconds, 1),
        "workers": [
            {
                "workers": each.workers,
                "seconds": round(each.seconds, 1),
                "speed-up": round(alone.seconds / each.seconds, 2),
                "busy": round(each.busy, 2),
            }
            for each in outcomes
        ],
    }


def kills(rounds: int, seed: str) -> None:
    """Kill roles of a farm in network namespaces at random moments; fail if a build ends with a wrong result."""
    from tests.unit.farm import conftest, test_faults

    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nabla-kills-") as scratch:
        base = Path(scratch)
        gate = base / "gate"
        gate.mkdir()
        gate.chmod(0o777)
        with conftest.running(base) as farm:
            history = test_faults.random_kills(farm, gate, rounds, random.Random(seed))
    counts = {name: history.count(name) for name in sorted(set(history))}
    took = log.seconds(time.monotonic() - begin)
    print(f"{rounds} builds ended right in {took}; SIGKILL: {', '.join(f'{n} {name}' for name, n in counts.items())}")


def main() -> int:
    """Simulate, or kill."""
    parser = argparse.ArgumentParser(prog="bench.farm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK")
    parser.add_argument("--workers", nargs="+", type=int, default=list(_WORKERS), metavar="N")
    parser.add_argument("--variants", type=int, default=1, metavar="N", help="builds at a time that share no step")
    parser.add_argument("--commit", action="store_true", help="write bench/results/farm.json")
    parser.add_argument("--measure", action="store_true", help="build for real; needs root")
    parser.add_argument("--kills", type=int, default=0, metavar="ROUNDS")
    parser.add_argument("--seed", default="16")
    options = parser.parse_args()
    if options.kills:
        kills(options.kills, options.seed)
        return 0
    if options.measure:
        from bench.farm import measured

        outcome = measured.measure(options.tasks or list(measured.TASKS))
        print(
            f"alone {outcome['alone']:.0f} s, {outcome['workers']} workers {outcome['farm']:.0f} s: "
            f"{outcome['speed-up']:.2f} times, on {outcome['processors']} processors"
        )
        return 0
    results = simulated(options.tasks or ["release"], options.workers, options.variants)
    folder = common.COMMITTED if options.commit else common.RESULTS
    path = common.save("farm", results, folder)
    total, remote = results["seconds of all steps"], results["on workers"]
    print(f"{results['variants']} × {results['steps']} tasks, {total:.0f} s of work; workers may run {remote} of them")
    print(f"critical path {results['seconds of the critical path']:.0f} s: {' → '.join(results['critical path'])}")
    rows = [["workers", "seconds", "speed-up", "busy"], ["none", f"{results['alone']:.0f}", "1.00", ""]]
    for each in results["workers"]:
        busy = f"{100 * each['busy']:.0f} %"
        rows.append([str(each["workers"]), f"{each['seconds']:.0f}", f"{each['speed-up']:.2f}", busy])
    print(common.table(rows))
    print(path)
    return 0


if __name__ == "__main__":
    common.start(main)
