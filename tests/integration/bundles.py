# SPDX-License-Identifier: Apache-2.0
"""Bundles of the OCI runtime specification, and calls of nabla-oci like those of an engine."""

from __future__ import annotations

import array
import copy
import ctypes
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nabla.core.paths import NABLA_OCI

PR_SET_CHILD_SUBREAPER = 36
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")

CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2-dev",
    "process": {
        "user": {"uid": 0, "gid": 0},
        "args": ["true"],
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
    },
    "root": {"path": "rootfs"},
    "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES]},
}


@contextmanager
def subreaper() -> Iterator[None]:
    """Adopt the processes of containers, as conmon and containerd's shim do."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def eventually(condition: Callable[[], bool], limit: float = 30) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


@dataclass
class Bundle:
    """One bundle with one container of it. `prefix` is a command that starts commands."""

    folder: Path
    name: str = "c1"
    prefix: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(CONFIG))

    @property
    def process(self) -> dict[str, Any]:
        """The member `process`."""
        member: dict[str, Any] = self.config["process"]
        return member

    @property
    def linux(self) -> dict[str, Any]:
        """The member `linux`."""
        member: dict[str, Any] = self.config["linux"]
        return member

    @property
    def output(self) -> Path:
        """The container's standard output and error."""
        return self.folder / f"{self.name}.output"

    @property
    def state_folder(self) -> Path:
        """The directory of `--root`."""
        return self.folder / "state"

    def shell(self, script: str) -> None:
        """Let the container run a script."""
        self.process["args"] = ["sh", "-c", script]

    def mount(self, destination: str, source: str | Path, kind: str, *options: str) -> None:
        """Add a mount."""
        row = {"destination": destination, "source": str(source), "type": kind, "options": list(options)}
        self.config.setdefault("mounts", []).append(row)

    def words(self, *words: str | Path) -> list[str]:
        """Return a command line of nabla-oci."""
        return [*self.prefix, str(NABLA_OCI), "--root", str(self.state_folder), *self.options, *map(str, words)]

    def call(self, *words: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Call nabla-oci with this bundle's state."""
        options: dict[str, Any] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 60}
        result: subprocess.CompletedProcess[str] = subprocess.run(self.words(*words), check=False, **options | settings)
        return result

    def check(self, *words: str | Path) -> str:
        """Call it, and expect success."""
        result = self.call(*words)
        assert result.returncode == 0, result
        return result.stdout

    def refused(self, message: str, *words: str | Path) -> str:
        """Call it, and expect one line of error that contains `message`."""
        result = self.call(*words)
        assert result.returncode == 1, result
        assert result.stderr.startswith("nabla-oci: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert message in result.stderr
        assert result.stdout == ""
        return result.stderr

    def write(self) -> None:
        """Write config.json, with letters of all languages as they are, like engines."""
        (self.folder / "config.json").write_text(json.dumps(self.config, ensure_ascii=False))

    def create_words(self, *options: str | Path) -> tuple[str | Path, ...]:
        """Return the words of a call of create."""
        return ("create", "--bundle", self.folder, "--pid-file", self.folder / "pid", *options, self.name)

    def create(self, *options: str | Path, stdin: int = subprocess.DEVNULL) -> int:
        """Create the container; return its process."""
        self.write()
        with self.output.open("wb") as output:
            words = self.words(*self.create_words(*options))
            result = subprocess.run(words, stdin=stdin, stdout=output, stderr=output, timeout=60, check=False)
        assert result.returncode == 0, self.output.read_text()
        return int((self.folder / "pid").read_text())

    def create_refused(self, message: str, *options: str | Path) -> str:
        """Expect an error, and no remains of the container."""
        self.write()
        line = self.refused(message, *self.create_words(*options))
        assert not (self.state_folder / self.name).exists()
        return line

    def state(self) -> dict[str, Any]:
        """Return the container's state."""
        answer: dict[str, Any] = json.loads(self.check("state", self.name))
        return answer

    def run(self, script: str | None = None, *, stdin: int = subprocess.DEVNULL) -> tuple[int, str]:
        """Create, start, wait, delete; return exit status and output. Needs `subreaper`."""
        if script is not None:
            self.shell(script)
        pid = self.create(stdin=stdin)
        self.check("start", self.name)
        status = wait(pid)
        assert self.state()["status"] == "stopped"
        self.check("delete", self.name)
        return status, self.output.read_text()

    def says(self, script: str) -> str:
        """Run a script that succeeds; return its output."""
        status, output = self.run(script)
        assert status == 0, output
        return output

    def wait_for(self, text: str) -> None:
        """Wait until the container has written something."""
        eventually(lambda: text in self.output.read_text())


def wait(pid: int) -> int:
    """Wait for a container's process; return its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def console(path: Path) -> Iterator[Callable[[], int]]:
    """Listen at a path, as conmon does; the function returns the terminal that was sent."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)

        def receive() -> int:
            connection = server.accept()[0]
            with connection:
                _, control, _, _ = connection.recvmsg(64, socket.CMSG_SPACE(4))
            numbers = array.array("i")
            numbers.frombytes(control[0][2][:4])
            return numbers[0]

        yield receive


def properties(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Return a function that sets a property, `a.b.c`, of a configuration."""
    *parents, last = path.split(".")

    def change(config: dict[str, Any]) -> None:
        for parent in parents:
            config = config.setdefault(parent, {})
        config[last] = value

    return change


def namespaces(*changes: tuple[str, str | None], without: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return a list of namespaces; `changes`: types, each with a path or None."""
    rows: dict[str, dict[str, str]] = {kind: {"type": kind} for kind in NAMESPACES if kind not in without}
    for kind, path in changes:
        rows[kind] = {"type": kind} | ({"path": path} if path else {})
    return list(rows.values())
