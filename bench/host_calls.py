# SPDX-License-Identifier: Apache-2.0
"""The rate of a VM's host calls, by call: idle, and under different loads.

    python -m bench.host_calls [--commit]

The counts are the kernel's own (/proc/nabla/host_calls), read in the guest before and after each load. The calls that
the reading itself causes are subtracted. `--commit` also writes bench/results/host-syscalls.json, from which
docs/host-syscalls.md is generated (`doit lock:policy`).
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench import common
from nabla.core import log
from nabla.core.errors import NablaError
from nabla.core.paths import IMAGES, NABLA_RUN
from nabla.policy.document import RATES, Load, Rates

COUNTS = "/proc/nabla/host_calls"
# Three readings: the first two measure the calls that a reading causes.
SCRIPT = """
mkdir -p /tmp; mount -t tmpfs none /tmp; cd /
look() {{ cat {counts} /proc/uptime >/tmp/$1; }}
look 0; look 1; look 2
{work}
look 3
for i in 1 2 3; do echo "look $i"; cat /tmp/$i; done >{report}
"""
GATEWAY, PORT = "10.0.2.2", 5201


@dataclass(frozen=True)
class Work:
    """A load: its description, its shell script, and whether it needs a disk or a network."""

    name: str
    what: str
    script: str
    disk: bool = False
    network: bool = False


WORKS = (
    Work("idle", "a shell that waits, nothing else", "sleep 30"),
    Work("console", "a program that writes numbers to standard output", "seq 2000000"),
    Work("processes", "a shell that starts /bin/true", "i=0; while [ $i -lt 20000 ]; do /bin/true; i=$((i+1)); done"),
    Work(
        "disk",
        "`dd` that writes files of 4 MB, each with fsync, and reads them again",
        "i=0; while [ $i -lt 60 ]; do dd if=/dev/zero of=/root/f bs=64k count=64 conv=fsync 2>/dev/null; "
        "echo 1 >/proc/sys/vm/drop_caches; cat /root/f >/dev/null; i=$((i+1)); done",
        disk=True,
    ),
    Work(
        "network",
        "TCP from the guest through passt to a server on the host, as fast as it goes",
        f"dd if=/dev/zero bs=64k count=8000 2>/dev/null | nc {GATEWAY} {PORT}",
        network=True,
    ),
)


@contextmanager
def sink(port: int) -> Iterator[None]:
    """Accept connections on a port of this host's loopback and discard the data."""
    with socket.create_server(("127.0.0.1", port)) as server:

        def take() -> None:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                while peer.recv(1 << 20):
                    pass

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)


def run(work: Work, folder: Path) -> Load:
    """Start a VM for one load. Raises `NablaError` if it fails."""
    image = folder / "image.ext3"
    shutil.copy(IMAGES / "minimal.ext3", image)
    words: list[str | Path] = [NABLA_RUN, "--memory", "128M", "--cold", *([] if work.disk else ["--ephemeral"])]
    if work.network:
        words += ["--net", "user"]
    # The report goes to standard error, because standard output can be part of the load.
    script = SCRIPT.format(counts=COUNTS, work=work.script, report="/dev/host/stderr")
    words += [image, "--", "/bin/sh", "-c", script]
    with sink(PORT) if work.network else tempfile.TemporaryFile():
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
    if done.returncode != 0:
        raise NablaError(f"{work.name}: exit status {done.returncode}", done.stderr)
    return record(work, done.stderr)


def record(work: Work, report: str) -> Load:
    """Return the seconds and calls in a report of three readings, without the calls of the readings themselves."""
    looks: list[dict[str, float]] = []
    for part in report.split("look ")[1:]:
        lines = [line.split() for line in part.splitlines()[1:] if len(line.split()) == 2]
        looks.append({name: float(value) for name, value in lines[:-1]})
        looks[-1]["uptime"] = float(lines[-1][0])
    if len(looks) != 3:
        raise NablaError(f"{work.name}: the VM reported {len(looks)} of 3 counts", report)
    seconds = looks[2].pop("uptime") - looks[1].pop("uptime")
    cost = {name: looks[1][name] - looks[0][name] for name in looks[2]}
    calls = {name: max(0, round(looks[2][name] - looks[1][name] - cost[name])) for name in looks[2]}
    return Load(name=work.name, what=work.what, seconds=round(seconds, 2), calls=calls)


def rows(loads: Sequence[Load]) -> list[list[str]]:
    """Return a table of the loads: a row for each call, a column for each load."""
    lines = [["calls a second", *(load.name for load in loads)]]
    lines += [[name, *(load.rate(name) for load in loads)] for name in loads[0].calls]
    return [*lines, ["all", *(load.total() for load in loads)]]


def main() -> int:
    """Measure, save, print the table."""
    parser = argparse.ArgumentParser(prog="bench.host_calls", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--commit", action="store_true", help=f"also write {RATES.name} of bench/results")
    parser.add_argument("--only", action="append", help="one of " + ", ".join(work.name for work in WORKS))
    options = parser.parse_args()
    common.need(NABLA_RUN, IMAGES / "minimal.ext3")
    wanted = [work for work in WORKS if not options.only or work.name in options.only]
    with tempfile.TemporaryDirectory() as folder:
        loads = [run(work, Path(folder)) for work in wanted]
    log.info(f"written to {common.save('host_calls', msgspec.to_builtins(loads))}")
    if options.commit:
        properties = common.host_facts()
        RATES.parent.mkdir(parents=True, exist_ok=True)
        rates = Rates(cpu=properties["cpu"], kernel=properties["kernel"], loads=tuple(loads))
        RATES.write_bytes(msgspec.json.format(msgspec.json.encode(rates), indent=1) + b"\n")
    print(common.table(rows(loads)))
    return 0


if __name__ == "__main__":
    common.start(main)
