# SPDX-License-Identifier: Apache-2.0
"""Fetch the sources of recipes into the cache: origins are tried in order, and each file is verified before it enters.

The cache is content-addressed and shared by all checkouts of a user (nabla.sources.store). A file must have the right
sha256, size and, if upstream signs, OpenPGP signature. A file from a store (nabla.engine.remote) is identified by the
pinned sha256 alone, like a file of the cache. With `NABLA_OFFLINE=1` no connection is opened.
`NABLA_WITHOUT=debian,pypi` ignores the origins of these providers, and their files in the cache.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.core import digest, log, manifest
from nabla.core.artifacts import source_record
from nabla.core.errors import (
    ChecksumError,
    CommandError,
    ConfigError,
    FetchError,
    HostError,
    OfflineError,
    SignatureError,
)
from nabla.engine.action import Job
from nabla.engine.remote import settings
from nabla.sources import openpgp, recipe
from nabla.sources.origins import Delivery, Request, debian, pypi
from nabla.sources.recipe import DebianOrigin, DebOrigin, Origin, PypiOrigin, Source, UrlOrigin
from nabla.sources.store import Store, cache, is_offline

# Type of origin -> provider of its files.
PROVIDERS: dict[type[Origin], str] = {
    UrlOrigin: "upstream",
    DebianOrigin: "debian",
    DebOrigin: "debian",
    PypiOrigin: "pypi",
}


@dataclass(frozen=True)
class Fetched:
    """A verified file in the cache, and its origin."""

    path: Path
    origin: Origin


def fetch(source: Source, *, offline: bool | None = None, task_log: Path | None = None) -> Path:
    """Return the verified file of a source, after fetching it if necessary; for a `local` source its folder.

    `offline` defaults to the environment. Raises `FetchError` and its subclasses, `DiskFullError`, `HostError`.
    """
    if source.local_path is not None:
        return source.local_path
    return obtain(source, offline=offline, task_log=task_log).path


def obtain(source: Source, *, offline: bool | None = None, task_log: Path | None = None) -> Fetched:
    """Like `fetch`, but return the file's origin, too. The files of a source's origins may differ."""
    store = cache()
    if not usable(source):
        providers = " and ".join(sorted(without()))
        raise FetchError(
            f"{source.name}: no origin is left without {providers}",
            "\n".join(f"it has {provider(origin)}: {describe(origin)}" for origin in source.origin),
        )
    forbidden = is_offline() if offline is None else offline
    try:
        file = cached(source, store)
    except ChecksumError:
        if forbidden:
            raise
        file = None
    if file is not None:
        return file
    if forbidden:
        raise OfflineError(
            f"{source.name} is not in the cache and connections are forbidden (offline)",
            f"run `./doit.sh fetch` once with a network, or copy the cache folder {store.root}",
        )
    with store.lock(source.origin[0].sha256):
        # Another process may have fetched it while this one waited.
        _set_damaged_aside(source, store)
        return cached(source, store) or _fetch_first(source, store, task_log)


def cached(source: Source, store: Store | None = None) -> Fetched | None:
    """Return the first usable origin's file that is in the cache. Raises `ChecksumError` for a damaged entry."""
    store = store or cache()
    for origin in usable(source):
        path = _cached_file(origin, store)
        if path is not None:
            return Fetched(path, origin)
    return None


def _set_damaged_aside(source: Source, store: Store) -> None:
    for origin in usable(source):
        try:
            _cached_file(origin, store)
        except ChecksumError as error:
            aside = store.set_aside(origin.sha256)
            log.warn(f"{source.name}: {error}; it is now {aside} and is fetched again")


def without() -> frozenset[str]:
    """Return the providers in `NABLA_WITHOUT`, whose origins are ignored. Raises `ConfigError` for an unknown one."""
    ignored = frozenset(filter(None, re.split(r"[\s,]+", os.environ.get("NABLA_WITHOUT", ""))))
    known = sorted(set(PROVIDERS.values()))
    for word in sorted(ignored.difference(known)):
        raise ConfigError(f"without={word}: there are no such origins", f"known are {', '.join(known)}")
    return ignored


def usable(source: Source) -> tuple[Origin, ...]:
    """Return the origins of a source that are not ignored, in the recipe's order."""
    ignored = without()
    return tuple(origin for origin in source.origin if provider(origin) not in ignored)


def provider(origin: Origin) -> str:
    """Return the provider of an origin's file: "upstream", "debian" or "pypi"."""
    return PROVIDERS[type(origin)]


def _cached_file(origin: Origin, store: Store) -> Path | None:
    path = store.path(origin.sha256)
    if not path.exists():
        return None
    return store.get(origin.sha256, origin.size if origin.size is not None else path.stat().st_size)


def _fetch_first(source: Source, store: Store, task_log: Path | None) -> Fetched:
    mirrored = _from_stores(source, store)
    if mirrored is not None:
        return mirrored
    problems: list[FetchError] = []
    for origin in usable(source):
        with store.scratch() as folder:
            try:
                path = _fetch_from(origin, Request(source.name, store, folder, task_log))
            except (FetchError, CommandError, HostError) as error:
                problems.append(_as_fetch_error(origin, error))
                if isinstance(error, ChecksumError | SignatureError):
                    log.warn(f"{source.name}: {error}")
                continue
        return Fetched(path, origin)
    raise _combine(source, problems)


def _from_stores(source: Source, store: Store) -> Fetched | None:
    """Fetch a file from the stores, which are mirrors of all origins; the recipe's digest verifies it."""
    if not settings.load().stores:
        return None
    # Imported when needed: most runs use no store.
    from nabla.engine.remote import stores

    for origin in usable(source):
        with store.scratch() as folder:
            target = folder / "file"
            if stores.obtain_file(origin.sha256, origin.size, target, source.name):
                return Fetched(store.add(target, origin.sha256), origin)
    return None


def _fetch_from(origin: Origin, request: Request) -> Path:
    log.info(f"{request.name}: fetching {origin.file} from {describe(origin)}")
    return accept(_deliver(origin, request), origin, request)


def accept(delivery: Delivery, origin: Origin, request: Request) -> Path:
    """Verify a delivered file and move it into the cache. Raises `ChecksumError`, `SignatureError`."""
    try:
        _check(delivery, origin, request.folder)
    except (ChecksumError, SignatureError):
        # A wrong file must not be resumed.
        delivery.file.unlink(missing_ok=True)
        raise
    return request.cache.add(delivery.file, origin.sha256)


def _deliver(origin: Origin, request: Request) -> Delivery:
    match origin:
        case UrlOrigin():
            # Imported when needed: requests takes longer to load than doit itself.
            from nabla.sources.origins import url

            return url.obtain(origin, request)
        case DebianOrigin():
            return debian.obtain_source(origin, request)
        case DebOrigin():
            return debian.obtain_deb(origin, request)
        case PypiOrigin():
            return pypi.obtain(origin, request)


def _check(delivery: Delivery, origin: Origin, scratch: Path) -> None:
    size = delivery.file.stat().st_size
    if origin.size is not None and size != origin.size:
        raise ChecksumError(f"{origin.file} from {describe(origin)} has {size} bytes instead of {origin.size}")
    actual = delivery.sha256 or manifest.file_sha256(delivery.file)
    if actual != origin.sha256:
        raise ChecksumError(f"{origin.file} from {describe(origin)} has sha256 {actual} instead of {origin.sha256}")
    if origin.signature is not None:
        if delivery.signature is None or not delivery.signature.is_file():
            raise SignatureError(f"{origin.file} from {describe(origin)} came without its signature")
        openpgp.check(delivery.file, delivery.signature, origin.signature, scratch)


def describe(origin: Origin) -> str:
    """Describe an origin for messages."""
    match origin:
        case UrlOrigin():
            return origin.url[0]
        case DebianOrigin():
            return f"Debian {origin.suite}, source package {origin.package} {origin.version}"
        case DebOrigin():
            return f"Debian, {origin.pool}"
        case PypiOrigin():
            return f"PyPI, {origin.package} {origin.version}"


def _as_fetch_error(origin: Origin, error: FetchError | CommandError | HostError) -> FetchError:
    if isinstance(error, FetchError):
        return error
    return FetchError(f"{describe(origin)}: {error.message}", error.hint)


def _combine(source: Source, problems: Sequence[FetchError]) -> FetchError:
    """Combine all errors into one: a wrong hash or signature takes precedence over an unreachable host."""
    worst = next((error for error in problems if isinstance(error, ChecksumError | SignatureError)), problems[-1])
    lines = [error.message + (f"\n{error.hint}" if error.hint else "") for error in problems]
    if isinstance(worst, ChecksumError | SignatureError):
        return type(worst)(f"{source.name}: {worst.message}", "\n".join(lines))
    return FetchError(f"{source.name}: no origin could deliver it", "\n".join(lines))


def fetch_recipe(job: Job, name: str) -> None:
    """Fetch all sources of one recipe and record the files."""
    record = []
    for source in recipe.load(name).source:
        if source.local is not None:
            continue
        result = obtain(source, task_log=job.log)
        sha256 = result.origin.sha256
        # Keys of results contain the record. It is the same whichever origin delivered these bytes.
        file = next(origin.file for origin in source.origin if origin.sha256 == sha256)
        size = result.path.stat().st_size
        record.append({"source": source.name, "file": file, "sha256": sha256, "size": size})
        job.note(f"{source.name}: {result.path} ({describe(result.origin)})")
    job.out(source_record(name)).write_text(json.dumps(record, indent=1) + "\n")


@dataclass(frozen=True)
class InCache:
    """Up-to-date check: the recorded files are still in the cache, which is outside of the checkout, and undamaged."""

    name: str

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        try:
            record = json.loads(source_record(self.name).read_text())
            return all(digest.sha256_file(cache().path(each["sha256"])) == each["sha256"] for each in record)
        except (OSError, ValueError, KeyError):
            return False
