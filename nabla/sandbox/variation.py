# SPDX-License-Identifier: Apache-2.0
"""The differences between a second build and the first: on the host, where doit runs, and in the sandbox.

All builds have the same path (/build), home and umask in the sandbox; these do not vary. Other properties of the
machine that programs can observe vary in each build with `NABLA_VARY` in its environment:

    clock           400 days later, by libfaketime (toolchain/vary.lock) in /etc/ld.so.preload, which survives `env -i`
                    and affects only programs of the build root's libc
    processors      one for each step, while two steps run at once
    user, host name, time zone, locale, further variables
    directory order disorderfs shuffles the entries of build folders; nabla/repro/site does the same for doit

The value is the mount point of the shuffled view of out/work, or 1 if this host cannot mount one. doit and the steps in
Python use the real clock: libfaketime deadlocks programs that fork while they have threads, as doit does.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nabla.core import files
from nabla.core.paths import STATE, WORK
from nabla.sandbox import buildroot, lockfile

VARIABLE = "NABLA_VARY"
USER = 4321
HOSTNAME = "anderswo"
ZONE = "<+1345>-13:45"  # in the format that needs no time zone database; no such zone exists

_OFFSET = "+400d"
_LIBRARY = "usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
_LIBRARY_AT = "/tmp/.nabla-vary/libfaketime.so.1"
_LOCALES = "usr/lib/locale"
_LOCALES_AT = "/tmp/.nabla-vary/locale"
# File times stay real: otherwise a file copied with its times would be shifted twice. ccache uses the real clock: with
# the other one, its unfinished files look a year old, so it removes them and compiles again. Its compilers use the
# other clock.
_FAKETIME = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", "FAKETIME_SKIP_CMDS": "ccache"}

# The environment of doit and of the steps in Python.
OUTSIDE_ENVIRONMENT = {
    "PYTHONHASHSEED": "4321",
    "TZ": ZONE,
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "tr_TR.UTF-8",
    "USER": "someone",
}
_INSIDE_ENVIRONMENT = {
    **_FAKETIME,
    "TZ": ZONE,
    "LOCPATH": _LOCALES_AT,
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "USER": "someone",
    "LOGNAME": "someone",
    "TERM": "xterm",
    "A_VARIABLE_OF_NO_MEANING": "only there to move others",
    "ZZ_ANOTHER": "x" * 999,
}


@dataclass(frozen=True)
class Variation:
    """Additions to bubblewrap's command. `user`, `mounts`, `env`: for roots with the build root's libc only."""

    prefix: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


NO_VARIATION = Variation()


def current(root: Path | None = None) -> Variation:
    """Return the variation of this process's sandboxes; none in a first build. `root`: the build root, if there is one.

    Raises `LockError`, `OfflineError` if the library is missing.
    """
    if not os.environ.get(VARIABLE):
        return NO_VARIATION
    prefix = ("taskset", "--cpu-list", str(_processor())) if shutil.which("taskset") else ()
    mounts = _etc(root) if root is not None else ()
    identity = ("--hostname", HOSTNAME)
    user = ("--uid", str(USER), "--gid", str(USER))
    return Variation(prefix, identity, user, mounts, _INSIDE_ENVIRONMENT)


def shuffled_view(path: Path) -> Path:
    """Return the path at which the entries of a folder below out/work are shuffled."""
    mount_point = os.environ.get(VARIABLE, "")
    if os.path.isabs(mount_point) and path.is_relative_to(WORK):
        return Path(mount_point) / path.relative_to(WORK)
    return path


def _processor() -> int:
    """Return the processor for the steps of this worker: doit -n numbers its workers."""
    allowed = sorted(os.sched_getaffinity(0))
    digits = "".join(filter(str.isdigit, multiprocessing.current_process().name))
    return allowed[int(digits or 0) % len(allowed)]


@functools.cache
def _etc(root: Path) -> tuple[str, ...]:
    """Return bubblewrap's options for the root's /etc with another user name and the two files of libfaketime."""
    folder = STATE / "vary"
    files.make_folder(folder)
    texts = {
        "ld.so.preload": f"{_LIBRARY_AT}\n",
        "faketimerc": f"{_OFFSET}\n",
        "passwd": f"root:x:0:0:root:/root:/bin/sh\nsomeone:x:{USER}:{USER}:someone:/build:/bin/sh\n",
        "group": f"root:x:0:\nsomeone:x:{USER}:\n",
    }
    words = ["--tmpfs", "/etc"]
    for path in sorted((root / "etc").iterdir()):
        inside = f"/etc/{path.name}"
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), inside]
        elif path.name not in texts:
            words += ["--ro-bind", str(path), inside]
    for name, text in texts.items():
        files.write(folder / name, text)
        words += ["--ro-bind", str(folder / name), f"/etc/{name}"]
    words += ["--remount-ro", "/etc"]
    tools = buildroot.ensure(lockfile.VARY)
    for source, target in ((_LIBRARY, _LIBRARY_AT), (_LOCALES, _LOCALES_AT)):
        words += ["--ro-bind", str(tools / source), target]
    return tuple(words)
