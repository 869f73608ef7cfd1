# SPDX-License-Identifier: Apache-2.0
"""Results in the user's cache, shared by all checkouts: a step with the same inputs runs once.

    <cache>/results/ab/abcd…/manifest.json   a title and the digest of each file and folder beside it
    <cache>/results/ab/abcd…/<name>          the results themselves

The key is the digest of all inputs that determine a result, without the path of the checkout. An entry appears by one
rename. Its digests are checked before each use, and a damaged entry is built again. An entry that is unused for a month
is removed. With `NABLA_FRESH=1` no result is reused, with `NABLA_CHALLENGE=KEY` all but the result of this key.

A second build that only repeats a sample (`NABLA_SAMPLE_OF` is the first build's cache) also reuses the results of the
first build, except for one of SAMPLE keys, which their digests select: a changed step is drawn again.

Stores (nabla.engine.remote, docs/store.md) extend the cache to other machines: a result that is absent here is fetched
from a store, and `origin` in its manifest names the store and the signer. A built result is uploaded to the writable
stores.

A step is cacheable if its declared inputs, configuration and code fully determine its outputs, and no later step relies
on side effects (or recreates them, as nabla.build.source_tree does).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from nabla.core import digest, files, log
from nabla.core.errors import CommandError
from nabla.core.paths import ROOT, cache_dir
from nabla.core.process import run
from nabla.engine.remote import elsewhere, settings

# Increment it with each change of the layout of entries, or of code that is not part of the keys.
CACHE_VERSION = 2
# The sample of a second build contains one in this number of keys.
SAMPLE = 8
# The file of an entry that `outcome` adds.
_OUTCOME = "result.json"

_Outcome = TypeVar("_Outcome", bound=msgspec.Struct)


def key(*inputs: Any) -> str:
    """Return the key of a result that is determined by these inputs, which are JSON data."""
    text = digest.canonical([CACHE_VERSION, *inputs])
    return digest.sha256_bytes(text.replace(f"{ROOT}/", "").encode())


def lock(name: str) -> AbstractContextManager[None]:
    """Hold the lock of a key while its result is looked up or built."""
    return files.lock(cache_dir() / "locks" / name, f"waiting for another process that builds {name[:12]}")


def is_reusable() -> bool:
    """Return whether results of earlier builds may be reused."""
    return os.environ.get("NABLA_FRESH", "0") in ("", "0")


def must_repeat(name: str) -> bool:
    """Return whether a step of seconds runs in any case: in a second build, or if a result that it uses is challenged.

    The results of a second build are compared with those of the first.
    """
    return bool(os.environ.get("NABLA_VARY")) or os.environ.get("NABLA_CHALLENGE", name) != name


def entry(name: str) -> Path:
    """Return the folder of a key's results, whether or not it exists."""
    first = os.environ.get("NABLA_SAMPLE_OF")
    if first and not _entry(cache_dir(), name).exists() and not is_in_sample(name):
        return _entry(Path(first), name)
    return _entry(cache_dir(), name)


def is_in_sample(name: str) -> bool:
    """Return whether a second build of a sample repeats the step with this key."""
    return int(name[:8], 16) % SAMPLE == 0


def find(name: str) -> Path | None:
    """Return the folder of a key's results after checking them; None if they are absent or damaged, also in stores."""
    if name == os.environ.get("NABLA_CHALLENGE"):
        return None
    local = find_local(name)
    if local is not None:
        elsewhere.have(name)
        return local
    return _take(name) if _uses_stores() else None


def find_local(name: str) -> Path | None:
    """Return the folder of a key's results in this host's cache after checking them."""
    folder = entry(name)
    try:
        digests = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["digests"]
        if {path.name for path in folder.iterdir()} != {"manifest.json", *digests}:
            return None
        if any(digest.path_digest(folder / each) != expected for each, expected in digests.items()):
            return None
        os.utime(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder


def origin(folder: Path) -> Mapping[str, Any]:
    """Return the store and the signer from which a result came; empty if it was built here."""
    return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("origin", {}))


def known_digests(name: str) -> Mapping[str, str] | None:
    """Return the digests of a key's results without reading them, from this cache or from a store; None if absent.

    A store's results are not fetched. They may be damaged: `find` checks them.
    """
    if not is_reusable() or name == os.environ.get("NABLA_CHALLENGE"):
        return None
    with suppress(OSError, ValueError, KeyError, TypeError):
        folder = entry(name)
        digests = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["digests"]
        os.utime(folder)
        return {str(each): str(expected) for each, expected in digests.items()}
    if not _uses_stores():
        return None
    from nabla.engine.remote import stores

    signed = stores.look_up_first(name)
    return None if signed is None else {each: output.digest for each, output in signed.record.outputs.items()}


def restore(name: str, targets: Mapping[str, Path]) -> bool:
    """Copy a key's results to `targets` (name in the entry -> path); return False and write none if that fails."""
    folder = find(name) if is_reusable() else None
    if folder is None:
        return False
    try:
        for each, target in targets.items():
            _copy(folder / each, target)
    except CommandError:
        for target in targets.values():
            files.remove(target)
        return False
    return True


def add(name: str, title: str, sources: Mapping[str, Path], *, move: bool = False) -> Path:
    """Store copies of `sources` (name in the entry -> file or folder) under a key; with `move`, move them.

    Returns the folder of the entry. Raises `DiskFullError`, `CommandError`.
    """
    with files.scratch(cache_dir() / "tmp") as scratch:
        whole = scratch / "entry"
        whole.mkdir()
        for each, source in sources.items():
            (files.move if move else _copy)(source, whole / each)
        digests = {each: digest.path_digest(whole / each) for each in sources}
        folder = _publish(whole, name, {"title": title, "digests": digests})
    if settings.load().pushes:
        # Imported when needed, here and below: most runs use no store.
        from nabla.engine.remote import stores

        stores.offer(name, title, {each: folder / each for each in sources})
    return folder


def outcome(name: str, title: str, target: Path, kind: type[_Outcome], make: Callable[[], _Outcome]) -> _Outcome:
    """Return the result of `make`, or the stored one for this key, and write it to `target` as JSON.

    An exception of `make` is passed on, and nothing is stored: only passed tests have an outcome.
    """
    with lock(name):
        folder = find(name) if is_reusable() else None
        if folder is None:
            target.write_bytes(msgspec.json.format(msgspec.json.encode(make()), indent=1) + b"\n")
            folder = add(name, title, {_OUTCOME: target})
    shutil.copyfile(folder / _OUTCOME, target)
    return msgspec.json.decode(target.read_bytes(), type=kind)


def _uses_stores() -> bool:
    # A second build must not use results of another build.
    return is_reusable() and "NABLA_SAMPLE_OF" not in os.environ and bool(settings.load().stores)


def _take(name: str) -> Path | None:
    """Fetch a key's results from a store to the cache; None if no store has valid ones."""
    from nabla.engine.remote import stores

    with files.scratch(cache_dir() / "tmp") as scratch:
        whole = scratch / "entry"
        taken = stores.take(name, whole)
        if taken is None:
            return None
        record = taken.signed.record
        digests = {each: output.digest for each, output in record.outputs.items()}
        origin = {"store": taken.store, "signer": taken.signed.signer, "created": record.created}
        log.info(f"{record.title}: fetched from {taken.store}, signed by {taken.signed.signer}")
        return _publish(whole, name, {"title": record.title, "digests": digests, "origin": origin})


def _publish(whole: Path, name: str, record: Mapping[str, Any]) -> Path:
    """Move a complete entry to its path by one rename."""
    folder = _entry(cache_dir(), name)
    (whole / "manifest.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    files.make_folder(folder.parent)
    files.remove(folder)
    files.remove_unused((cache_dir() / "results").glob("??/*"))
    whole.rename(folder)
    return folder


def _entry(cache: Path, name: str) -> Path:
    return cache / "results" / name[:2] / name


def _copy(source: Path, target: Path) -> None:
    run(["cp", "-a", "--sparse=always", "--reflink=auto", source, target])
