# SPDX-License-Identifier: Apache-2.0
"""TCP connections of a VM that saves itself: inner ones continue, outer ones end, and new ones are accepted."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .networked import Installation, free_port, ordinary_installation

SERVER = """
import socket
server = socket.create_server(("0.0.0.0", 7))
within = socket.create_server(("127.0.0.1", 9))
left = socket.create_connection(("127.0.0.1", 9))
right, _ = within.accept()
print("ready", flush=True)
peer, _ = server.accept()
assert peer.recv(5) == b"first"
open("/proc/nabla/snapshot", "w").write("save")
left.sendall(b"inside")
print(right.recv(9).decode(), flush=True)
restored = "restored" in open("/proc/nabla/snapshot").read()
peer.settimeout(2 if restored else 100)
try:
    peer.sendall(b"again")
    print(peer.recv(9).decode(), flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
other, _ = server.accept()
other.sendall(b"hello " + other.recv(9))
"""


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with ordinary_installation("test") as prepared:
        yield prepared


@contextmanager
def serving(installation: Installation, *options: str) -> Iterator[tuple[int, Iterator[str]]]:
    """Start a VM; yields the host's port for its server, and the lines that it prints."""
    port = free_port()
    words = ["--publish", f"{port}:7", *options]
    with installation.running("test", "python3", "-c", SERVER, options=words, memory="256M") as process:
        assert process.stdout is not None
        yield port, iter(process.stdout)


def greet(port: int) -> None:
    """Check that the server answers a new client."""
    with socket.create_connection(("127.0.0.1", port), timeout=100) as other:
        other.sendall(b"new")
        assert other.recv(99) == b"hello new"


def test_connections(installation: Installation) -> None:
    with tempfile.TemporaryDirectory(prefix="nabla-") as name:
        Path(name).chmod(0o777)
        file = f"{name}/s.snap"
        with serving(installation, "--snapshot", file) as (port, lines):
            assert next(lines) == "ready\n"
            with socket.create_connection(("127.0.0.1", port), timeout=100) as client:
                client.sendall(b"first")
                assert client.recv(5) == b"again"
                client.sendall(b"go on")
                assert (next(lines), next(lines)) == ("inside\n", "go on\n")
            greet(port)
        for _ in range(2):
            with serving(installation, "--restore", file) as (port, lines):
                assert next(lines) == "inside\n"
                # Newer versions of passt reset connections that they do not know, older ones are silent.
                assert next(lines) in ("ConnectionResetError\n", "TimeoutError\n")
                greet(port)
