# SPDX-License-Identifier: Apache-2.0
"""Run podman, also where its defaults fail: in containers, in sandboxes, for users without subordinate ids.

There, podman cannot raise limits, manage cgroups, or map several ids, and nabla needs none of that. Podman and its
runtime require a cgroup hierarchy and folders for locks and state; these are mounted in separate namespaces, which do
not affect the host. The seccomp profile stays podman's default.
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

# The first argument is the folder for images and containers.
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
_RESTRICTIONS = ("--cgroups", "disabled", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000")


@dataclass(frozen=True)
class Podman:
    """A way to run podman on this host. `run_options`: additional options of each `podman run`."""

    words: tuple[str | Path, ...] = ("podman",)
    run_options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    one_id: bool = False  # root is the only user in containers, mapped to the caller

    def argv(self, *words: str | Path) -> list[str | Path]:
        """Return a command of podman; `env` must be in its environment."""
        return [*self.words, *words]

    def load(self, archive: Path) -> None:
        """Load the container image. Raises `CommandError`."""
        run(self.argv("load", "--quiet", "--input", archive), env=self.env)

    def run_argv(self, version: str, command: Sequence[str], *options: str) -> list[str | Path]:
        """Return the command that runs a command, by default the image's, in a VM in a container."""
        who: list[str] = []
        if self.one_id:
            entry = [oci.ENTRY_POINT[0], "--run-as", "0", *oci.ENTRY_POINT[1:]]
            who = ["--user", "0:0", "--entrypoint", json.dumps(entry)]
            command = command or oci.DEFAULT_COMMAND  # podman ignores it if there is another entry point
        return self.argv("run", "--rm", *self.run_options, *who, *options, oci.reference(version), *command)

    def try_out(self, version: str) -> str:
        """Run a VM with the command `true`; return podman's error message, empty if it works."""
        result = run(self.run_argv(version, ["true"]), env=self.env, check=False)
        return "" if result.returncode == 0 else (result.stderr.strip() or f"exit status {result.returncode}")

    def run(self, version: str, command: Sequence[str], *options: str) -> int:
        """Run a command in a VM in a container, on the caller's terminal; return its exit status."""
        return interactive(self.run_argv(version, command, *options), env=self.env)


def restricted(folder: Path) -> Podman:
    """Return podman for a host with restrictions; `folder` contains its images and containers."""
    become: list[str] = ["unshare", "--mount", "--cgroup", "--propagation", "private"]
    env = {"HOME": str(folder)}
    ordinary = os.geteuid() != 0
    if ordinary:
        # As podman does by itself for a user with subordinate ids.
        become.append("--map-root-user")
        env |= {f"_CONTAINERS_ROOTLESS_{kind}ID": str(os.geteuid()) for kind in "UG"}
        env |= {"_CONTAINERS_USERNS_CONFIGURED": "done", "XDG_RUNTIME_DIR": str(folder)}
    words: tuple[str | Path, ...] = (*become, "sh", "-c", _IN_OWN_NAMESPACES, "sh", folder)
    return Podman(words, _RESTRICTIONS, env, one_id=ordinary)


def check() -> None:
    """Raise `HostError` if podman is missing."""
    if shutil.which("podman") is None:
        raise HostError("podman is missing: it runs containers", "run: apt-get install podman")
