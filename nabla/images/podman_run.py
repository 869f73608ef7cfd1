# SPDX-License-Identifier: Apache-2.0
"""Podman where it works, and where it does not: inside containers, sandboxes, and for users without further ids.

In such a place podman's defaults ask for what it may not give: limits above our own, cgroups to divide, several ids for
one user. None of it is needed. What podman and its runtime insist on (one cgroup hierarchy, places for locks and
states) is made in namespaces of our own, which leaves the host as it is. The seccomp profile stays podman's default.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nabla.core.errors import HostError
from nabla.core.process import interactive, run
from nabla.images import oci

# First word: a folder to keep images and containers in.
_IN_OWN_NAMESPACES = """
set -e
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /dev/shm
mount -t tmpfs none /run
folder=$1
shift
exec podman --root "$folder/storage" --runroot /run/podman --tmpdir /run/libpod --storage-driver vfs \\
    --cgroup-manager cgroupfs --events-backend none "$@"
"""
_FEWER_WISHES = ("--cgroups", "disabled", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000")


@dataclass(frozen=True)
class Podman:
    """How to call podman here. `run_options`: what each `podman run` needs besides."""

    words: tuple[str | Path, ...] = ("podman",)
    run_options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    one_id: bool = False  # the containers' root is us, and nobody else exists

    def argv(self, *words: str | Path) -> list[str | Path]:
        """Return the words that call podman; `env` must be in the environment."""
        return [*self.words, *words]

    def load(self, archive: Path) -> None:
        """Load the container image. Raises `CommandError`."""
        run(self.argv("load", "--quiet", "--input", archive), env=self.env)

    def run_argv(self, version: str, command: Sequence[str], *options: str) -> list[str | Path]:
        """Return the words that run a command, by default the image's own, in a machine in a container."""
        who: list[str] = []
        if self.one_id:
            entry = [oci.ENTRY_POINT[0], "--run-as", "0", *oci.ENTRY_POINT[1:]]
            who = ["--user", "0:0", "--entrypoint", json.dumps(entry)]
            command = command or oci.DEFAULT_COMMAND  # podman leaves it out when there is another entry point
        return self.argv("run", "--rm", *self.run_options, *who, *options, oci.reference(version), *command)

    def try_out(self, version: str) -> str:
        """Run a machine that does nothing; return what podman complains of, nothing if it worked."""
        result = run(self.run_argv(version, ["true"]), env=self.env, check=False)
        return "" if result.returncode == 0 else (result.stderr.strip() or f"exit status {result.returncode}")

    def run(self, version: str, command: Sequence[str], *options: str) -> int:
        """Run a command in a machine in a container, on the caller's terminal; return its exit status."""
        return interactive(self.run_argv(version, command, *options), env=self.env)


def restricted(folder: Path) -> Podman:
    """Return podman for a place that allows it little; images and containers are kept in `folder`."""
    become: list[str] = ["unshare", "--mount", "--cgroup", "--propagation", "private"]
    env = {"HOME": str(folder)}
    ordinary = os.geteuid() != 0
    if ordinary:
        # As podman does it by itself where an administrator gave the user further ids.
        become.append("--map-root-user")
        env |= {f"_CONTAINERS_ROOTLESS_{kind}ID": str(os.geteuid()) for kind in "UG"}
        env |= {"_CONTAINERS_USERNS_CONFIGURED": "done", "XDG_RUNTIME_DIR": str(folder)}
    words: tuple[str | Path, ...] = (*become, "sh", "-c", _IN_OWN_NAMESPACES, "sh", folder)
    return Podman(words, _FEWER_WISHES, env, one_id=ordinary)


def check() -> None:
    """Raise `HostError` when there is no podman."""
    if shutil.which("podman") is None:
        raise HostError("podman is missing, which runs containers", "run: apt-get install podman")
