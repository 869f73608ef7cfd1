# SPDX-License-Identifier: Apache-2.0
"""The duration of one build on a host alone, and on a farm of three workers that share this host's processors.

The machines are those of the tests: network namespaces, each with its own user, home, cache and checkout. Before the
measurement, every machine gets the downloads and the build root; no machine has results or a compiler cache.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

from nabla.core.paths import ROOT, cache_dir
from tests.machines import Machine, reachable_folder
from tests.unit.farm import conftest

TASKS = ("busybox", *(f"packages:{name}" for name in ("brotli", "libffi", "ncurses", "pcre2", "xz", "zstd")))
WORKERS = 3
_SHARED = ("apt", "buildroot", "sha256", "wheels")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system
        shutil.copy2(source, target, follow_symlinks=False)


def _prepare(machine: Machine, tasks: list[str]) -> None:
    """Give a machine the downloads of this user, and unpack the build root."""
    cache = machine.home / ".cache" / "nabla"
    for name in _SHARED:
        if (cache_dir() / name).exists():
            shutil.copytree(cache_dir() / name, cache / name, symlinks=True, copy_function=_link)
    if machine.user:
        # Only folders: the files are those of this user.
        for folder, _, _ in os.walk(machine.home):
            os.chown(folder, machine.user, machine.user)
    machine.variables["NABLA_JOBS"] = "1"
    root = machine.base / "checkout"
    machine.doit(root, "toolchain", *sorted({f"fetch:{each.removeprefix('packages:')}" for each in tasks}))


def _run(farm: conftest.Farm, machine: Machine, words: list[str]) -> float:
    begin = time.monotonic()
    farm.start(machine, *words).end(limit=36000)
    return time.monotonic() - begin


def measure(tasks: list[str]) -> dict[str, Any]:
    """Return the seconds of both builds, and their ratio. Needs root. Raises `AssertionError` if a build fails."""
    with reachable_folder() as base, conftest.running(base) as farm:
        farm.origin = ROOT
        alone, client = farm.machine("alone", "client"), farm.machine("client", "client")
        alone.variables["NABLA_STORE"] = "off"
        workers = [farm.machine(f"worker{number}", "worker") for number in range(1, WORKERS + 1)]
        for machine in (alone, client, *workers):
            _prepare(machine, tasks)
        slots = os.cpu_count() or 1
        seconds = _run(farm, alone, ["-n", str(slots), *tasks])
        scheduler = farm.machine("scheduler", "scheduler")
        farm.scheduler(scheduler)
        for machine in workers:
            farm.worker(machine, scheduler, slots=1)
        on_farm = _run(farm, client, ["-n", str(WORKERS + 1), "--farm", farm.address(scheduler), *tasks])
    return {
        "tasks": tasks,
        "processors": slots,
        "workers": WORKERS,
        "alone": round(seconds, 1),
        "farm": round(on_farm, 1),
        "speed-up": round(seconds / on_farm, 2),
    }
