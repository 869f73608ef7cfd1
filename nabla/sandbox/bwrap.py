# SPDX-License-Identifier: Apache-2.0
"""Run commands in the locked build root through bubblewrap, so that nothing of the host gets into a build.

Inside there is no network, the root is read-only, paths, user, host name, environment, time zone and umask are fixed,
and the only writable places are those which the caller binds. The same holds for root, for an ordinary user, and inside
a container, as long as it lets us make user, mount and network namespaces.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from nabla.core.errors import CommandError, HostError
from nabla.core.paths import TOOLCHAIN, cache_dir, relative
from nabla.core.process import Result, describe_status, interactive, run
from nabla.sandbox import buildroot, lockfile, variation
from nabla.sandbox import script as step_script
from verify.epoch import SOURCE_DATE_EPOCH

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/tools/bin:/usr/bin:/usr/sbin",
    "HOME": "/tmp",
    "USER": "build",
    "LOGNAME": "build",
    "LANG": "C",
    "LC_ALL": "C",
    "TZ": "UTC",
    "SHELL": "/bin/sh",
    "TERM": "dumb",
    "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
}

_NAMESPACES = ("--unshare-user", "--unshare-ipc", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
_IDENTITY = ("--hostname", "build", "--cap-drop", "ALL")

# Two ways to have /proc; a container that masks parts of its own lets nobody mount a new one.
_PROC_VARIANTS = (("--unshare-pid", "--proc", "/proc"), ("--ro-bind", "/proc", "/proc"))

_HINT = (
    "builds need unprivileged user namespaces; in a container allow them (podman/docker: "
    "`--security-opt seccomp=unconfined --security-opt apparmor=unconfined`),\n"
    "on a host set kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0"
)


@dataclass(frozen=True)
class Bind:
    """A host path that appears in the sandbox at `target`; read-only unless said otherwise."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Sandbox:
    """A place to run commands in: a build root, the tools of this repository, ccache, and the caller's binds."""

    binds: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/build"
    pins: lockfile.Pins = lockfile.BASE
    shell_command: str = ""  # opens a shell in the same place

    def argv(self, command: Sequence[str], *, terminal: bool = False) -> list[str]:
        """Return the complete host command that runs `command` inside.

        Unpacks the build root when needed. `terminal` keeps the caller's terminal as controlling terminal.
        """
        root = buildroot.ensure(self.pins)
        ccache = cache_dir() / "ccache"
        ccache.mkdir(parents=True, exist_ok=True)
        binds = [Bind(TOOLCHAIN, "/tools"), Bind(ccache, "/ccache", writable=True), *self.binds]
        varied = variation.of(root)
        words = [*base(root), *varied.user, *varied.mounts, "--die-with-parent"]
        if not terminal:
            words.append("--new-session")
        for bind in binds:
            words += ["--bind" if bind.writable else "--ro-bind", str(variation.view(bind.source)), bind.target]
        words.append("--clearenv")
        for name, value in sorted({**ENVIRONMENT, **ccache_environment(root), **self.env, **varied.env}.items()):
            words += ["--setenv", name, value]
        return [*words, "--chdir", self.cwd, *command]

    def run(
        self,
        script: str,
        *,
        title: str,
        log: Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Result:
        """Run a shell script (`set -eu`) inside. Raises `CommandError`, its message beginning with `title`.

        With a log, the error shows the failed line of the script and the last lines of its output.
        """
        text = textwrap.dedent(script).strip()
        traced = step_script.traced(text) if log is not None else text
        words = self.argv(["/bin/sh", "-euc", f"umask 022\n{traced}"])
        try:
            return run(words, log=log, progress=progress)
        except CommandError as error:
            message = f"{title} {describe_status(error.returncode)}"
            hint = error.hint if log is None else self._failure(text, log, error.output)
            raise CommandError(message, hint, returncode=error.returncode, output=error.output) from error

    def _failure(self, script: str, log: Path, output: Sequence[str]) -> str:
        """Return what helps to understand a failed script, without the long command line of the sandbox."""
        number = step_script.failed_line(output)
        lines = [] if number is None else [f"line {number} of the step: {script.splitlines()[number - 1].strip()}"]
        shown = step_script.without_report(output)
        lines += [f"last lines of {relative(log)}:", *(f"  {line}" for line in shown)] if shown else []
        if self.shell_command:
            lines.append(f"to look into it: {self.shell_command}")
        return "\n".join(lines)

    def shell(self) -> int:
        """Open an interactive shell inside, on the caller's terminal; returns its exit status."""
        term = os.environ.get("TERM", "dumb")
        return interactive(self.argv(["/usr/bin/env", f"TERM={term}", "/bin/bash", "--norc"], terminal=True))


def base(root: Path, user: int = 1000) -> list[str]:
    """Return bubblewrap's words for namespaces, identity and the fixed parts of the file system.

    `user`: number which the caller has inside, without any capability there; files of the caller seem to belong to it.
    Raises `HostError` when this host does not let us make such a sandbox.
    """
    varied = variation.of()
    return [*varied.prefix, *_usable(root), "--uid", str(user), "--gid", str(user), *_IDENTITY, *varied.identity]


def ccache_environment(root: Path) -> dict[str, str]:
    """Return ccache's settings: entries belong to one build root, whose name is the digest of its content."""
    return {
        "CCACHE_DIR": "/ccache",
        "CCACHE_COMPILERCHECK": f"string:{root.name}",
        "CCACHE_MAXSIZE": "4G",
        "CCACHE_UMASK": "022",
    }


def jobs() -> int:
    """Return how many compilers to run at once: `NABLA_JOBS`, else the cores this process may use."""
    wanted = os.environ.get("NABLA_JOBS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0))


@cache
def _usable(root: Path) -> tuple[str, ...]:
    """Find the way of entering the root that this host allows, by trying."""
    program = shutil.which("bwrap")
    if program is None:
        raise HostError("bubblewrap is missing: every build runs in it", "install the package bubblewrap")
    message = ""
    for proc in _PROC_VARIANTS:
        words = (program, *_NAMESPACES, "--ro-bind", str(root), "/", "--dev", "/dev", "--tmpfs", "/tmp", *proc)
        result = run([*words, "--uid", "1000", "--gid", "1000", *_IDENTITY, "/bin/true"], check=False)
        if result.returncode == 0:
            return words
        reason = result.stderr.strip().splitlines()
        message = message or (reason[-1] if reason else "no reason given")
    raise HostError(f"this host does not allow the build sandbox: {message}", _HINT)
