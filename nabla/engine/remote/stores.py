# SPDX-License-Identifier: Apache-2.0
"""Download results and files from the stores, and upload results to the writable ones.

Any wrong answer of a store leads to a warning and a local build at worst: nabla.engine.remote.record checks every
entry, and size and digest of every blob are compared, before their content is used.
"""

from __future__ import annotations

import functools
import getpass
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nabla.core import files, log, manifest
from nabla.core.errors import NablaError
from nabla.core.paths import cache_dir
from nabla.engine.remote import bundle, keys, record, settings
from nabla.engine.remote.record import EntryError, NoSignersError, Output, Signed
from nabla.engine.remote.settings import Settings, StoreSettings
from nabla.engine.remote.transport import StoreError, Transport, UnreachableError, open_store

MAX_FILE = 4 << 30  # bytes of a file whose size is not known in advance


@dataclass(frozen=True)
class Taken:
    """A result from a store."""

    signed: Signed
    store: str


def take(key: str, folder: Path) -> Taken | None:
    """Write the outputs of a key into a new folder, from the first store with a valid entry; None without one.

    Raises `DiskFullError`, `ConfigError`.
    """
    current = settings.load()
    for store in _open(current):
        signed = look_up(store, key, current)
        if signed is None:
            continue
        files.remove(folder)
        files.make_folder(folder)
        try:
            _obtain(signed.record.outputs, folder, [store, *(each for each in _open(current) if each is not store)])
        except (EntryError, StoreError) as error:
            _warn(store, error, f"{key[:12]}… ({record.printable(signed.record.title)}): ")
            continue
        return Taken(signed, store.settings.url)
    return None


def look_up_first(key: str) -> Signed | None:
    """Return the valid record of a key in the first store that has one."""
    current = settings.load()
    return next(filter(None, (look_up(store, key, current) for store in _open(current))), None)


def look_up(store: Transport, key: str, current: Settings) -> Signed | None:
    """Return the valid record of a key in one store; warns about any other answer except "absent"."""
    with files.scratch(cache_dir() / "tmp") as scratch:
        try:
            if not store.fetch(f"ac/{key}", scratch / "entry", record.MAX_ENTRY, f"entry {key[:12]}"):
                return None
            return record.unseal((scratch / "entry").read_bytes(), key, current)
        except (StoreError, NoSignersError) as error:
            _warn(store, error)
        except EntryError as error:
            _warn(store, error, f"{key[:12]}…: ")
    return None


def obtain_file(sha256: str, size: int | None, target: Path, title: str) -> bool:
    """Write a file with this digest to `target`, from the first store that has it; return False if none does."""
    for store in _open(settings.load()):
        try:
            if _fetch_blob(store, sha256, MAX_FILE if size is None else size, target, title, exact=size is not None):
                return True
        except (StoreError, EntryError) as error:
            _warn(store, error, f"{title}: ")
    return False


def give(key: str, title: str, sources: Mapping[str, Path]) -> int:
    """Upload a result to every writable store that lacks a valid entry; return the number of these stores.

    Raises `StoreError` for a store that fails, `SigningError`.
    """
    current = settings.load()
    _allow_own_key(current)
    targets = [each for each in _open(current) if each.settings.push and _lacks(each, key, current)]
    if not targets:
        return 0
    with files.scratch(cache_dir() / "tmp") as scratch:
        outputs = {name: bundle.pack(source, scratch / name) for name, source in sources.items()}
        entry = scratch / ".entry"
        entry.write_bytes(record.seal(key, title, outputs, current.key or keys.ensure_key()[0]))
        for store in targets:
            for name, output in outputs.items():
                if not store.has(f"cas/{output.blob}"):
                    store.send(f"cas/{output.blob}", scratch / name, title)
            # Last, so that an entry never names an absent blob.
            store.send(f"ac/{key}", entry, title)
    return len(targets)


def give_output(source: Path, title: str) -> Output:
    """Upload a file or folder to the first writable store, without an entry; return its description.

    Raises `StoreError`, `EntryError`.
    """
    store = next(iter(writable()), None)
    if store is None:
        raise EntryError("no store is writable")
    with files.scratch(cache_dir() / "tmp") as scratch:
        output = bundle.pack(source, scratch / "blob")
        if not store.has(f"cas/{output.blob}"):
            store.send(f"cas/{output.blob}", scratch / "blob", title)
    return output


def take_output(output: Output, target: Path) -> None:
    """Download an output that `give_output` uploaded to a new path. Raises `StoreError`, `EntryError`."""
    with files.scratch(cache_dir() / "tmp") as scratch:
        _obtain_blob(output, scratch / "blob", all_stores())
        bundle.unpack(scratch / "blob", output, target)


def offer(key: str, title: str, sources: Mapping[str, Path]) -> None:
    """Like `give`, but after a build: a failing store only causes a warning."""
    try:
        give(key, title, sources)
    except UnreachableError:
        return  # reported when it was found
    except (StoreError, EntryError, NablaError) as error:
        log.warn(f"{record.printable(title)} is not uploaded to the store: {error}")


def writable() -> list[Transport]:
    """Return the writable stores."""
    return [each for each in _open(settings.load()) if each.settings.push]


def all_stores() -> list[Transport]:
    """Return all stores in reading order."""
    return list(_open(settings.load()))


def _allow_own_key(current: Settings) -> None:
    """Write the default file of allowed signers with the user's key; keep an existing or configured file."""
    if current.allowed_signers != settings.default_signers() or current.allowed_signers.exists():
        return
    public = keys.ensure_key()[1].read_text(encoding="ascii")
    with _signers_lock:
        if not current.allowed_signers.exists():
            files.write(current.allowed_signers, f'{getpass.getuser()} namespaces="{record.NAMESPACE}" {public}')
            log.info(f"{current.allowed_signers}: your own key may sign results for you")


def _lacks(store: Transport, key: str, current: Settings) -> bool:
    if not store.has(f"ac/{key}"):
        return True
    signed = look_up(store, key, current)
    return signed is None or not all(store.has(f"cas/{each.blob}") for each in signed.record.outputs.values())


def _obtain(outputs: Mapping[str, Output], folder: Path, stores: Sequence[Transport]) -> None:
    def one(name: str) -> None:
        with files.scratch(cache_dir() / "tmp") as scratch:
            _obtain_blob(outputs[name], scratch / "blob", stores)
            bundle.unpack(scratch / "blob", outputs[name], folder / name)

    with ThreadPoolExecutor(settings.load().parallel) as pool:
        list(pool.map(one, outputs))


def _obtain_blob(output: Output, target: Path, stores: Sequence[Transport]) -> None:
    """Write a blob to `target` from any of the stores, verified by its digest. Raises the first store's error."""
    problem: Exception | None = None
    for store in stores:
        try:
            if _fetch_blob(store, output.blob, output.size, target, f"blob {output.blob[:12]}", exact=True):
                return
            problem = problem or EntryError(f"the store has no blob {output.blob[:12]}…")
        except (StoreError, EntryError) as error:
            problem = problem or error
    raise problem or EntryError("there is no store")


def _fetch_blob(store: Transport, sha256: str, limit: int, target: Path, title: str, *, exact: bool) -> bool:
    """Fetch into a file named by the digest, where an interrupted transfer continues, then move it to `target`."""
    part = cache_dir() / "partial" / f"{sha256}.blob"
    with files.lock(
        cache_dir() / "locks" / f"{sha256}.blob", f"waiting for another process that fetches {sha256[:12]}"
    ):
        files.make_folder(part.parent)
        while True:
            resumed = part.exists()
            if not store.fetch(f"cas/{sha256}", part, limit, title):
                return False
            size = part.stat().st_size
            if exact and size < limit:
                raise EntryError(f"the blob {sha256[:12]}… ends after {size} of {limit} bytes")
            if manifest.file_sha256(part) == sha256:
                files.move(part, target)
                return True
            part.unlink()
            # The beginning may have come from another store.
            if not resumed:
                raise EntryError(f"the content of the blob {sha256[:12]}… does not match its name")


def _open(current: Settings) -> tuple[Transport, ...]:
    return _opened(current.stores)


@functools.lru_cache(maxsize=8)
def _opened(stores: tuple[StoreSettings, ...]) -> tuple[Transport, ...]:
    return tuple(open_store(each) for each in stores)


_signers_lock = threading.Lock()
_warned: set[str] = set()


def _warn(store: Transport, error: Exception, what: str = "") -> None:
    line = f"the store {store.settings.url}: {what}{error}"
    # An unreachable store is reported once, not for each step.
    if not isinstance(error, UnreachableError) and line not in _warned:
        _warned.add(line)
        log.warn(line)
