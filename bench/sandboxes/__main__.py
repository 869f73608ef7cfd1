# SPDX-License-Identifier: Apache-2.0
"""Sandboxes from Python: python -m bench.sandboxes.

From the call to its end: create a sandbox from a warm snapshot, run `print(1)` in its Python, kill it; the same with
`true` in a sandbox of the minimal image; beside them, the host's Python as a process. The bound of the first is 5 ms.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import common
from nabla.core.paths import IMAGES, NABLA_RUN, PYTHON_PACKAGE

sys.path.insert(0, str(PYTHON_PACKAGE.parent))
from nabla_linux import Sandbox, warm_python

RUNS = 100
STEPS = ("create", "run", "kill")
PYTHON, MINIMAL = IMAGES / "python.ext3", IMAGES / "minimal.ext3"


def code(warm: Path) -> tuple[float, float, float, float]:
    """Run Python code; return the moments between the steps."""
    moments = [time.perf_counter()]
    sandbox = Sandbox.create(PYTHON, snapshot=warm, nabla_run=NABLA_RUN)
    moments.append(time.perf_counter())
    assert sandbox.run_code("print(1)").stdout == "1\n"
    moments.append(time.perf_counter())
    sandbox.kill()
    return moments[0], moments[1], moments[2], time.perf_counter()


def command(image: Path) -> tuple[float, float, float, float]:
    """Run a program; return the moments between the steps."""
    moments = [time.perf_counter()]
    sandbox = Sandbox.create(image, memory="64M", nabla_run=NABLA_RUN)
    moments.append(time.perf_counter())
    assert sandbox.commands.run(["true"]).exit_code == 0
    moments.append(time.perf_counter())
    sandbox.kill()
    return moments[0], moments[1], moments[2], time.perf_counter()


def medians(use: Callable[[Path], tuple[float, ...]], with_: Path) -> dict[str, float]:
    """Return the medians of the steps and of all together, in ms, and the least of all together."""
    use(with_)
    runs = [use(with_) for _ in range(RUNS)]
    steps = {name: statistics.median(run[n + 1] - run[n] for run in runs) * 1e3 for n, name in enumerate(STEPS)}
    totals = [(run[-1] - run[0]) * 1e3 for run in runs]
    return {**steps, "all": statistics.median(totals), "least": min(totals)}


def host() -> dict[str, float]:
    """Return the same for the host's Python, which is no sandbox."""
    taken = []
    for _ in range(RUNS // 4):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", "print(1)"], stdout=subprocess.DEVNULL, check=True)
        taken.append((time.perf_counter() - began) * 1e3)
    return {"all": statistics.median(taken), "least": min(taken)}


def main() -> int:
    """Measure, print, and write out/bench/sandboxes.json."""
    common.need(NABLA_RUN, PYTHON, MINIMAL)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        warm = warm_python(PYTHON, memory="128M", nabla_run=NABLA_RUN)
        results = {
            "print(1) in a warm Python": medians(code, warm),
            "true in the minimal image": medians(command, MINIMAL),
            "print(1) by the host's Python": host(),
        }
    names = (*STEPS, "all", "least")
    rows = [["medians, ms", *names]]
    rows += [[what, *(f"{row[name]:.1f}" if name in row else "" for name in names)] for what, row in results.items()]
    print(common.table(rows))
    common.save("sandboxes", results)
    return 0


if __name__ == "__main__":
    common.start(main)
