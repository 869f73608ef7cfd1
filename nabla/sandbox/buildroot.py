# SPDX-License-Identifier: Apache-2.0
"""The locked build root: a small Debian tree which every build runs in, unpacked from exact, committed package pins.

It lies in the user's cache directory under the digest of its content, shared by all checkouts, and is only ever
mounted read-only. It comes into being by one rename after its digest was found to be the one in the lock; each use
looks whether an entry changed since, and a damaged tree is unpacked again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from nabla.core import log, manifest
from nabla.core.errors import ChecksumError, LockError, OfflineError
from nabla.core.paths import cache_dir
from nabla.sandbox import deb, lockfile
from nabla.sources import store
from nabla.sources.apt import Apt, DebFile
from nabla.sources.store import is_offline

_BATCH = 12  # packages for one apt-get: few enough that two run side by side, enough to keep a connection busy
_JUST_MADE = 60.0  # seconds


def directory() -> Path:
    """Return the folder of all unpacked build roots of this user."""
    return cache_dir() / "buildroot"


def root_path(lock: lockfile.Lock) -> Path:
    """Return where the tree of `lock` lies when it is unpacked."""
    return directory() / lock.tree[:32]


def ensure(pins: lockfile.Pins = lockfile.BASE) -> Path:
    """Return a build root's path, after fetching and unpacking what is missing.

    Raises `LockError` (lock and packages.toml disagree; the tree is not the locked one), `FetchError`, `OfflineError`.
    """
    wish, lock = lockfile.current(pins)
    root = root_path(lock)
    if intact(lock):
        return root
    with _exclusive():
        if intact(lock):  # another process was faster
            return root
        if root.exists():
            log.warn(f"the build root {root} was changed or is incomplete; it is unpacked again")
        packages = fetch(lock)
        with log.step(f"unpack the build root ({len(packages)} packages)"):
            _install(wish, lock, packages, root)
    return root


def intact(lock: lockfile.Lock) -> bool:
    """Tell quickly (no content is read) whether the tree of `lock` is there and was not touched."""
    root = root_path(lock)
    try:
        recorded = _index_file(root).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return not manifest.touched(root, recorded)


def verify(pins: lockfile.Pins = lockfile.BASE) -> list[str]:
    """Read the whole tree and return what differs from what was unpacked, by path; empty = sound."""
    _, lock = lockfile.current(pins)
    root = root_path(lock)
    if not root.is_dir():
        raise LockError("the build root is not unpacked", "run `doit toolchain`")
    now = manifest.manifest(root)
    return manifest.differences(_manifest_file(root).read_text(encoding="utf-8"), now)


def resolve(wish: lockfile.Wish) -> lockfile.Lock:
    """Make a new lock for `wish` from the suite's signed lists; unpacks the tree once to learn its digest."""
    with tempfile.TemporaryDirectory(prefix="nabla-apt-") as scratch:
        apt = Apt(Path(scratch), wish.suite)
        apt.update()
        files = tuple(apt.resolve(list(wish.packages)))
    draft = lockfile.Lock(wish.suite, wish.digest, "0" * 64, files)
    with _exclusive(), log.step(f"fetch and unpack {len(files)} packages"):
        packages = fetch(draft)
        made = _unpack(wish, packages)
        lock = lockfile.Lock(wish.suite, wish.digest, manifest.digest(made), files)
        if intact(lock):
            shutil.rmtree(made)  # a sound tree may be in use
        else:
            _publish(made, root_path(lock))
    return lock


def fetch(lock: lockfile.Lock) -> list[Path]:
    """Return the package files of `lock` in its order, each checked; missing ones are downloaded into the cache."""
    missing = [file for file in lock.files if not _cached(file)]
    if missing:
        if is_offline():
            raise OfflineError(
                f"packages of the build root missing in the cache: {len(missing)}, first {missing[0].name}",
                "run once without --offline",
            )
        _download(lock.suite, missing)
    return [store.cache().path(file.sha256) for file in lock.files]


def _download(suite: str, missing: Sequence[DebFile]) -> None:
    total = sum(file.size for file in missing)
    batches = [missing[i : i + _BATCH] for i in range(0, len(missing), _BATCH)]
    with _downloads() as scratch:
        apt = Apt(scratch, suite)
        apt.update()
        with (
            tqdm(total=total, unit="B", unit_scale=True, desc="build root", disable=None) as bar,
            ThreadPoolExecutor(4) as pool,
        ):
            for _ in pool.map(lambda batch: _download_batch(apt, batch, bar), batches):
                pass


def _download_batch(apt: Apt, batch: Sequence[DebFile], bar: tqdm[NoReturn]) -> None:
    with tempfile.TemporaryDirectory(dir=apt.directory) as scratch:
        into = Path(scratch)
        apt.download(batch, into)
        arrived = {manifest.file_sha256(path): path for path in into.iterdir()}
        for file in batch:
            path = arrived.get(file.sha256)
            if path is None:
                raise ChecksumError(
                    f"package {file.name} {file.version}: the archive delivered another file than the locked one",
                    "if Debian replaced it, run `doit lock:update` and look at the change",
                )
            store.cache().add(path, file.sha256)
            bar.update(file.size)


def _cached(file: DebFile) -> bool:
    path = store.cache().path(file.sha256)
    if not path.is_file():
        return False
    if path.stat().st_size == file.size and manifest.file_sha256(path) == file.sha256:
        return True
    if is_offline():
        store.cache().get(file.sha256, file.size)  # raises the error about it
    aside = store.cache().set_aside(file.sha256)
    log.warn(f"the cached file of package {file.name} is damaged; it is now {aside} and is fetched again")
    return False


def _install(wish: lockfile.Wish, lock: lockfile.Lock, packages: Sequence[Path], root: Path) -> None:
    made = _unpack(wish, packages)
    found = manifest.digest(made)
    if found != lock.tree:
        shutil.rmtree(made)
        raise LockError(
            f"the packages unpack to tree {found[:16]}…, the lock says {lock.tree[:16]}…",
            "the unpacker or the list of packages changed: run `doit lock:update`",
        )
    _publish(made, root)


def _unpack(wish: lockfile.Wish, packages: Sequence[Path]) -> Path:
    """Unpack all packages into a new temporary directory and return it."""
    directory().mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="new-", dir=directory()))
    try:
        for name in deb.MERGED:
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
        owner: dict[str, Path] = {}
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for package, paths in zip(packages, pool.map(deb.unpack, packages, [root] * len(packages)), strict=True):
                for path in paths:
                    # Then the tree would depend on which of them came last.
                    if path in owner:
                        raise LockError(f"two packages hold {path}: {owner[path].name[:12]} and {package.name[:12]}")
                    owner[path] = package
        _complete(wish, root)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return root


def _complete(wish: lockfile.Wish, root: Path) -> None:
    """Add what maintainer scripts would have made, and give directories and links a fixed mode and time."""
    for path in wish.directories:
        (root / path).mkdir(parents=True, exist_ok=True)
    for path, target in wish.links.items():
        (root / path).symlink_to(target)
    for path, text in wish.files.items():
        (root / path).write_text(text, encoding="utf-8")
        (root / path).chmod(0o644)
        os.utime(root / path, (0, 0))
    root.chmod(0o755)
    for parent, names, files in os.walk(root, topdown=False):
        for name in [*names, *files]:
            path = os.path.join(parent, name)
            if os.path.islink(path):
                os.utime(path, (0, 0), follow_symlinks=False)
            elif os.path.isdir(path):
                os.chmod(path, 0o755)
                os.utime(path, (0, 0))


def _publish(made: Path, root: Path) -> None:
    """Give a finished tree its name; an older tree of that name, being damaged, is removed first."""
    _index_file(root).unlink(missing_ok=True)  # from here on the old tree no longer counts as sound
    if root.exists():
        doomed = Path(tempfile.mkdtemp(prefix="old-", dir=directory()))
        root.rename(doomed / "root")
        shutil.rmtree(doomed)
    _manifest_file(root).write_text(manifest.manifest(made), encoding="utf-8")
    recorded = manifest.index(made)
    made.rename(root)
    partial = _index_file(root).with_suffix(".new")
    partial.write_text(recorded, encoding="utf-8")
    partial.rename(_index_file(root))


def _index_file(root: Path) -> Path:
    return root.with_name(f"{root.name}.index")


def _manifest_file(root: Path) -> Path:
    return root.with_name(f"{root.name}.manifest")


@contextmanager
def _exclusive() -> Iterator[None]:
    """Let one process at a time unpack, and remove what a killed one left behind."""
    directory().mkdir(parents=True, exist_ok=True)
    with (directory() / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        for pattern in ("new-*", "old-*"):
            for leftover in directory().glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
        for folder in directory().glob("fetch-*"):
            if _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)
        yield


@contextmanager
def _downloads() -> Iterator[Path]:
    """A folder for downloads, which go on while others unpack; in the cache's own file system: entering is a rename."""
    directory().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=directory()) as scratch, _held(Path(scratch)):
        yield Path(scratch)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder; raises BlockingIOError where somebody has it, FileNotFoundError where it is gone."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _is_left(folder: Path) -> bool:
    """Tell whether nobody downloads into a folder any more. One just made may not be held yet."""
    with suppress(BlockingIOError, FileNotFoundError), _held(folder):
        return time.time() - folder.stat().st_mtime > _JUST_MADE
    return False
