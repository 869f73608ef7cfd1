# SPDX-License-Identifier: Apache-2.0
"""The locked build root: a small Debian tree in which every build runs, unpacked from pinned packages.

The tree is in the user's cache, named by the digest of its content, shared by all checkouts, and mounted read-only. It
appears by one rename after its digest was compared with the lock. Each use checks whether an entry has changed since;
a damaged tree is unpacked again.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from nabla.core import files, log, manifest
from nabla.core.errors import ChecksumError, LockError, OfflineError
from nabla.core.paths import cache_dir
from nabla.core.progress import Bar
from nabla.engine.remote import settings
from nabla.sandbox import deb, lockfile
from nabla.sources import store
from nabla.sources.apt import Apt, DebFile
from nabla.sources.store import is_offline

_BATCH = 12  # packages for each apt-get: several run in parallel, and each keeps its connection busy
_NEW = 60.0  # seconds in which the creator of a folder locks it


def directory() -> Path:
    """Return the folder of the user's unpacked build roots."""
    return cache_dir() / "buildroot"


def root_path(lock: lockfile.Lock) -> Path:
    """Return the path of the unpacked tree of `lock`."""
    return directory() / lock.tree[:32]


def ensure(pins: lockfile.Pins = lockfile.BASE) -> Path:
    """Fetch and unpack a build root if it is missing; return its path.

    Raises `LockError` if the lock is stale or the tree differs from the locked one, `FetchError`, `OfflineError`.
    """
    requirements, lock = lockfile.current(pins)
    root = root_path(lock)
    if intact(lock):
        return root
    with _exclusive():
        if intact(lock):  # another process has unpacked it
            return root
        if root.exists():
            log.warn(f"the build root {root} was changed or is incomplete; it is unpacked again")
        packages = fetch(lock)
        with log.step(f"unpack the build root ({len(packages)} packages)"):
            _install(requirements, lock, packages, root)
    return root


def intact(lock: lockfile.Lock) -> bool:
    """Return whether the tree of `lock` exists with unchanged entries. Reads no content, hence fast."""
    root = root_path(lock)
    try:
        recorded = _index_file(root).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return not manifest.touched(root, recorded)


def verify(pins: lockfile.Pins = lockfile.BASE) -> list[str]:
    """Read the whole tree; return the paths that differ from the unpacked ones."""
    _, lock = lockfile.current(pins)
    root = root_path(lock)
    if not root.is_dir():
        raise LockError("the build root is not unpacked", "run `doit toolchain`")
    now = manifest.manifest(root)
    return manifest.differences(_manifest_file(root).read_text(encoding="utf-8"), now)


def resolve(requirements: lockfile.Requirements) -> lockfile.Lock:
    """Resolve requirements by the suite's signed lists; unpacks the tree to determine its digest."""
    with tempfile.TemporaryDirectory(prefix="nabla-apt-") as scratch:
        apt = Apt(Path(scratch), requirements.suite)
        apt.update()
        resolved = tuple(apt.resolve(list(requirements.packages)))
    draft = lockfile.Lock(requirements.suite, requirements.digest, "0" * 64, resolved)
    with _exclusive(), log.step(f"fetch and unpack {len(resolved)} packages"):
        tree = _unpack(requirements, fetch(draft))
        lock = dataclasses.replace(draft, tree=manifest.digest(tree))
        if intact(lock):
            shutil.rmtree(tree)  # an intact tree may be in use
        else:
            _publish(tree, root_path(lock))
    return lock


def take_from_stores(lock: lockfile.Lock) -> list[DebFile]:
    """Add missing package files of `lock` to the cache, as far as stores have them; return those still missing."""
    missing = [file for file in lock.files if not _cached(file)]
    if not missing or not settings.load().stores:
        return missing
    with ThreadPoolExecutor(settings.load().parallel) as pool:
        return [file for file, taken in zip(missing, pool.map(_from_stores, missing), strict=True) if not taken]


def fetch(lock: lockfile.Lock) -> list[Path]:
    """Return the verified package files of `lock` in its order; adds missing ones to the cache.

    They come from the stores, which are mirrors of Debian's archive, or else from the archive.
    """
    missing = take_from_stores(lock)
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
        with Bar("build root", total) as bar, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda batch: _download_batch(apt, batch, bar), batches))


def _download_batch(apt: Apt, batch: Sequence[DebFile], bar: Bar) -> None:
    with tempfile.TemporaryDirectory(dir=apt.directory) as scratch:
        into = Path(scratch)
        apt.download(batch, into)
        arrived = {manifest.file_sha256(path): path for path in into.iterdir()}
        for file in batch:
            path = arrived.get(file.sha256)
            if path is None:
                raise ChecksumError(
                    f"package {file.name} {file.version}: the archive delivered a file that is not the locked one",
                    "if Debian replaced it, run `doit lock:update` and review the change",
                )
            store.cache().add(path, file.sha256)
            bar.advance(file.size)


def _from_stores(file: DebFile) -> bool:
    # Imported when needed: most runs use no store.
    from nabla.engine.remote import stores

    with store.cache().scratch() as folder:
        if not stores.obtain_file(file.sha256, file.size, folder / "file", f"{file.name} {file.version}"):
            return False
        store.cache().add(folder / "file", file.sha256)
    return True


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


def _install(requirements: lockfile.Requirements, lock: lockfile.Lock, packages: Sequence[Path], root: Path) -> None:
    tree = _unpack(requirements, packages)
    digest = manifest.digest(tree)
    if digest != lock.tree:
        shutil.rmtree(tree)
        raise LockError(
            f"the packages unpack to tree {digest[:16]}…, the lock says {lock.tree[:16]}…",
            "the unpacker or the list of packages changed: run `doit lock:update`",
        )
    _publish(tree, root)


def _unpack(requirements: lockfile.Requirements, packages: Sequence[Path]) -> Path:
    """Unpack all packages into a new temporary directory; return it."""
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
                    # Otherwise the tree would depend on the order of packages.
                    if path in owner:
                        raise LockError(f"two packages hold {path}: {owner[path].name[:12]} and {package.name[:12]}")
                    owner[path] = package
        _complete(requirements, root)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return root


def _complete(requirements: lockfile.Requirements, root: Path) -> None:
    """Add the files that maintainer scripts would create; set the modes and times of directories and links."""
    for path in requirements.directories:
        (root / path).mkdir(parents=True, exist_ok=True)
    for path, target in requirements.links.items():
        (root / path).symlink_to(target)
    for path, text in requirements.files.items():
        (root / path).write_text(text, encoding="utf-8")
        (root / path).chmod(0o644)
        os.utime(root / path, (0, 0))
    root.chmod(0o755)
    for parent, folders, others in os.walk(root, topdown=False):
        for name in [*folders, *others]:
            path = os.path.join(parent, name)
            if os.path.islink(path):
                os.utime(path, (0, 0), follow_symlinks=False)
            elif os.path.isdir(path):
                os.chmod(path, 0o755)
                os.utime(path, (0, 0))


def _publish(tree: Path, root: Path) -> None:
    """Rename a complete tree to its final name; replaces a damaged tree of that name."""
    _index_file(root).unlink(missing_ok=True)  # invalidates the old tree
    if root.exists():
        old = Path(tempfile.mkdtemp(prefix="old-", dir=directory()))
        root.rename(old / "root")
        shutil.rmtree(old)
    files.write(_manifest_file(root), manifest.manifest(tree))
    index = manifest.index(tree)
    tree.rename(root)
    files.write(_index_file(root), index)


def _index_file(root: Path) -> Path:
    return root.with_name(f"{root.name}.index")


def _manifest_file(root: Path) -> Path:
    return root.with_name(f"{root.name}.manifest")


@contextmanager
def _exclusive() -> Iterator[None]:
    """Let one process at a time unpack; remove the remains of killed ones."""
    with files.lock(directory() / "lock", "waiting for another process that unpacks a build root"):
        for pattern in ("new-*", "old-*"):
            for leftover in directory().glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
        for folder in directory().glob("fetch-*"):
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
        yield


@contextmanager
def _downloads() -> Iterator[Path]:
    """A folder for downloads, which continue while others unpack. A rename moves its files into the cache."""
    directory().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=directory()) as scratch, _locked(Path(scratch)):
        yield Path(scratch)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder. Raises BlockingIOError if another process holds the lock, FileNotFoundError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _is_abandoned(folder: Path) -> bool:
    """Return whether no process downloads into a folder. Its creator may not have locked a new one yet."""
    with suppress(BlockingIOError, FileNotFoundError), _locked(folder):
        return time.time() - folder.stat().st_mtime > _NEW
    return False
