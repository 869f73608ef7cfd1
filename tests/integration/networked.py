# SPDX-License-Identifier: Apache-2.0
"""VMs with a network, started by an ordinary user, and the host's side of their connections.

Only addresses of this host's loopback are used; a guest reaches it by the address of its gateway.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nabla.core.paths import NABLA_RUN, VMLINUX

from .conftest import image_of

GUEST, GATEWAY, SERVER = "10.0.2.15", "10.0.2.2", "10.0.2.3"
PEER = "/usr/lib/nabla-tests/network_peer.py"
OWN_ERROR = 125
_SOMEBODY = "12345"
_PATIENCE = 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class Installation:
    """Launcher, kernel and images in an accessible folder, and the command that switches to an ordinary user."""

    launcher: Path
    kernel: Path
    images: dict[str, Path]
    prefix: tuple[str, ...]

    def argv(self, image: str, *command: str, options: Sequence[str] = (), memory: str = "128M") -> list[str]:
        """Return the command line that runs a command in an ephemeral VM."""
        words = [*self.prefix, str(self.launcher), "--kernel", str(self.kernel), "--memory", memory, "--ephemeral"]
        return [*words, *options, str(self.images[image]), "--", *command]

    def run(self, image: str, *command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command in a VM to its end."""
        return run_words(self.argv(image, *command, options=options))

    @contextmanager
    def running(
        self, image: str, *command: str, options: Sequence[str] = (), memory: str = "128M"
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a VM; it receives SIGTERM on leaving the context."""
        words = self.argv(image, *command, options=options, memory=memory)
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        with subprocess.Popen(words, stdin=null, stdout=pipe, stderr=pipe, text=True, cwd="/") as process:
            try:
                yield process
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=10)
                process.kill()

    @contextmanager
    def peer(self, *, options: Sequence[str] = ()) -> Iterator[tuple[int, subprocess.Popen[str]]]:
        """Start a VM with network_peer.py on a published TCP and UDP port; yields the port of the host."""
        port = free_port()
        options = ["--publish", f"{port}:7", "--publish", f"{port}:7/udp", *options]
        with self.running("test", "/usr/bin/python3", PEER, "7", options=options, memory="256M") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "serving\n", process.communicate()
            yield port, process


def run_words(words: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a host command to its end."""
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False, cwd="/"
    )


def reachable(prefix: Sequence[str], path: Path) -> bool:
    """Return whether a user can read this file, and execute it if it is a program."""
    modes = ("-r", "-x") if os.access(path, os.X_OK) else ("-r",)
    return all(subprocess.run([*prefix, "test", mode, path], check=False, cwd="/").returncode == 0 for mode in modes)


@contextmanager
def ordinary_installation(*images: str) -> Iterator[Installation]:
    """Prepare a place; files that an ordinary user cannot access are copied for the duration of the context."""
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        prefix = ("setpriv", f"--reuid={_SOMEBODY}", f"--regid={_SOMEBODY}", "--clear-groups")
    with tempfile.TemporaryDirectory(prefix="nabla-") as name:
        folder = Path(name)
        folder.chmod(0o755)

        def within_reach(path: Path) -> Path:
            if reachable(prefix, path):
                return path
            copy = folder / path.name
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", path, copy], check=True)
            copy.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
            assert reachable(prefix, copy), f"{folder} is out of an ordinary user's reach: set TMPDIR to another folder"
            return copy

        paths = {image: within_reach(image_of(image)) for image in images}
        yield Installation(within_reach(NABLA_RUN), within_reach(VMLINUX), paths, prefix)


def free_port(address: str = "127.0.0.1") -> int:
    """Return the number of a port that is unused for both TCP and UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((address, 0))
            port: int = tcp.getsockname()[1]
            with suppress(OSError):
                udp.bind((address, port))
                return port


def until(attempt: Callable[[], T | None], what: str) -> T:
    """Repeat an attempt until it returns a result; failed connections return none."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        with suppress(OSError, http.client.HTTPException):
            if (answer := attempt()) is not None:
                return answer
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {_PATIENCE:g} s")


def page(port: int, path: str = "/", address: str = "127.0.0.1") -> bytes | None:
    """Return a page from a web server; None if there is none."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read() if answer.status == 200 else None
    finally:
        connection.close()


def talk(port: int, *, send: bytes = b"", line: str) -> bytes:
    """Send a line and bytes to network_peer.py, shut down the sending side, return the complete answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{line}\n".encode() + send)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 18), b""))


def sha256(data: bytes) -> str:
    """Return the digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def helpers_of(parent: int) -> list[int]:
    """Return the process numbers of passt among the children of a process."""
    numbers = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")") if entry.name.isdigit() else None
            if fields and int(fields[2].split()[1]) == parent and "(passt" in fields[0]:
                numbers.append(int(entry.name))
    return numbers


def gone(pid: int) -> bool:
    """Return whether a process has ended; a zombie has."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def program(name: str) -> str:
    """Return the path of a host program that a test requires."""
    path = shutil.which(name)
    assert path is not None, f"{name} is missing; hint: ./doit.sh test installs it"
    return path
