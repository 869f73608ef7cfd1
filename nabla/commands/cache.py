# SPDX-License-Identifier: Apache-2.0
"""The commands for stores: push, pull, stat, gc (docs/store.md); the fifth is in nabla.commands.challenge."""

from __future__ import annotations

import fnmatch
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from nabla.commands import cache_keys
from nabla.core import files, log, manifest
from nabla.core.errors import ConfigError, FetchError
from nabla.core.paths import cache_dir
from nabla.engine import result_cache
from nabla.engine.remote import action_result, settings, stores
from nabla.engine.remote.record import EntryError
from nabla.engine.remote.transport import Folder, StoreError
from nabla.sources.store import cache

_DAY = 86400.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Entry:
    """A result in this host's cache."""

    key: str
    folder: Path
    title: str
    origin: dict[str, Any]


def entries() -> Iterator[Entry]:
    """Yield the results in this host's cache; their content is not checked."""
    for folder in sorted((cache_dir() / "results").glob("??/*")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            read = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            yield Entry(folder.name, folder, str(read["title"]), dict(read.get("origin", {})))


def push(words: list[str], days: int, current: bool, without_files: bool) -> None:
    """Upload results that were built here, and pinned files, to the writable stores. Raises `FetchError`."""
    if not stores.writable():
        raise ConfigError("no store is writable", "set `push = true` for one in store.toml (docs/store.md)")
    newest = time.time() - days * _DAY
    pinned = {each.sha256: each for each in cache_keys.pinned_files()}
    keys = cache_keys.keys() if current else set()
    chosen = [
        each
        for each in entries()
        # Only the builder signs a result.
        if not each.origin
        # The title of a result that was read from a pinned file starts with that file's digest.
        and (not current or each.key in keys or each.title.partition(":")[0] in pinned)
        and each.folder.stat().st_mtime >= newest
        and (not words or any(fnmatch.fnmatch(each.title, word) for word in words))
    ]
    given = sum(_parallel("results", chosen, _push_one))
    log.info(f"{given} of {len(chosen)} results were new to a store")
    if not without_files and not words:
        sent = sum(_parallel("files", pinned.values(), _push_file))
        log.info(f"{sent} of {len(pinned)} pinned files were new to a store")


def pull() -> None:
    """Download pinned files, and the results whose inputs are known, from the stores to the cache."""
    if not stores.all_stores():
        raise ConfigError("there is no store", "name one in store.toml (docs/store.md)")
    pinned = {each.sha256: each for each in cache_keys.pinned_files()}
    missing = [each for each in pinned.values() if not cache().path(each.sha256).exists()]
    taken = sum(_parallel("files", missing, _pull_file))
    log.info(f"{taken} of {len(missing)} missing files were in a store")
    absent = [each for each in cache_keys.results() if result_cache.find_local(each.key) is None]
    restored = sum(_parallel("results", absent, lambda each: result_cache.find(each.key) is not None))
    log.info(
        f"{restored} of {len(absent)} missing results were in a store; a build downloads the others when it needs them"
    )


def stat() -> None:
    """Print the contents of the cache and of the stores."""
    local = list(entries())
    size = sum(_bytes_below(each.folder) for each in local)
    print(f"cache {cache_dir()}: {len(local)} results, {size / 1e6:.0f} MB")
    for (url, signer), number in sorted(Counter(_origin(each) for each in local).items()):
        print(f"  {number} {f'from {url}, signed by {signer}' if url else 'built here'}")
    current = settings.load()
    print(f"allowed signers: {current.allowed_signers}{'' if current.allowed_signers.is_file() else ' (absent)'}")
    wanted = [f"ac/{each.key}" for each in cache_keys.results()] if stores.all_stores() else []
    for store in stores.all_stores():
        mode = "read and write" if store.settings.push else "read"
        try:
            number = sum(_parallel(store.settings.url, wanted, store.has))
        except StoreError as error:
            print(f"store {store.settings.url} ({mode}): {error}")
            continue
        print(f"store {store.settings.url} ({mode}): {number} of {len(wanted)} results of this checkout")


def gc(days: int) -> None:
    """Remove entries that were not used for a number of days from the cache, and from writable stores in folders."""
    oldest = time.time() - days * _DAY
    unused = [each.folder for each in entries() if each.folder.stat().st_mtime < oldest]
    partial = [each for each in (cache_dir() / "partial").glob("*") if each.stat().st_mtime < oldest]
    _remove("the cache", [*unused, *partial])
    pinned = {each.sha256 for each in cache_keys.pinned_files()}
    for store in stores.writable():
        if isinstance(store, Folder):
            _collect(store, oldest, pinned)
        else:
            log.info(f"{store.settings.url}: a server cannot list its files; run gc on its folder")


def _collect(store: Folder, oldest: float, pinned: set[str]) -> None:
    used, old = set(pinned), []
    for path in (store.root / "ac").glob("*"):
        if path.stat().st_mtime < oldest:
            old.append(path)
            continue
        with suppress(action_result.MalformedError, ValueError, KeyError, TypeError, AttributeError):
            # Not verified: a blob that only an invalid entry names stays, which does no harm.
            text, _ = action_result.decode(path.read_bytes())
            used |= {output["blob"] for output in json.loads(text)["outputs"].values()}
    # A push sends the entry last, so a new blob may have no entry yet.
    old += [p for p in (store.root / "cas").glob("*") if p.name not in used and p.stat().st_mtime < oldest]
    _remove(store.settings.url, old)


def _remove(where: str, paths: Iterable[Path]) -> None:
    number, size = 0, 0
    for path in paths:
        size += _bytes_below(path)
        number += 1
        files.remove(path)
    log.info(f"{where}: {number} removed, {size / 1e6:.0f} MB")


def _push_one(each: Entry) -> bool:
    folder = result_cache.find_local(each.key)
    if folder is None:
        return False
    names = [path.name for path in folder.iterdir() if path.name != "manifest.json"]
    try:
        return stores.give(each.key, each.title, {name: folder / name for name in sorted(names)}) > 0
    except EntryError as error:
        log.info(f"{each.title} cannot be in a store: {error}")
        return False
    except StoreError as error:
        raise FetchError(f"{each.title}: {error}", "the store must accept PUT (docs/store.md)") from None


def _push_file(each: cache_keys.PinnedFile) -> bool:
    path, sent = cache().path(each.sha256), False
    if not path.is_file() or manifest.file_sha256(path) != each.sha256:
        return False
    for store in stores.writable():
        try:
            if not store.has(f"cas/{each.sha256}"):
                store.send(f"cas/{each.sha256}", path, each.name)
                sent = True
        except StoreError as error:
            raise FetchError(f"{each.name}: {error}", "the store must accept PUT (docs/store.md)") from None
    return sent


def _pull_file(each: cache_keys.PinnedFile) -> bool:
    with cache().scratch() as folder:
        if not stores.obtain_file(each.sha256, each.size, folder / "file", each.name):
            return False
        cache().add(folder / "file", each.sha256)
    return True


def _parallel(title: str, items: Iterable[_T], work: Callable[[_T], bool]) -> list[bool]:
    """Do `work` for all items, several at a time, under a progress bar."""
    todo = list(items)
    with ThreadPoolExecutor(settings.load().parallel) as pool:
        done = pool.map(work, todo)
        return list(tqdm(done, desc=title, total=len(todo), unit="", disable=None, leave=False))


def _origin(each: Entry) -> tuple[str, str]:
    return str(each.origin.get("store", "")), str(each.origin.get("signer", ""))


def _bytes_below(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(os.lstat(os.path.join(top, name)).st_size for top, _, names in os.walk(path) for name in names)
