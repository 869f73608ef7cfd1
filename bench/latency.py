# SPDX-License-Identifier: Apache-2.0
"""Latencies of basic operations, the same binary in the guest and on the host (bench/guest/latency.c).

    python -m bench.latency [--commit]

`--commit` also writes bench/results/latency.json, which the report shows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from typing import Any

from bench import common
from nabla.core import log
from nabla.core.errors import NablaError
from nabla.core.paths import GUEST_TESTS, MUSL

PROGRAM = "/usr/lib/nabla-tests/latency"


def measure(command: list[str]) -> dict[str, float]:
    """Run the program, pinned to one processor, and return its figures in nanoseconds."""
    finished = subprocess.run(
        ["taskset", "-c", "0", *command], capture_output=True, text=True, timeout=300, check=False
    )
    if finished.returncode != 0:
        raise NablaError(f"{command[0]}: exit status {finished.returncode}", finished.stderr.strip())
    figures: dict[str, float] = json.loads(finished.stdout)
    return figures


def on_host() -> dict[str, float]:
    """Measure on the host, with nabla's libc mounted at the loader's path in a mount namespace."""
    common.need(GUEST_TESTS / "latency", MUSL / "lib")
    words = ["bwrap", "--ro-bind", str(MUSL / "lib"), "/lib", "--ro-bind", str(GUEST_TESTS), "/tests"]
    words += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    return measure([*words, "/tests/latency"])


def main() -> int:
    """Measure both, save, print the table."""
    parser = argparse.ArgumentParser(prog="bench.latency", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--commit", action="store_true", help="write bench/results/latency.json too")
    options = parser.parse_args()
    guest = measure(common.machine("test", PROGRAM, memory="256M"))
    host = on_host()
    results: dict[str, Any] = {"unit": "ns", "guest": guest, "host": host}
    log.info(f"written to {common.save('latency', results)}")
    if options.commit:
        log.info(f"written to {common.save('latency', results, common.COMMITTED)}")
    rows = [["operation, ns", "guest", "host", "host / guest"]]
    rows += [[name, f"{guest[name]:.0f}", f"{host[name]:.0f}", f"{host[name] / guest[name]:.1f}"] for name in guest]
    print(common.table(rows))
    return 0


if __name__ == "__main__":
    common.start(main)
