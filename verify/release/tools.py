# SPDX-License-Identifier: Apache-2.0
"""Run the real apk and e2fsck on a release, in sandboxes that contain nothing else (`doit apk:tools rootfs:tools`)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from verify.release import layout

WORK = "/scratch"  # the working folder inside
_ROOT = Path(__file__).resolve().parents[2]
_NAMESPACES = ("user", "ipc", "net", "uts", "cgroup-try")
# A container that masks parts of its own /proc forbids mounting a new one.
_PROC = (("--unshare-pid", "--proc", "/proc"), ("--ro-bind", "/proc", "/proc"))


class ToolError(Exception):
    """The tools are missing or cannot run on this host. `hint`: the remedy."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Tools:
    """Roots of the sandboxes: `apk` with apk, `images` with e2fsprogs."""

    apk: Path = _ROOT / layout.APK_TOOLS
    images: Path = _ROOT / layout.IMAGE_TOOLS

    def check(self) -> None:
        """Raise `ToolError` if one is missing."""
        for folder in (self.apk, self.images):
            if not folder.is_dir():
                raise ToolError(
                    f"there is no {folder}: the real apk and e2fsck check a release",
                    "./doit.sh apk:tools rootfs:tools",
                )


def run(root: Path, argv: Sequence[str], folders: Mapping[str, Path], work: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of `root`. `folders`: target -> folder, read-only; `work` is writable. Raises `ToolError`."""
    mounts = [word for target, folder in folders.items() for word in ("--ro-bind", str(folder), target)]
    return subprocess.run(
        [
            *_sandbox(root),
            *("--die-with-parent", "--new-session", *mounts, "--bind", str(work), WORK, "--chdir", WORK),
            *("--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin", "--setenv", "LC_ALL", "C"),
            *argv,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


@cache
def _sandbox(root: Path) -> tuple[str, ...]:
    """Return the bubblewrap command that this host permits, found by trying."""
    program = shutil.which("bwrap")
    if program is None:
        raise ToolError("bubblewrap is missing: the tools run in it", "install the package bubblewrap")
    unshare = [f"--unshare-{name}" for name in _NAMESPACES]
    fixed = ("--ro-bind", str(root), "/", "--dev", "/dev", "--tmpfs", "/tmp")
    reason = ""
    for proc in _PROC:
        words = (program, *unshare, *fixed, *proc, "--uid", "0", "--gid", "0", "--cap-drop", "ALL")
        done = subprocess.run([*words, "/bin/true"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return words
        reason = reason or (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    raise ToolError(f"this host does not permit the sandbox: {reason}", "permit unprivileged user namespaces")
