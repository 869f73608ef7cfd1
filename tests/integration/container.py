# SPDX-License-Identifier: Apache-2.0
"""Containers like those of docker and podman, set up by bubblewrap: seccomp profile, capabilities, a masked /proc.

The profiles are those that Debian ships. libseccomp compiles them, as in the container engines, and bubblewrap loads
the result into the kernel before it starts the command.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyseccomp

from nabla.sandbox import deb
from nabla.sources import fetch, recipe

USER = 47110
_PLACES = {
    "podman": "usr/share/containers/seccomp.json",
    "docker": "usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json",
}
_PODMAN = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
CAPABILITIES = {
    "podman": [f"CAP_{name}" for name in _PODMAN.split()],
    "docker": [f"CAP_{name}" for name in f"{_PODMAN} AUDIT_WRITE MKNOD NET_RAW".split()],
}
ENGINES = tuple(_PLACES)
# The paths in /proc and /sys that both engines hide, and those that they make read-only.
_MASKED = ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list")
_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_OPERATIONS = {
    "SCMP_CMP_NE": pyseccomp.NE,
    "SCMP_CMP_LT": pyseccomp.LT,
    "SCMP_CMP_LE": pyseccomp.LE,
    "SCMP_CMP_EQ": pyseccomp.EQ,
    "SCMP_CMP_GE": pyseccomp.GE,
    "SCMP_CMP_GT": pyseccomp.GT,
    "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
}


def profile(engine: str) -> dict[str, Any]:
    """Return the default profile of an engine, from its package."""
    (source,) = [source for source in recipe.load("container-profiles").source if source.name == engine]
    with deb.data_archive(fetch.fetch(source)) as archive:
        member = next(member for member in archive if member.name.removeprefix("./") == _PLACES[engine])
        stream = archive.extractfile(member)
        assert stream is not None
        read: dict[str, Any] = json.load(stream)
    return read


def compile_profile(engine: str) -> bytes:
    """Return the filter that the engine would load on this host, as instructions of seccomp(2)."""
    wanted = profile(engine)
    default = _action(wanted["defaultAction"], wanted.get("defaultErrnoRet", errno.EPERM))
    rules = pyseccomp.SyscallFilter(default)
    for arch in (pyseccomp.Arch.X86, pyseccomp.Arch.X32):
        rules.add_arch(arch)
    for rule in wanted["syscalls"]:
        action = _action(rule["action"], rule.get("errnoRet") or errno.EPERM)
        if action == default or not _holds(rule, CAPABILITIES[engine]):
            continue
        compared = [
            pyseccomp.Arg(arg["index"], _OPERATIONS[arg["op"]], arg["value"], arg.get("valueTwo", 0))
            for arg in rule.get("args") or []
        ]
        # MASKED_EQ has the mask first, then the value, as in the profile.
        for name in rule["names"]:
            if pyseccomp.resolve_syscall(pyseccomp.system_arch(), name) != -1:  # engines skip unknown calls
                rules.add_rule(action, name, *compared)
    with tempfile.TemporaryFile() as stream:
        rules.export_bpf(stream)
        stream.seek(0)
        return stream.read()


def _action(name: str, number: int) -> int:
    actions: dict[str, int] = {"SCMP_ACT_ALLOW": pyseccomp.ALLOW, "SCMP_ACT_ERRNO": pyseccomp.ERRNO(number)}
    return actions[name]


def _holds(rule: dict[str, Any], capabilities: Sequence[str]) -> bool:
    """Return whether a rule applies to this host and container."""
    only, never = rule.get("includes") or {}, rule.get("excludes") or {}
    kernel = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    least = tuple(int(part) for part in only.get("minKernel", "0.0").split("."))
    return (
        ("arches" not in only or "amd64" in only["arches"])
        and ("caps" not in only or set(only["caps"]) <= set(capabilities))
        and kernel >= least
        and "amd64" not in never.get("arches", ())
        and not set(never.get("caps", ())) & set(capabilities)
    )


@dataclass(frozen=True)
class Container:
    """A container that runs commands. `folder` of the host is its /nabla, writable; `filter`: a file."""

    engine: str
    folder: Path
    root: bool  # the command's user
    filter: Path

    def argv(self, *command: str | Path) -> list[str]:
        """Return the command line that runs a command in it."""
        words = ["bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--die-with-parent"]
        # bubblewrap limits the command's capabilities, an engine also the bounding set.
        bounds = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in CAPABILITIES[self.engine])
        become = ["setpriv", f"--bounding-set=-all,{bounds}", "--inh-caps=-all"]
        words += ["--as-pid-1", "--cap-drop", "ALL"]
        for name in CAPABILITIES[self.engine]:
            words += ["--cap-add", name]
        if os.geteuid() != 0:
            uid = "0" if self.root else str(USER)
            words += ["--unshare-user", "--uid", uid, "--gid", uid]
        elif not self.root:
            become += [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        for directory in ("usr", "bin", "sbin", "lib", "lib64", "etc"):
            if Path("/", directory).is_symlink():
                words += ["--symlink", os.readlink(f"/{directory}"), f"/{directory}"]
            elif Path("/", directory).exists():
                words += ["--ro-bind", f"/{directory}", f"/{directory}"]
        words += ["--dev", "/dev", "--proc", "/proc", "--ro-bind", "/sys", "/sys", "--tmpfs", "/tmp"]
        words += ["--bind", str(self.folder), "/nabla", "--chdir", "/nabla"]
        for name in _READ_ONLY:
            if Path("/proc", name).exists():
                words += ["--ro-bind", f"/proc/{name}", f"/proc/{name}"]
        for name in _MASKED:
            masked = Path("/proc", name)
            if masked.is_dir():
                words += ["--tmpfs", str(masked), "--remount-ro", str(masked)]
            elif masked.exists():
                words += ["--dev-bind", "/dev/null", str(masked)]
        words += ["--seccomp", "9", "--", *become]
        return ["sh", "-c", 'exec 9<"$0"; exec "$@"', str(self.filter), *words, *map(str, command)]


@contextmanager
def container(engine: str, folder: Path, *, root: bool) -> Iterator[Container]:
    """Make a container like an engine's; each command runs in a new one."""
    with tempfile.NamedTemporaryFile(prefix="nabla-filter-") as stream:
        stream.write(compile_profile(engine))
        stream.flush()
        yield Container(engine, folder, root, Path(stream.name))
