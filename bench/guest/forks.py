# SPDX-License-Identifier: Apache-2.0
"""The cost of fork for programs: Python's os.fork(), redis's BGSAVE under load. Prints one JSON object.

Needs redis-server and redis-benchmark. Times are in seconds.
"""

import os
import time
from collections.abc import Callable

KEYS = 200_000
TURNS = 300
PORT = 6399


def fork() -> float:
    """Fork a child that exits, and wait for it."""
    began = time.perf_counter()
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return time.perf_counter() - began


fork()
bare = sorted(fork() for _ in range(TURNS))

# Each import adds memory, and work for the child: see the second figure.
import json  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402


class Redis:
    """A connection to the server."""

    def __init__(self) -> None:
        while True:
            try:
                self.stream = socket.create_connection(("127.0.0.1", PORT)).makefile("rwb")
                break
            except ConnectionRefusedError:
                time.sleep(0.01)

    def ask(self, line: str) -> str:
        """Send a command, return the answer without its head."""
        self.stream.write(line.encode() + b"\r\n")
        self.stream.flush()
        head = self.stream.readline()
        return self.stream.read(int(head[1:]) + 2).decode() if head.startswith(b"$") else head.decode()

    def info(self, name: str) -> int:
        """Return one number of INFO."""
        return next(int(line.split(":")[1]) for line in self.ask("info").split("\r\n") if line.startswith(f"{name}:"))

    def rate(self, until: Callable[[float], bool]) -> tuple[float, float]:
        """Return seconds and commands a second until `until()` holds."""
        began, commands = time.perf_counter(), self.info("total_commands_processed")
        while not until(time.perf_counter() - began):
            time.sleep(0.02)
        took = time.perf_counter() - began
        return took, (self.info("total_commands_processed") - commands) / took


def background_save() -> dict[str, float]:
    """Measure BGSAVE of KEYS keys while redis-benchmark writes."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            ["redis-server", "--port", str(PORT), "--dir", folder, "--save", "", "--enable-debug-command", "yes"],
            stdout=subprocess.DEVNULL,
        )
        redis = Redis()
        assert redis.ask(f"debug populate {KEYS} key 100").startswith("+OK")
        words = ["redis-benchmark", "-p", str(PORT), "-t", "set", "-r", str(KEYS), "-n", "1000000000", "-q"]
        load = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        _, before = redis.rate(lambda seconds: seconds > 2)
        assert redis.ask("bgsave").startswith("+Background")
        took, during = redis.rate(lambda _: not redis.info("rdb_bgsave_in_progress"))
        assert "rdb_last_bgsave_status:ok" in redis.ask("info")
        load.kill()
        load.wait()
        server.kill()
        server.wait()
    return {"BGSAVE, s": took, "SET a second before": before, "SET a second during it": during}


larger = sorted(fork() for _ in range(TURNS))
figures = {"os.fork, ms": bare[TURNS // 2] * 1000, "os.fork after imports, ms": larger[TURNS // 2] * 1000}
figures.update(background_save())
json.dump(figures, sys.stdout)
