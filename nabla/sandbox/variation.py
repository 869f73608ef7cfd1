# SPDX-License-Identifier: Apache-2.0
"""How a second build differs from the first: outside, where doit runs, and inside the sandbox, where compilers run.

The sandbox gives all builds one path (/build), one home and one umask: these are fixed, not varied. What programs could
learn of the machine in spite of it is varied by force, in every build that has `NABLA_VARY` in its environment:

    clock           400 days later, by libfaketime (toolchain/vary.lock) through /etc/ld.so.preload, which no `env -i`
                    drops and which only programs of the build root's libc read
    processors      one for each step, while two steps run at once
    user, host name, time zone, locale, further variables
    directory order build folders are shown through disorderfs, which shuffles what readdir() gives; for doit itself
                    nabla/repro/site does that

The value is the folder at which out/work is shown so, or 1 where that cannot be. doit and the steps in Python see the
host's own clock: a faked one stops programs that fork while they have threads, as doit does.
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
ZONE = "<+1345>-13:45"  # in the form that needs no data base; nobody lives there

_OFFSET = "+400d"
_LIBRARY = "usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
_SHOWN_AT = "/tmp/.nabla-vary/libfaketime.so.1"
_LOCALES = "usr/lib/locale"
_LOCALES_AT = "/tmp/.nabla-vary/locale"
# Times of files are shown as they are: with shifted ones, a file that was copied with its times would get them twice.
# ccache alone sees the host's clock: to another one its unfinished files look a year old, and it throws them away and
# compiles once more. The compilers that it starts see the other clock.
_FAKETIME = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", "FAKETIME_SKIP_CMDS": "ccache"}

# What doit and the steps in Python see.
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
    """What the sandbox adds to its own words. `user`, `mounts`, `env`: for roots with the build root's libc."""

    prefix: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


NONE = Variation()


def of(root: Path | None = None) -> Variation:
    """Return how this process is to vary its sandboxes; nothing in a first build. `root`: the build root, if it is one.

    Raises `LockError`, `OfflineError` where the library cannot be had.
    """
    if not os.environ.get(VARIABLE):
        return NONE
    prefix = ("taskset", "--cpu-list", str(_processor())) if shutil.which("taskset") else ()
    mounts = _etc(root) if root is not None else ()
    identity = ("--hostname", HOSTNAME)
    user = ("--uid", str(USER), "--gid", str(USER))
    return Variation(prefix, identity, user, mounts, _INSIDE_ENVIRONMENT)


def view(path: Path) -> Path:
    """Return the place at which a folder below out/work is to be shown to the sandbox: with its entries shuffled."""
    shown = os.environ.get(VARIABLE, "")
    if os.path.isabs(shown) and path.is_relative_to(WORK):
        return Path(shown) / path.relative_to(WORK)
    return path


def _processor() -> int:
    """Return the processor of this worker's steps: doit -n numbers its workers, each gets its own."""
    allowed = sorted(os.sched_getaffinity(0))
    digits = "".join(filter(str.isdigit, multiprocessing.current_process().name))
    return allowed[int(digits or 0) % len(allowed)]


@functools.cache
def _etc(root: Path) -> tuple[str, ...]:
    """Return bubblewrap's words for the root's own /etc with another user's name and the two files of the clock."""
    folder = STATE / "vary"
    files.make_folder(folder)
    texts = {
        "ld.so.preload": f"{_SHOWN_AT}\n",
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
        partial = folder / f"{name}.{os.getpid()}"
        partial.write_text(text)
        partial.rename(folder / name)
        words += ["--ro-bind", str(folder / name), f"/etc/{name}"]
    words += ["--remount-ro", "/etc"]
    tools = buildroot.ensure(lockfile.VARY)
    for place, shown in ((_LIBRARY, _SHOWN_AT), (_LOCALES, _LOCALES_AT)):
        words += ["--ro-bind", str(tools / place), shown]
    return tuple(words)
