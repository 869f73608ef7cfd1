# SPDX-License-Identifier: Apache-2.0
"""Time from start to exit with 64 MB and with 8 GB and an init that exits at once, beside bubblewrap and stock UML.

    python -m bench.boot [--runs 200] [--uml PATH/TO/linux] [--commit]

The init is bench/guest/raw_exit_init.c: it powers off in its first instructions, without libc. Stock UML (an MMU build
of the same kernel version) boots the same file system image, if its binary is given. bubblewrap enters new namespaces
and starts /bin/true. `--commit` also writes bench/results/boot.json, which the report shows.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench import common
from nabla.core import log
from nabla.core.artifacts import IMAGE_TOOLS
from nabla.core.errors import NablaError
from nabla.core.paths import GUEST_TESTS, VMLINUX
from nabla.fs.ext3 import SCRATCH
from nabla.sandbox import bwrap

IMAGE_KB = 1024
STOCK = "stock UML"  # it often ends by SIGABRT after a power-off


def make_image(folder: Path) -> Path:
    """Make a small ext2 image that contains only the init."""
    common.need(GUEST_TESTS / "raw_exit_init", IMAGE_TOOLS.path)
    tree = folder / "tree"
    for name in ("dev", "proc", "sbin"):
        (tree / name).mkdir(parents=True)
    shutil.copy(GUEST_TESTS / "raw_exit_init", tree / "sbin" / "init")
    words = [*bwrap.base(IMAGE_TOOLS.path, user=0), "--bind", str(folder), SCRATCH, "--chdir", SCRATCH]
    words += ["/sbin/mke2fs", "-q", "-F", "-t", "ext2", "-d", "tree", "image", str(IMAGE_KB)]
    subprocess.run(words, check=True)
    return folder / "image"


def start(kernel: Path, image: Path, init: str = "/sbin/init", memory: str = "64M") -> list[str]:
    """Return the command line that boots a kernel from an image."""
    disk = [f"ubd0={image},ro", "root=/dev/ubda", "rootfstype=ext4", "ro"]
    return [str(kernel), f"mem={memory}", *disk, f"init={init}", "quiet"]


def commands(image: Path, uml: Path | None) -> dict[str, list[str]]:
    """Return the commands to measure."""
    result = {"nabla": start(VMLINUX, image), "nabla, 8 GB": start(VMLINUX, image, memory="8G")}
    result["nabla, whole system"] = common.machine("minimal", "/bin/true")
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise NablaError("bubblewrap is missing", "install the package bubblewrap")
    result["bubblewrap"] = [bwrap, "--unshare-all", "--ro-bind", "/", "/", "/bin/true"]
    if uml is not None:
        # Its option for a read-only disk has another form.
        result[STOCK] = [f"ubd0r={image}" if word.startswith("ubd0=") else word for word in start(uml, image)]
    return result


def main() -> int:
    """Measure, save, print the table."""
    parser = argparse.ArgumentParser(prog="bench.boot", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="timed runs of each (200)")
    parser.add_argument("--uml", type=Path, help="a stock UML binary of the same version")
    parser.add_argument("--commit", action="store_true", help="write bench/results/boot.json too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = make_image(Path(folder))
        timings = common.interleave(commands(image, options.uml), runs=options.runs, warmup=5, any_status=[STOCK])
    records = [timing.record() for timing in timings]
    log.info(f"written to {common.save('boot', records)}")
    if options.commit:
        # Without the single runs and the paths of this host.
        brief = [{key: value for key, value in each.items() if key not in ("command", "times")} for each in records]
        log.info(f"written to {common.save('boot', brief, common.COMMITTED)}")
    print(common.timings("start to exit, ms", records))
    return 0


if __name__ == "__main__":
    common.start(main)
