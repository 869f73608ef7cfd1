# SPDX-License-Identifier: Apache-2.0
"""`podman run --rm IMAGE true` with nabla-oci, beside the same with crun: medians of 30 runs, taken in turn.

python -m bench.oci

Podman runs in separate namespaces with cgroup version 2, as in its tests, and its storage driver is vfs, which copies
the image for each container; the runtime's cost is therefore only a part of the total. The runtime's own calls are
timed, too.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import common
from nabla.core import log
from nabla.core.paths import IMAGES, NABLA_OCI, NABLA_RUN
from nabla.fs import ext3, nodes

RUNS = 30
IMAGE = IMAGES / "minimal.ext3"
CRUN = Path("/usr/bin/crun")
SET_UP = """
mount -t cgroup2 none /sys/fs/cgroup && mount -t tmpfs none /dev/shm && mount -t tmpfs none /run && echo &&
    exec sleep 3600
"""


@contextmanager
def engine(folder: Path) -> Iterator[list[str]]:
    """Podman in persistent namespaces; yields the words of its command line."""
    words = ["unshare", "--mount", "--cgroup", "--propagation", "private", "sh", "-c", SET_UP]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            # Without controllers crun needs --cgroups disabled, which podman offers to runtimes that it knows.
            settings = folder / "containers.conf"
            settings.write_text(
                '[engine]\nruntime_supports_nocgroup = ["crun", "nabla-oci"]\n'
                f'[engine.runtimes]\nnabla-oci = ["{NABLA_OCI}"]\ncrun = ["{CRUN}"]\n'
            )
            enter = [
                "env",
                f"CONTAINERS_CONF={settings}",
                "nsenter",
                "--mount",
                "--cgroup",
                "--target",
                str(holder.pid),
            ]
            enter += ["--", "podman"]
            storage = ["--root", str(folder / "storage"), "--runroot", "/run/podman", "--tmpdir", "/run/libpod"]
            yield [
                *enter,
                *storage,
                "--storage-driver",
                "vfs",
                "--cgroup-manager",
                "cgroupfs",
                "--events-backend",
                "none",
            ]
        finally:
            holder.kill()


def timed(words: list[str]) -> float:
    """Return the milliseconds of a command that succeeds."""
    began = time.perf_counter()
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1e3


def in_turn(cases: dict[str, Callable[[], float]]) -> list[dict[str, Any]]:
    """Return the record of each case; the cases take turns, after one round that does not count."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(RUNS + 1):
        for name, case in cases.items():
            value = case()
            if number:
                values[name].append(round(value, 2))
    for name, each in values.items():
        log.info(f"{name}: {statistics.median(each):.1f} ms")
    return [{"name": name, "median": statistics.median(each), "values": each} for name, each in values.items()]


def calls(folder: Path) -> dict[str, Callable[[], float]]:
    """Return the calls of nabla-oci for one container: `create` and `delete --force`, which end it before it starts."""
    bundle = folder / "bundle"
    bundle.mkdir()
    subprocess.run([NABLA_OCI, "spec", "--bundle", bundle], check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["terminal"] = False
    config["root"] = {"path": str(folder / "root")}
    (bundle / "config.json").write_text(json.dumps(config))
    words = [str(NABLA_OCI), "--root", str(folder / "state")]
    return {
        "nabla-oci --version": lambda: timed([str(NABLA_OCI), "--version"]),
        "nabla-oci create": lambda: timed([*words, "create", "--bundle", str(bundle), "c"]),
        "nabla-oci state": lambda: timed([*words, "state", "c"]),
        "nabla-oci delete --force": lambda: timed([*words, "delete", "--force", "c"]),
    }


def main() -> int:
    """Measure everything and write out/bench/oci.json."""
    common.need(NABLA_OCI, NABLA_RUN, IMAGE, CRUN)
    if os.geteuid() != 0:
        log.error("bench.oci needs root, as podman's namespaces here do")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="nabla-bench-", dir="/var/tmp"))
    try:
        ext3.stage(nodes.read_ext(IMAGE), folder / "root")
        with engine(folder) as podman:
            subprocess.run(["tar", "-C", folder / "root", "-cf", folder / "image.tar", "."], check=True)
            timed([*podman, "import", str(folder / "image.tar"), "minimal"])
            run = ["run", "--rm", "--network", "none", "--cgroups", "disabled", "--ulimit", "nofile=1024:1024"]
            run += ["--ulimit", "nproc=1000", "minimal", "true"]
            pair = {
                f"podman run, {runtime.name}": lambda runtime=runtime: timed([*podman, "--runtime", runtime.name, *run])
                for runtime in (CRUN, NABLA_OCI)
            }
            records = in_turn(pair)  # type: ignore[arg-type]
        records += in_turn(calls(folder))
        log.info(f"nabla-oci beside crun: {records[1]['median'] / records[0]['median']:.2f}")
        common.save("oci", records)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    common.start(main)
