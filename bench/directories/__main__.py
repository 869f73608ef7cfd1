# SPDX-License-Identifier: Apache-2.0
"""Shared directories beside the host: round trips, small files, throughput, the start with a directory as the root.

python -m bench.directories

The same program runs in a VM, on a shared directory, and on the host, on the same directory.
"pinned": the VM and its file server are on one processor. The result is the median of several runs; the file contains
all runs.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import common
from nabla.core import log
from nabla.core.paths import IMAGES, NABLA_RUN
from nabla.fs import ext3, nodes

RUNS = 5
FILES = 10_000
BULK_MIB = 256
IMAGE = IMAGES / "test.ext3"
MINIMAL = IMAGES / "minimal.ext3"
PYTHON = "/usr/bin/python3"
# Times each in the guest itself, in microseconds; the boot is not part of it.
TIMED = """
import os, sys, time
os.chdir(sys.argv[1])
kind = sys.argv[2]
begin = time.perf_counter()
if kind == "round":
    f = os.open("small", os.O_RDONLY)
    begin = time.perf_counter()
    for _ in range(2000):
        os.pread(f, 5, 0)
    print((time.perf_counter() - begin) / 2000 * 1e6)
elif kind == "stat":
    for _ in range(1000):
        os.stat("small")
    print((time.perf_counter() - begin) / 1000 * 1e6)
elif kind == "create":
    for n in range(500):
        with open("new", "xb") as f:
            f.write(bytes(100))
        os.unlink("new")
    print((time.perf_counter() - begin) / 500 * 1e6)
elif kind == "find":
    print(os.system("find . >/dev/null") or (time.perf_counter() - begin))
elif kind == "write":
    b = bytes(1 << 20)
    f = os.open("big", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    begin = time.perf_counter()
    for _ in range(256):
        os.write(f, b)
    print(268.435456 / (time.perf_counter() - begin))
elif kind == "read":
    f = os.open("big", os.O_RDONLY)
    begin = time.perf_counter()
    while os.read(f, 1 << 20):
        pass
    print(268.435456 / (time.perf_counter() - begin))
"""
# name, kind, unit
MEASUREMENTS = (
    ("a round trip: read 5 bytes", "round", "us"),
    ("stat of a name", "stat", "us"),
    ("create, write 100 bytes, remove", "create", "us"),
    (f"find, {FILES:,} files", "find", "s"),
    (f"write {BULK_MIB} MiB", "write", "MB/s"),
    (f"read {BULK_MIB} MiB", "read", "MB/s"),
)


@contextmanager
def shared() -> Iterator[Path]:
    """A directory with FILES small files that anybody may change."""
    folder = Path(tempfile.mkdtemp(prefix="nabla-bench-", dir="/var/tmp"))
    try:
        for number in range(FILES):
            path = folder / "tree" / f"d{number % 100}" / f"f{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number}\n" * 20)
        (folder / "small").write_text("small")
        (folder / "big").touch()
        subprocess.run(["chmod", "-R", "a+rwX", folder], check=True)
        yield folder
    finally:
        shutil.rmtree(folder)


def pinned(words: Sequence[str]) -> list[str]:
    """Return the command on one processor."""
    return ["taskset", "-c", str(max(os.sched_getaffinity(0))), *words]


def figure(words: Sequence[str]) -> float:
    """Run the command, which prints a number."""
    finished = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True)
    return float(finished.stdout.split()[-1])


def guest(folder: Path, flags: str, kind: str) -> list[str]:
    """Return the command that measures in a VM."""
    mount = ["--mount", f"{folder}:/share{flags}", "--memory", "1G", "--ephemeral"]
    return [str(NABLA_RUN), *mount, str(IMAGE), "--", "python3", "-c", TIMED, "/share", kind]


def start(root: Path, *options: str) -> float:
    """Return the milliseconds from start to exit of a VM with this root."""
    began = time.perf_counter()
    words = [str(NABLA_RUN), "--cold", "--memory", "64M", *options, str(root), "--", "/bin/true"]
    subprocess.run(words, stdin=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1e3


def series(name: str, where: str, unit: str, one: Callable[[], float], runs: int = RUNS) -> dict[str, Any]:
    """Return the record of one measurement."""
    values = [one() for _ in range(runs)]
    median = statistics.median(values)
    log.info(f"{name}, {where}: {median:.3g} {unit}")
    return {
        "name": name,
        "where": where,
        "unit": unit,
        "median": round(median, 4),
        "values": [round(v, 4) for v in values],
    }


def main() -> int:
    """Measure everything and write out/bench/directories.json."""
    common.need(NABLA_RUN, IMAGE, MINIMAL)
    records = []
    with shared() as folder:
        for name, kind, unit in MEASUREMENTS:
            host = [PYTHON, "-c", TIMED, str(folder), kind]
            records.append(series(name, "host", unit, lambda host=host: figure(host)))  # type: ignore[misc]
            for where, flags, wrap in (
                ("VM", "", list),
                ("VM, pinned", "", pinned),
                ("VM, :cache, pinned", ":cache", pinned),
            ):
                words = wrap(guest(folder, flags, kind))
                records.append(series(name, where, unit, lambda words=words: figure(words)))  # type: ignore[misc]
        root = folder / "root"
        ext3.stage(nodes.read_ext(MINIMAL), root)
        subprocess.run(["chmod", "-R", "a+rwX", root], check=True)
        records.append(series("start to exit", "image", "ms", lambda: start(MINIMAL, "--ephemeral"), 30))
        records.append(series("start to exit", "directory", "ms", lambda: start(root), 30))
        records.append(series("start to exit", "directory, read-only", "ms", lambda: start(root, "--read-only"), 30))
    common.save("directories", records)
    return 0


if __name__ == "__main__":
    common.start(main)
