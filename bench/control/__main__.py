# SPDX-License-Identifier: Apache-2.0
"""Programs in a running VM: python -m bench.control.

Measures the time from the request on the broker's socket to the first byte of output, and to the frame with the
program's exit status; the time of the client `nabla` from its start to its end; and the throughput of output and input.
"pinned": VM, broker and client are on one processor.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import common
from nabla.core.errors import NablaError
from nabla.core.paths import BIN, NABLA_RUN

RUNS = 300
BULK_MIB = 256
# as in launcher/control_wire.h
START, DATA, CREDIT, EXIT = 2, 5, 7, 10
QUARTER = 64 << 10
# name, command; the bounds are 0.5 ms to the first byte and 1 ms to the end
PROGRAMS = (
    ("a program that writes a line", ("echo", "x")),
    ("a shell that writes two", ("sh", "-c", "echo a; echo b >&2; exit 3")),
    ("a program that writes nothing", ("true",)),
)


@contextmanager
def running(prefix: list[str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Start a VM; yields its socket and the environment for clients."""
    with tempfile.TemporaryDirectory() as runtime:
        env = {**os.environ, "XDG_RUNTIME_DIR": runtime}
        words = common.machine("minimal", "sleep", "100000", options=("--name", "bench"))
        process = subprocess.Popen([*prefix, *words], env=env, stdin=subprocess.DEVNULL)
        try:
            path = Path(runtime) / "nabla" / "bench"
            while not path.exists():
                time.sleep(0.01)
            yield path, env
        finally:
            process.terminate()
            process.wait(60)


def once(path: Path, words: tuple[str, ...]) -> tuple[float | None, float]:
    """Run a program; return the times of its first byte and of its end, in milliseconds."""
    head = struct.pack("<BBHHHHH", 0, 0, 0, 0, len(words), 0, 0)
    content = head + b"\0\0" + b"".join(word.encode() + b"\0" for word in words)
    with socket.socket(socket.AF_UNIX) as peer:
        began = time.perf_counter()
        peer.connect(str(path))
        peer.sendall(struct.pack("<IBBH", len(content), START, 0, 0) + content)
        unread, first = b"", None
        while True:
            more = peer.recv(1 << 16)
            now = (time.perf_counter() - began) * 1e3
            if not more:
                raise NablaError(f"{words[0]} has no end", "see nabla exec")
            unread += more
            while len(unread) >= 8 and len(unread) >= 8 + (length := struct.unpack_from("<I", unread)[0]):
                if unread[4] == DATA and first is None:
                    first = now
                if unread[4] == EXIT:
                    return first, now
                unread = unread[8 + length :]


def throughput(env: dict[str, str], prefix: list[str]) -> dict[str, float]:
    """Return MB/s of output and input through the client."""
    client = [*prefix, str(BIN / "nabla"), "exec"]
    out = [*client, "bench", "--", "dd", "if=/dev/zero", "bs=65536", f"count={BULK_MIB * 16}"]
    began = time.perf_counter()
    subprocess.run(out, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    middle = time.perf_counter()
    with tempfile.TemporaryFile() as data:
        data.truncate(BULK_MIB << 20)
        into = [*client, "-i", "bench", "--", "dd", "of=/dev/null", "bs=65536"]
        subprocess.run(into, env=env, stdin=data, stderr=subprocess.DEVNULL, check=True)
    end = time.perf_counter()
    size = (BULK_MIB << 20) / 1e6
    return {"output": size / (middle - began), "input": size / (end - middle)}


def measure(prefix: list[str]) -> dict[str, Any]:
    """Return the medians of all measurements."""
    results: dict[str, Any] = {}
    with running(prefix) as (path, env):
        once(path, ("true",))
        for name, words in PROGRAMS:
            times = [once(path, words) for _ in range(RUNS)]
            firsts = [first for first, _ in times if first is not None]
            results[name] = {
                "first_ms": statistics.median(firsts) if firsts else None,
                "exit_ms": statistics.median(end for _, end in times),
            }
        client = [*prefix, str(BIN / "nabla"), "exec", "bench", "--", "true"]
        taken = []
        for _ in range(RUNS // 3):
            began = time.perf_counter()
            subprocess.run(client, env=env, check=True)
            taken.append((time.perf_counter() - began) * 1e3)
        results["nabla exec true"] = {"first_ms": None, "exit_ms": statistics.median(taken)}
        results["throughput"] = throughput(env, prefix)
    return results


def main() -> int:
    """Measure, print, and write out/bench/control.json."""
    common.need(NABLA_RUN, BIN / "nabla")
    kinds = {"two processors": list[str](), "pinned": ["taskset", "-c", str(max(os.sched_getaffinity(0)))]}
    results: dict[str, Any] = {}
    rows = [["from the request, ms", *(f"{kind}, {what}" for kind in kinds for what in ("first byte", "end"))]]
    for kind, prefix in kinds.items():
        affinity = os.sched_getaffinity(0)
        if prefix:
            os.sched_setaffinity(0, {max(affinity)})
        results[kind] = measure(prefix)
        os.sched_setaffinity(0, affinity)
    for name in results["pinned"]:
        if name == "throughput":
            continue
        cells = [results[kind][name][key] for kind in kinds for key in ("first_ms", "exit_ms")]
        rows.append([name, *("" if cell is None else f"{cell:.3f}" for cell in cells)])
    print(common.table(rows))
    for kind in kinds:
        speed = results[kind]["throughput"]
        print(f"{kind}: {speed['output']:.0f} MB/s of output, {speed['input']:.0f} MB/s of input")
    common.save("control", results)
    return 0


if __name__ == "__main__":
    common.start(main)
