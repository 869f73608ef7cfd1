# SPDX-License-Identifier: Apache-2.0
"""Run commands in the locked build root by bubblewrap, so that a build does not depend on the host.

The sandbox has no network and a read-only root. Paths, user, host name, environment, time zone and umask are fixed, and
only the folders that the caller binds are writable. This works as root, as an ordinary user, and in a container that
permits user, mount and network namespaces.
"""

from __future__ import annotations

import os
import shutil
import sys
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

# Two ways to provide /proc: a container that masks parts of its own /proc forbids mounting a new one.
_PROC_VARIANTS = (("--unshare-pid", "--proc", "/proc"), ("--ro-bind", "/proc", "/proc"))

_HINT = (
    "builds need unprivileged user namespaces; in a container allow them (podman/docker: "
    "`--security-opt seccomp=unconfined --security-opt apparmor=unconfined`),\n"
    "on a host set kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0"
)


@dataclass(frozen=True)
class Bind:
    """A host path that appears in the sandbox at `target`; read-only unless `writable`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Sandbox:
    """An environment for commands: a build root, the tools of this repository, ccache, and the caller's binds."""

    binds: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/build"
    pins: lockfile.Pins = lockfile.BASE
    shell_command: str = ""  # command that opens a shell in this sandbox

    def argv(self, command: Sequence[str], *, terminal: bool = False) -> list[str]:
        """Return the host command that runs `command` in the sandbox.

        Unpacks the build root if it is missing. `terminal` keeps the caller's controlling terminal.
        """
        root = buildroot.ensure(self.pins)
        ccache = cache_dir() / "ccache"
        ccache.mkdir(parents=True, exist_ok=True)
        binds = [Bind(TOOLCHAIN, "/tools"), Bind(ccache, "/ccache", writable=True), *self.binds]
        varied = variation.current(root)
        argv = [*base(root), *varied.user, *varied.mounts, "--die-with-parent"]
        if not terminal:
            argv.append("--new-session")
        for bind in binds:
            argv += ["--bind" if bind.writable else "--ro-bind", str(variation.shuffled_view(bind.source)), bind.target]
        argv.append("--clearenv")
        for name, value in sorted({**ENVIRONMENT, **ccache_environment(root), **self.env, **varied.env}.items()):
            argv += ["--setenv", name, value]
        return [*argv, "--chdir", self.cwd, *command]

    def run(
        self,
        script: str,
        *,
        title: str,
        log: Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Result:
        """Run a shell script (`set -eu`) in the sandbox. Raises `CommandError` with a message that starts with `title`.

        With `log`, the error shows the failed line of the script and the last lines of its output. With NABLA_SHELL and
        a terminal, a shell opens before the error is raised.
        """
        text = textwrap.dedent(script).strip()
        traced = step_script.traced(text) if log is not None else text
        argv = self.argv(["/bin/sh", "-euc", f"umask 022\n{traced}"])
        try:
            return run(argv, log=log, progress=progress)
        except CommandError as error:
            message = f"{title} {describe_status(error.returncode)}"
            hint = error.hint if log is None else self._failure(text, log, error.output)
            failure = CommandError(message, hint, returncode=error.returncode, output=error.output)
            # `doit -n 2` gives its processes no terminal.
            if self.shell_command and os.environ.get("NABLA_SHELL", "0") not in ("", "0") and sys.stdin.isatty():
                print(f"{failure.render()}\nA shell in the sandbox; the build ends when it does.", file=sys.stderr)
                self.shell()
            raise failure from error

    def _failure(self, script: str, log: Path, output: Sequence[str]) -> str:
        """Return the hint about a failed script; omits the long command line of the sandbox."""
        number = step_script.failed_line(output)
        lines = [] if number is None else [f"line {number} of the step: {script.splitlines()[number - 1].strip()}"]
        shown = step_script.without_report(output)
        lines += [f"last lines of {relative(log)}:", *(f"  {line}" for line in shown)] if shown else []
        if self.shell_command:
            lines.append(f"to inspect it: {self.shell_command}")
        return "\n".join(lines)

    def shell(self) -> int:
        """Open an interactive shell in the sandbox on the caller's terminal; return its exit status."""
        term = os.environ.get("TERM", "dumb")
        return interactive(self.argv(["/usr/bin/env", f"TERM={term}", "/bin/bash", "--norc"], terminal=True))


def base(root: Path, user: int = 1000) -> list[str]:
    """Return bubblewrap's options for namespaces, identity and the fixed parts of the file system.

    `user`: id of the caller in the sandbox, where it has no capability; it owns the caller's files there. Raises
    `HostError` if the host does not permit the sandbox.
    """
    varied = variation.current()
    return [*varied.prefix, *_usable(root), "--uid", str(user), "--gid", str(user), *_IDENTITY, *varied.identity]


def ccache_environment(root: Path) -> dict[str, str]:
    """Return ccache's settings: entries belong to one build root, named by the digest of its content."""
    return {
        "CCACHE_DIR": "/ccache",
        "CCACHE_COMPILERCHECK": f"string:{root.name}",
        "CCACHE_MAXSIZE": "4G",
        "CCACHE_UMASK": "022",
    }


def jobs() -> int:
    """Return the number of parallel compilers: `NABLA_JOBS`, else the number of cores available to this process."""
    jobs = os.environ.get("NABLA_JOBS", "")
    if jobs.isdecimal() and int(jobs) > 0:
        return int(jobs)
    return len(os.sched_getaffinity(0))


@cache
def _usable(root: Path) -> tuple[str, ...]:
    """Return the bubblewrap command that this host permits, found by trying."""
    program = shutil.which("bwrap")
    if program is None:
        raise HostError("bubblewrap is missing: every build runs in it", "install the package bubblewrap")
    message = ""
    for proc in _PROC_VARIANTS:
        argv = (program, *_NAMESPACES, "--ro-bind", str(root), "/", "--dev", "/dev", "--tmpfs", "/tmp", *proc)
        result = run([*argv, "--uid", "1000", "--gid", "1000", *_IDENTITY, "/bin/true"], check=False)
        if result.returncode == 0:
            return argv
        reason = result.stderr.strip().splitlines()
        message = message or (reason[-1] if reason else "no reason given")
    raise HostError(f"this host does not permit the build sandbox: {message}", _HINT)
