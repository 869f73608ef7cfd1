# SPDX-License-Identifier: Apache-2.0
"""The cost of fork for Python and redis in the guest (bench/guest/forks.py).

    python -m bench.programs [--memory 512M]

os.fork() is the median of 300 calls with exit and wait. BGSAVE writes 200,000 keys while redis-benchmark sets keys; the
rates are those of the two seconds before it and of the time that it takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess

from bench import common
from nabla.core import log
from nabla.core.errors import NablaError
from nabla.core.paths import ROOT


def main() -> int:
    """Measure, save, print the table."""
    parser = argparse.ArgumentParser(prog="bench.programs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--memory", default="512M", help="memory of the VM (512M)")
    options = parser.parse_args()
    with (ROOT / "bench" / "guest" / "forks.py").open("rb") as script:
        finished = subprocess.run(
            common.machine("packages", "/usr/bin/python3", "-", memory=options.memory),
            stdin=script,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    if finished.returncode != 0:
        raise NablaError(f"forks.py: exit status {finished.returncode}", finished.stderr.strip()[-1000:])
    results = json.loads(finished.stdout)
    log.info(f"written to {common.save('programs', results)}")
    print(common.table([["operation", "guest"], *([name, f"{value:.2f}"] for name, value in results.items())]))
    return 0


if __name__ == "__main__":
    common.start(main)
