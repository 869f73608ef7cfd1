# SPDX-License-Identifier: Apache-2.0
"""VMs that start from a snapshot, compared with VMs that boot and with other ways to start the same program.

python -m bench.snapshots [--runs 300] [--clones 100] [--commit]

"first byte" ends when the first byte of the answer arrives, "exit" when nabla-run has ended; both include nabla-run.
Clones are VMs that all run at once and answer; their memory is the host's proportional set size, which divides shared
pages among them. Bind it to one processor (taskset -c 1) for figures with less noise. bubblewrap is measured if it is
installed, a Node server if there is an image with Node (doit programs:node), and Python with pandas if the package is
built (doit packages:py3-pandas).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import common
from nabla.core import log
from nabla.core.artifacts import package_record
from nabla.core.paths import IMAGES, NABLA_RUN, OUT, VMLINUX
from nabla.images import package_tests

SMALL = "import sys\n"
NUMPY = "import numpy, sys\n"
PANDAS = "import numpy, pandas, sys\n"
PAYLOAD = "import asyncio, json, urllib.request, decimal, logging, sys\n"
ANSWER = "sys.stdout.write(str(sum(range(9)))); sys.stdout.flush()\n"
# A server that has answered once, and answers its own client after a restore.
NODE = (
    "const http = require('http');"
    "const get = (then) => http.get({port: 8080, agent: false}, (answer) => answer.on('data', then));"
    "const again = () => get((data) => { process.stdout.write(data); process.exit(); });"
    "const save = () => { require('fs').writeFileSync('/proc/nabla/snapshot', 'save'); again(); };"
    "http.createServer((request, answer) => answer.end('x')).listen(8080, () => get(() => setTimeout(save, 50)));"
)
MINIMAL, BASE, TEST = (IMAGES / f"{name}.ext3" for name in ("minimal", "base", "test"))
NODE_IMAGE = OUT / "programs" / "node.ext3"  # doit programs:node
SAVE = "open('/proc/nabla/snapshot', 'w').write('save')\n"
WAIT = "sys.stdin.read()\n"


def save(file: Path, image: Path, memory: str, *command: str, stdin: bytes = b"") -> list[str]:
    """Create a snapshot with a command that reads `stdin`; return the command line that starts from it."""
    common.need(NABLA_RUN, VMLINUX, image)
    words = [str(NABLA_RUN), "--ephemeral", "--memory", memory, "--snapshot", str(file), "--snapshot-then-exit"]
    subprocess.run([*words, str(image), "--", *command], input=stdin, check=True)
    return [str(NABLA_RUN), "--ephemeral", "--restore", str(file), str(image)]


def node(file: Path) -> dict[str, Sequence[str]]:
    """Return the command line that starts from a snapshot of a server in Node, if there is an image with it."""
    if not NODE_IMAGE.exists():
        return {}
    return {"snapshot, server in Node": save(file, NODE_IMAGE, "1G", "node", "-e", NODE)}


def pandas(folder: Path) -> dict[str, Sequence[str]]:
    """Return the command line that starts from a snapshot of Python with numpy and pandas, if there is the package."""
    name = "py3-pandas"
    if not package_record(name).exists():
        return {}
    archive = package_tests.repository([name], folder / "log")
    script = f'{package_tests.install_script([name])}exec python3 -c "$0"'
    command = ("/bin/sh", "-ec", script, PANDAS + SAVE + ANSWER)
    return {"snapshot, Python with pandas": save(folder / "7", package_tests.IMAGE, "512M", *command, stdin=archive)}


def instant(image: str, *command: str) -> list[str]:
    """Return the command line of an ordinary start, which restores a snapshot once there is one."""
    return [str(NABLA_RUN), "--ephemeral", str(IMAGES / f"{image}.ext3"), "--", *command]


def isolated(*command: str) -> dict[str, Sequence[str]]:
    """Return bubblewrap's command line, if it is installed."""
    bwrap = shutil.which("bwrap")
    words = [bwrap or "", "--ro-bind", "/", "/", "--unshare-all", *command]
    return {f"bubblewrap, {command[0]}": words} if bwrap else {}


def once(command: Sequence[str]) -> tuple[float, float]:
    """Return the times to the first byte and to the exit, in ms."""
    began = time.perf_counter_ns()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.perf_counter_ns()
        process.stdout.read()
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, list(command))
    return (first - began) / 1e6, (time.perf_counter_ns() - began) / 1e6


def figures(times: list[float]) -> dict[str, float]:
    """Return the figures of some times for a table."""
    times.sort()
    return {"min": times[0], "median": times[len(times) // 2], "p99": times[int(len(times) * 0.99)]}


def measure(commands: dict[str, Sequence[str]], runs: int) -> list[dict[str, Any]]:
    """Run the commands in turn, so that other load affects all of them."""
    gathered: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            gathered[name].append(once(command))
    return [
        {"name": name, "runs": runs, "first": figures([a for a, _ in pairs]), "exit": figures([b for _, b in pairs])}
        for name, pairs in gathered.items()
    ]


def pss(pid: int) -> int:
    """Return the proportional memory of the only child of a process, in KiB."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def clones(command: Sequence[str], count: int) -> dict[str, Any]:
    """Start this number of clones, wait for all answers, and read their memory while all are running."""
    began = time.perf_counter_ns()
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    running = [subprocess.Popen(command, **pipes) for _ in range(count)]
    try:
        answered = sum(each.stdout.read(1) != b"" for each in running if each.stdout)
        took = (time.perf_counter_ns() - began) / 1e6
        memory = [pss(each.pid) for each in running]
    finally:
        for each in running:
            each.kill()
            each.wait()
    return {"clones": count, "answered": answered, "ms": took, "pss_kib": sum(memory) // count}


def main() -> int:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(prog="bench.snapshots", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=300, help="of each command (300)")
    parser.add_argument("--clones", type=int, default=100, help="VMs that run at once (100); needs root")
    parser.add_argument("--commit", action="store_true", help="write to bench/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        os.environ["XDG_CACHE_HOME"] = folder
        os.environ.pop("NABLA_COLD", None)
        commands: dict[str, Sequence[str]] = {
            "snapshot, one program": save(at / "1", MINIMAL, "64M", "nabla-snapshot"),
            "snapshot, any command": [*save(at / "2", BASE, "256M", "nabla-snapshot", "--"), "--", "/bin/echo", "x"],
            "boot, the same command": common.machine("base", "/bin/echo", "x", memory="256M"),
            **isolated("/bin/echo", "x"),
            "instant start, /bin/true": instant("base", "/bin/true"),
            "boot, /bin/true": common.machine("base", "/bin/true", memory="256M"),
            **isolated("/bin/true"),
            "snapshot, Python with imports": save(at / "3", TEST, "256M", "python3", "-c", PAYLOAD + SAVE + ANSWER),
            "host's Python, the same": [sys.executable, "-c", PAYLOAD + ANSWER],
            "snapshot, Python with numpy": save(at / "4", TEST, "256M", "python3", "-c", NUMPY + SAVE + ANSWER),
            **pandas(at),
            **node(at / "6"),
            "instant start, Python": instant("test", "python3", "-c", SMALL + ANSWER),
            "boot, Python": common.machine("test", "python3", "-c", SMALL + ANSWER, memory="256M"),
        }
        results = measure(commands, options.runs)
        waiting = save(at / "5", TEST, "256M", "python3", "-c", PAYLOAD + SAVE + ANSWER + WAIT)
        together = clones(waiting, options.clones)
    folders = [common.COMMITTED] if options.commit else []
    path = common.save("snapshots", {"starts": results, "clones": together}, *folders)
    log.info(f"written to {path}")
    rows = [["start", "first byte: min", "median", "p99", "exit: min", "median", "p99"]]
    rows += [[r["name"], *(f"{r[end][k]:.2f}" for end in ("first", "exit") for k in r[end])] for r in results]
    print(common.table(rows))
    print(
        f"{together['clones']} clones: {together['answered']} answered within {together['ms']:.0f} ms, "
        f"{together['pss_kib']} KiB each"
    )
    return 0


if __name__ == "__main__":
    common.start(main)
