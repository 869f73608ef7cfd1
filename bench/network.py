# SPDX-License-Identifier: Apache-2.0
"""Throughput and request rate of a server in the guest, measured from the host through a published port.

python -m bench.network

bench/guest/netload.c is client and server, the same binary everywhere. "guest": the server runs in a VM with user
networking, the client on the host. "host": both run on the host, over loopback, in the same sandbox. Client, server and
passt share the host's processors. The best of several runs counts, because other load only makes a run slower; the file
contains all of them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench import common
from nabla.core import log
from nabla.core.errors import NablaError
from nabla.core.paths import GUEST_TESTS, MUSL

NAME = "netload"
IN_GUEST = f"/usr/lib/nabla-tests/{NAME}"
RUNS = 5
SECONDS = 2
BULK = 2_000_000_000
# name, unit, divisor, arguments of the client after mode and port
MEASUREMENTS = (
    ("GET of 1 KiB, 1 connection", "requests/s", 1, "load", ("1", str(SECONDS), "1024")),
    ("GET of 1 KiB, 32 connections", "requests/s", 1, "load", ("32", str(SECONDS), "1024")),
    ("GET of 100 KiB, 32 connections", "requests/s", 1, "load", ("32", str(SECONDS), "102400")),
    ("server sends 2 GB", "MB/s", 1e6, "get", (str(BULK),)),
    ("server receives 2 GB", "MB/s", 1e6, "put", (str(BULK),)),
)


def on_host(*words: str) -> list[str]:
    """Return the command line that runs netload on the host with nabla's libc."""
    common.need(GUEST_TESTS / NAME, MUSL / "lib")
    sandbox = ["bwrap", "--ro-bind", str(MUSL / "lib"), "/lib", "--ro-bind", str(GUEST_TESTS), "/tests"]
    return [*sandbox, "--die-with-parent", "--dev", "/dev", "--proc", "/proc", f"/tests/{NAME}", *words]


def free_port() -> int:
    """Return an unused port of the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def served(where: str) -> Iterator[str]:
    """Run the server in the guest or on the host; yields the port."""
    port = str(free_port())
    words = on_host("serve", port)
    if where == "guest":
        words = common.machine("test", IN_GUEST, "serve", "80", memory="256M", options=["--publish", f"{port}:80"])
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            if server.stdout.readline() != "serving\n":
                raise NablaError(f"the server in the {where} did not start", "its output is above")
            yield port
        finally:
            server.terminate()


def client(mode: str, port: str, words: Sequence[str]) -> float:
    """Measure once; returns requests or bytes per second. Raises `NablaError`."""
    finished = subprocess.run(on_host(mode, port, *words), capture_output=True, text=True, timeout=300, check=False)
    if finished.returncode != 0:
        raise NablaError(f"{NAME} {mode}: exit status {finished.returncode}", finished.stderr.strip())
    rate: float = json.loads(finished.stdout)["per_second"]
    return rate


def measure() -> list[dict[str, Any]]:
    """Run every measurement several times, guest and host in turns, so that other load affects both."""
    results = []
    with served("guest") as guest, served("host") as host:
        for name, unit, divisor, mode, words in MEASUREMENTS:
            rates: dict[str, list[float]] = {"guest": [], "host": []}
            for turn in range(RUNS + 1):
                for where, port in (("guest", guest), ("host", host)):
                    rate = client(mode, port, words) / divisor
                    if turn:  # the first fills caches and windows
                        rates[where].append(round(rate, 1))
            best = {where: max(all_of_it) for where, all_of_it in rates.items()}
            results.append({"name": name, "unit": unit, "client": [mode, *words], "best": best, "all": rates})
    return results


def main() -> int:
    """Measure, save, print the table."""
    before = round(os.getloadavg()[0], 2)
    results = measure()
    log.info(f"written to {common.save('network', {'load_before': before, 'runs': RUNS, 'measurements': results})}")
    rows = [["server, client on the host", "unit", "in the guest", "on the host", "guest / host"]]
    for each in results:
        guest, host = each["best"]["guest"], each["best"]["host"]
        rows.append([each["name"], each["unit"], f"{guest:.0f}", f"{host:.0f}", f"{guest / host:.2f}"])
    print(common.table(rows))
    return 0


if __name__ == "__main__":
    common.start(main)
