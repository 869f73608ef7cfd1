# SPDX-License-Identifier: Apache-2.0
"""Check the host for the requirements of builds and VMs, and for properties that make them slow.

Each check is a small function that tests the running system; where it can try a feature, it does not rely on version
numbers.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nabla.core import log
from nabla.core.errors import CommandError, HostError
from nabla.core.paths import ROOT
from nabla.core.process import run
from nabla.sources import apt
from nabla.sources.openpgp import GPGV

_AT_HWCAP2 = 26
_HWCAP2_FSGSBASE = 1 << 1  # arch/x86/include/uapi/asm/hwcap2.h
_SHM_WANTED = 64 << 20
_BUILD_SPACE = 8 << 30
_ST_NOEXEC = 8


class Level(enum.Enum):
    """The severity of a finding."""

    GOOD = "ok"
    UNUSUAL = "unusual"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check. `hint`: the remedy."""

    name: str
    level: Level
    text: str
    hint: str = ""


def examine() -> list[Finding]:
    """Run all checks; they do not raise exceptions."""
    return [check() for check in _CHECKS]


def machine() -> Finding:
    """The guest kernel needs Linux on x86-64."""
    text = f"{platform.system()} {platform.release()} on {platform.machine()}, Python {platform.python_version()}"
    good = platform.system() == "Linux" and platform.machine() == "x86_64"
    return Finding("machine", Level.GOOD if good else Level.MISSING, text, "use Linux on x86-64")


def seccomp() -> Finding:
    """The seccomp filter traps the guest's raw system calls and kills a VM that makes a forbidden call."""
    try:
        actions = set(Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split())
    except OSError:
        return Finding("seccomp", Level.MISSING, "not in this kernel", "use a kernel with CONFIG_SECCOMP_FILTER")
    lacking = {"trap", "kill_process", "allow"} - actions
    if lacking:
        return Finding("seccomp", Level.MISSING, f"lacks {', '.join(sorted(lacking))}", "use Linux 4.14 or later")
    return Finding("seccomp", Level.GOOD, "filters with trap and kill_process")


def fsgsbase() -> Finding:
    """A switch of guest threads writes the FS register, by an instruction if the host permits it."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype = ctypes.c_ulong
    getauxval.argtypes = [ctypes.c_ulong]
    if getauxval(_AT_HWCAP2) & _HWCAP2_FSGSBASE:
        return Finding("fsgsbase", Level.GOOD, "user programs may write the FS register")
    return Finding(
        "fsgsbase",
        Level.UNUSUAL,
        "not available: each switch of guest threads costs a host system call",
        "use Linux 5.9 or later on a processor since Ivy Bridge or Zen, without nofsgsbase",
    )


def shared_memory() -> Finding:
    """Some test programs and tools use the host's shared memory."""
    try:
        info = os.statvfs("/dev/shm")
    except OSError as error:
        return Finding("/dev/shm", Level.UNUSUAL, str(error), "mount a tmpfs on /dev/shm")
    free = info.f_bavail * info.f_frsize
    text = f"{free >> 20} MiB free" + (", no programs can run from it" if info.f_flag & _ST_NOEXEC else "")
    if free < _SHM_WANTED:
        return Finding("/dev/shm", Level.UNUSUAL, text, "give it at least 64 MiB: mount -o remount,size=64M /dev/shm")
    return Finding("/dev/shm", Level.GOOD, text)


def temporary_folder() -> Finding:
    """Tests compile programs and run them from the temporary folder."""
    folder = tempfile.gettempdir()
    with tempfile.NamedTemporaryFile("w", suffix=".sh", delete=False) as stream:
        stream.write("#!/bin/sh\nexit 0\n")
    path = Path(stream.name)
    try:
        path.chmod(0o700)
        run([path])
    except (CommandError, HostError, OSError):
        hint = "set TMPDIR to a folder on a file system without noexec"
        return Finding("temporary folder", Level.UNUSUAL, f"{folder}: programs cannot run from it", hint)
    finally:
        path.unlink()
    return Finding("temporary folder", Level.GOOD, f"{folder}: programs can run from it")


def sandbox() -> Finding:
    """Builds run in bubblewrap, which needs user namespaces unless it is called by root."""
    if shutil.which("bwrap") is None:
        return Finding("sandbox", Level.MISSING, "bubblewrap is not installed", "apt-get install bubblewrap")
    argv = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"]
    result = run(argv, check=False)
    if result.returncode == 0:
        return Finding("sandbox", Level.GOOD, "bubblewrap works, with its own users, processes and network")
    return Finding("sandbox", Level.MISSING, f"bubblewrap fails: {result.stderr.strip()}", _namespace_hint())


def _namespace_hint() -> str:
    for knob, wrong in (
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("user/max_user_namespaces", "0"),
    ):
        path = Path("/proc/sys") / knob
        if path.exists() and path.read_text().strip() == wrong:
            value = {"0": "10000" if "max" in knob else "1", "1": "0"}[wrong]
            return f"user namespaces are forbidden; allow them: sysctl -w {knob.replace('/', '.')}={value}"
    return "in a container, start it with user namespaces and an unmasked /proc, or run as root"


def tun() -> Finding:
    """A network device for the guest, needed only for a connection to the outside."""
    path = Path("/dev/net/tun")
    if not path.exists():
        return Finding("tun", Level.UNUSUAL, "no /dev/net/tun: no network device for the guest", "modprobe tun")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, str(error))
        hint = "ask for access to the device; the guest's own loopback works without it"
        return Finding("tun", Level.UNUSUAL, f"/dev/net/tun cannot be opened ({reason})", hint)
    return Finding("tun", Level.GOOD, "/dev/net/tun can be opened")


def passt() -> Finding:
    """passt provides the guest's network to users without privileges: `nabla-run --net user`, published ports."""
    if shutil.which("passt") is None:
        return Finding("passt", Level.UNUSUAL, "not installed: no --net user, no --publish", "apt-get install passt")
    try:
        version = run(["passt", "--version"]).stdout.partition("\n")[0]
    except (CommandError, HostError) as error:
        return Finding(
            "passt", Level.UNUSUAL, f"passt does not run: {error.message}", "apt-get install --reinstall passt"
        )
    return Finding("passt", Level.GOOD, version or "installed")


def debian_archive() -> Finding:
    """Compilers and some sources come from Debian's archive through the host's apt."""
    try:
        return Finding("Debian archive", Level.GOOD, f"apt fetches from {apt.mirror()}")
    except HostError as error:
        return Finding("Debian archive", Level.MISSING, error.message, error.hint)


def gpgv() -> Finding:
    """gpgv verifies the signatures of upstream's sources."""
    if shutil.which(GPGV) is None:
        return Finding("gpgv", Level.MISSING, "not installed", "apt-get install gpgv")
    return Finding("gpgv", Level.GOOD, run([GPGV, "--version"]).stdout.splitlines()[0])


def space() -> Finding:
    """A full build with all work folders needs some gigabytes."""
    free = shutil.disk_usage(ROOT).free
    level = Level.GOOD if free >= _BUILD_SPACE else Level.UNUSUAL
    hint = f"a full build takes up to {_BUILD_SPACE >> 30} GiB in out/ and the cache"
    return Finding("space", level, f"{free >> 30} GiB free", hint)


def report() -> None:
    """Print one line for each check. Raises `HostError` if a requirement is missing."""
    findings = examine()
    for finding in findings:
        log.info(f"{finding.level.value:9} {finding.name}: {finding.text}")
        if finding.hint and finding.level is not Level.GOOD:
            log.info(f"          {finding.hint}")
    missing = [finding.name for finding in findings if finding.level is Level.MISSING]
    if missing:
        raise HostError(f"this host lacks: {', '.join(missing)}", "the lines above list the remedies")


_CHECKS: tuple[Callable[[], Finding], ...] = (
    machine, seccomp, fsgsbase, shared_memory, temporary_folder, sandbox, tun, passt, debian_archive, gpgv, space,
)  # fmt: skip
