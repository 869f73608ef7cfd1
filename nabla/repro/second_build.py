# SPDX-License-Identifier: Apache-2.0
"""Build again in an environment that differs as much as possible; nabla.repro.comparison compares the results.

The second build runs in a copy of the checkout: in another path (with a space and a letter outside ASCII), as another
user and with another host name (in namespaces), with another umask, clock, time zone, locale, home and environment, on
other processors, in shuffled folders (nabla.sandbox.variation).

It has its own cache, <cache>/second/<digest of the variations>: it reuses objects, results and packages of earlier
second builds with the same variations, but, in the sample that the tests repeat, none of the first build.
Only verified downloads and the user's keys are shared.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from nabla.core import digest, files, log
from nabla.core.errors import CommandError, NablaError
from nabla.core.paths import ROOT, STATE, cache_dir
from nabla.core.process import run
from nabla.sandbox import bwrap, lockfile, variation
from verify.release.layout import keys_dir

_RECORD = STATE / "second-build"
# .git is copied: it determines the version and the commit of a release.
_NOT_COPIED = ("out", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")
_DISORDERFS = ("disorderfs", "--quiet", "--shuffle-dirents=yes", "--sort-dirents=no")
_MEMORY = Path("/dev/shm")
_NEEDED = 10 << 30  # upper limit for the bytes of a second checkout after a full build
_LEFT_FREE = 6 << 30
_WORKERS = 2  # parallel tasks; the steps of each run on one processor


@dataclass(frozen=True)
class SecondBuild:
    """The copy of the checkout at `root`."""

    root: Path

    @property
    def base(self) -> Path:
        """The folder of all files of this second build."""
        return self.root.parent

    def build(self, tasks: Sequence[str], task_log: Path, *, shuffle: bool = True, sample: bool = False) -> None:
        """Run doit in the copy, offline. Raises `CommandError`.

        `shuffle`: shuffle folders for compilers, too, which is slow. `sample`: reuse the first build's results outside
        of a sample of the cacheable steps.
        """
        cache = own_cache(shuffle)
        _share_downloads(cache)
        mount = shuffled(self.root / "out" / "work", self.base / "shuffled") if shuffle else nullcontext()
        with mount as view:
            environment = self._environment(cache, view)
            if sample:
                environment["NABLA_SAMPLE_OF"] = str(cache_dir())
            run(self._command(tasks), cwd=self.root, env=environment, log=task_log, progress=_report)

    def _command(self, tasks: Sequence[str]) -> list[str]:
        user = str(variation.USER)
        words = ["bwrap", "--unshare-user", "--uid", user, "--gid", user]
        words += ["--unshare-uts", "--hostname", variation.HOSTNAME, "--dev-bind", "/", "/"]
        # ssh-keygen, which signs releases, requires a user name.
        names = self.base / "passwd"
        names.write_text(f"{Path('/etc/passwd').read_text(encoding='utf-8')}someone:x:{user}:{user}::/:/bin/sh\n")
        words += ["--ro-bind", str(names), "/etc/passwd"]
        # umask is a shell built-in.
        words += ["/bin/sh", "-c", 'umask 077; exec "$@"', "sh"]
        return [*words, sys.executable, "-m", "doit", "-n", str(_WORKERS), *tasks]

    def _environment(self, cache: Path, view: Path | None) -> dict[str, str]:
        return {
            variation.VARIABLE: str(view or 1),
            "HOME": str(self.base / "home"),
            "NABLA_CACHE": str(cache),
            "NABLA_JOBS": str(bwrap.jobs() + 1),
            "NABLA_KEYS": str(keys_dir()),
            "NABLA_OFFLINE": "1",
            "NABLA_STORE": "off",
            "PYTHONPATH": os.pathsep.join([str(self.root / "nabla" / "repro" / "site"), str(self.root)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.base / "tmp"),
            **variation.OUTSIDE_ENVIRONMENT,
        }


def prepare() -> SecondBuild:
    """Create a second checkout. Raises `NablaError`, `DiskFullError`."""
    base = Path(tempfile.mkdtemp(prefix="nabla-second-", dir=_parent())).resolve()
    second = SecondBuild(base / "ein anderer Ört")
    with log.step(f"copy the checkout to {second.root}"):
        shutil.copytree(ROOT, second.root, symlinks=True, ignore=_ignored)
        for name in ("home", "tmp"):
            (base / name).mkdir()
    return second


def discard(second: SecondBuild) -> None:
    """Remove a second checkout."""
    _unmount(second.base / "shuffled")
    if second.base.name.startswith("nabla-second-") and second.base.is_dir():
        files.remove(second.base)


def register(second: SecondBuild) -> None:
    """Make `current` return this checkout; remove the previous one."""
    discard_current()
    files.make_folder(STATE)
    _RECORD.write_text(str(second.root))


def current() -> SecondBuild:
    """Return the present second checkout. Raises `NablaError` if there is none."""
    try:
        second = SecondBuild(Path(_RECORD.read_text()))
    except OSError:
        raise NablaError("there is no second checkout", "run `doit repro`") from None
    if not (second.root / "dodo.py").exists():
        raise NablaError(f"the second checkout {second.root} is gone", "run `doit repro`")
    return second


def discard_current() -> None:
    """Remove the present second checkout, if there is one."""
    try:
        second = SecondBuild(Path(_RECORD.read_text()))
    except FileNotFoundError:
        return
    discard(second)
    _RECORD.unlink()


def own_cache(shuffle: bool) -> Path:
    """Return the cache of second builds with the present variations; creates it.

    Its name is the digest of the variations, so that a new variation builds everything again. Caches that are unused
    for a month are removed.
    """
    code = [Path(variation.__file__), ROOT / "nabla" / "repro" / "site" / "sitecustomize.py"]
    variations = [
        shuffle and not _not_shuffled(),
        digest.sha256_file(lockfile.VARY.lock),
        *map(digest.python_digest, code),
    ]
    folder = cache_dir() / "second" / digest.config_digest(variations)[:16]
    files.make_folder(folder)
    os.utime(folder)
    files.remove_unused(folder.parent.iterdir())
    return folder


def empty_cache() -> None:
    """Remove the caches of second builds: the next one compiles everything."""
    files.remove(cache_dir() / "second")


def varied() -> tuple[list[str], list[str]]:
    """Return the properties that a second build varies on this host, and those that it cannot vary, with the reason."""
    able = ["checkout path", "user", "umask", "time zone", "locale", "host name", "environment", "number of jobs"]
    able += ["clock of compilers", "directory order for doit"]
    unable = ["clock of doit (libfaketime deadlocks programs that fork)"]
    if len(os.sched_getaffinity(0)) > 1 and shutil.which("taskset"):
        able.append("processors (one for each step)")
    else:
        unable.append("processors (this host has one, or no taskset)")
    reason = _not_shuffled()
    if reason:
        unable.append(f"directory order for compilers ({reason})")
    else:
        able.append("directory order for compilers")
    return able, unable


@contextmanager
def shuffled(folder: Path, view: Path) -> Iterator[Path | None]:
    """Mount `folder` at `view` with a random order of entries; yields None if this host cannot.

    Only the sandbox uses the view: copying a source through it would take minutes, and it does not preserve hard links.
    """
    if _not_shuffled():
        yield None
        return
    for path in (folder, view):
        files.make_folder(path)
    _unmount(view)
    run([*_DISORDERFS, folder, view])
    try:
        yield view
    finally:
        _unmount(view)


def _report(line: str) -> None:
    """Print the second doit's message about the end of a task: the build takes many minutes."""
    if re.match(r"\S+: (done in|failed) ", line):
        log.info(f"second build: {line.strip()}")


def _parent() -> str | None:
    """Return the parent folder of second checkouts: /dev/shm with sufficient memory, or else the temporary folder.

    /dev/shm is another file system, and removes some hundred thousand files quickly.
    """
    status = os.statvfs(_MEMORY) if os.access(_MEMORY, os.W_OK) else None
    if status is None or os.environ.get("TMPDIR") or status.f_flag & os.ST_NOEXEC:
        return None
    match = re.search(r"^MemAvailable: *(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    available = int(match[1]) << 10 if match else 0
    return str(_MEMORY) if min(available - _LEFT_FREE, status.f_bavail * status.f_frsize) > _NEEDED else None


def _not_shuffled() -> str:
    """Return the reason why this host cannot vary directory order; empty if it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no /dev/fuse"
    if shutil.which("disorderfs") is None or shutil.which("fusermount") is None:
        return "no disorderfs: apt-get install disorderfs"
    return ""


def _unmount(folder: Path) -> None:
    if os.path.ismount(folder):
        # A process of a killed task may still use it: unmount lazily.
        try:
            run(["fusermount", "-u", folder])
        except CommandError:
            run(["fusermount", "-u", "-z", folder])


def _ignored(folder: str, names: list[str]) -> set[str]:
    top = Path(folder) == ROOT
    if Path(folder).is_relative_to(ROOT / ".git"):
        return set()
    return {name for name in names if name in _NOT_COPIED and (top or name.startswith((".", "_")))}


def _share_downloads(cache: Path) -> None:
    """Share the verified downloads with the second build, by hard links if possible; no build writes to them."""
    for path in (cache_dir() / "sha256").glob("??/*"):
        target = cache / path.relative_to(cache_dir())
        if target.exists():
            continue
        files.make_folder(target.parent)
        # Another second build may do the same at this time.
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            os.link(path, partial)
        except OSError:
            shutil.copy(path, partial)
        partial.rename(target)
        # A rename between two links to the same file does nothing.
        partial.unlink(missing_ok=True)
