# SPDX-License-Identifier: Apache-2.0
"""Results in the user's cache, shared by all checkouts: nothing is built twice from the same inputs.

    <cache>/results/ab/abcd…/manifest.json   a title and the digest of each file and folder beside it
    <cache>/results/ab/abcd…/<name>          the results themselves

The key is the digest of all that decides a result; paths of the checkout do not count. An entry appears by one rename,
is checked by its digests before each use and is built again if it is damaged. One that nobody used for a month is
removed. With `NABLA_FRESH=1` no result is reused.

A second build that only repeats a sample (`NABLA_SAMPLE_OF` is the first build's cache) also reuses the results of the
first build, except for one of SAMPLE keys, which their digests select: a changed step is drawn again.

A step is cacheable if its declared inputs, configuration and code fully determine its outputs, and no later step relies
on side effects (or recreates them, as nabla.build.source_tree does).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from nabla.core import digest, files
from nabla.core.errors import CommandError
from nabla.core.paths import ROOT, cache_dir
from nabla.core.process import run

# To be raised with every change of the layout of entries, or of what is computed outside of the code in the keys.
CACHE_VERSION = 2
# One of so many keys is in the sample of a second build.
SAMPLE = 8


def key(*facts: Any) -> str:
    """Return the key of what these facts, JSON data, decide."""
    text = digest.canonical([CACHE_VERSION, *facts])
    return digest.sha256_bytes(text.replace(f"{ROOT}/", "").encode())


def lock(name: str) -> AbstractContextManager[None]:
    """Hold the lock of a key while its result is looked up or built."""
    return files.lock(cache_dir() / "locks" / name, f"waiting for another process that builds {name[:12]}")


def is_reusable() -> bool:
    """Tell whether results of earlier builds may be reused."""
    return os.environ.get("NABLA_FRESH", "0") in ("", "0")


def entry(name: str) -> Path:
    """Return the folder of a key's results, whether or not it exists."""
    first = os.environ.get("NABLA_SAMPLE_OF")
    if first and not _entry(cache_dir(), name).exists() and not is_in_sample(name):
        return _entry(Path(first), name)
    return _entry(cache_dir(), name)


def is_in_sample(name: str) -> bool:
    """Tell whether a second build of a sample repeats what has this key."""
    return int(name[:8], 16) % SAMPLE == 0


def find(name: str) -> Path | None:
    """Return the folder of a key's results after checking them; None if there are none, or damaged ones."""
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


def restore(name: str, targets: Mapping[str, Path]) -> bool:
    """Copy a key's results to `targets` (name in the entry -> path); False and no target if that is not possible."""
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
    """Keep copies of `sources` (name in the entry -> file or folder) under a key, or with `move` these themselves.

    Returns the folder of the entry. Raises `DiskFullError`, `CommandError`.
    """
    folder = _entry(cache_dir(), name)
    with files.scratch(cache_dir() / "tmp") as scratch:
        whole = scratch / "entry"
        whole.mkdir()
        for each, source in sources.items():
            (files.move if move else _copy)(source, whole / each)
        record = {"title": title, "digests": {each: digest.path_digest(whole / each) for each in sources}}
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
