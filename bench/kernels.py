# SPDX-License-Identifier: Apache-2.0
"""A comparison of two or more kernels: time from start to exit, and 300 runs of Alpine's own /bin/true.

    python -m bench.kernels OLD [NEW …] [--runs 200]

Each argument is the path of a vmlinux; with a single argument, the second kernel is out/kernel/vmlinux. The kernels run
in turns, so that other load on the host affects all of them. `/bin/true` is the unmodified busybox of the stock test
image with Alpine's own C library: each system call is an instruction.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from bench import boot, common
from nabla.core import log
from nabla.core.errors import NablaError
from nabla.core.paths import IMAGES, VMLINUX

SPAWN = "/usr/lib/nabla-tests/spawn"
TIMES = 300


def spawn_us(kernel: Path, image: Path) -> float:
    """Return the microseconds of all runs of /bin/true in one VM."""
    finished = subprocess.run(
        [*boot.start(kernel, image, SPAWN), str(TIMES), "/bin/true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    lines = [line for line in (finished.stdout + finished.stderr).splitlines() if line.endswith(" us")]
    if len(lines) != 1:
        raise NablaError(f"{kernel}: the programs did not run", finished.stderr.strip()[-500:])
    return float(lines[0].removesuffix(" us"))


def main() -> int:
    """Measure all kernels, save, print the table."""
    parser = argparse.ArgumentParser(prog="bench.kernels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kernel", type=Path, nargs="+", help="path of a vmlinux")
    parser.add_argument("--runs", type=int, default=200, help="timed starts of each (200)")
    options = parser.parse_args()
    kernels = options.kernel if len(options.kernel) > 1 else [*options.kernel, VMLINUX]
    image = IMAGES / "stock.ext3"
    common.need(image, *kernels)
    with tempfile.TemporaryDirectory() as folder:
        small = boot.make_image(Path(folder))
        commands = {str(kernel): boot.start(kernel, small) for kernel in kernels}
        timings = common.interleave(commands, runs=options.runs, warmup=5)
    spawned: dict[str, list[float]] = {str(kernel): [] for kernel in kernels}
    for _ in range(max(options.runs // 20, 1)):
        for kernel in kernels:
            spawned[str(kernel)].append(spawn_us(kernel, image) / 1000)
    records = [each.record() for each in timings]
    records += [
        common.Timing(f"{name}: {TIMES} x /bin/true", (name,), tuple(t)).record() for name, t in spawned.items()
    ]
    log.info(f"written to {common.save('kernels', records)}")
    print(common.timings("ms", records))
    return 0


if __name__ == "__main__":
    common.start(main)
