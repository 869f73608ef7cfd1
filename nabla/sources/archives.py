# SPDX-License-Identifier: Apache-2.0
"""The fetched source files of a recipe, which its record lists (out/state/sources/<recipe>.json)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from nabla.core.artifacts import source_record
from nabla.core.errors import ChecksumError, NablaError
from nabla.core.paths import relative
from nabla.sources.recipe import Recipe
from nabla.sources.store import cache


def _none(loaded: Recipe, source: str, sha256: str) -> None:
    """Restore nothing."""


# `nabla.sources.fetch` puts itself here. It decides no bytes: the digest does. Imported from here, all its code would
# count as code of each build.
restore: Callable[[Recipe, str, str], None] = _none


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """One fetched file: the name of its source, upstream's file name, sha256 and size."""

    source: str
    file: str
    sha256: str
    size: int


def read_record(recipe: str) -> list[Archive]:
    """Read the record of a recipe. Raises `NablaError` if it is missing or damaged."""
    path = source_record(recipe)
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Archive])
    except (FileNotFoundError, msgspec.DecodeError):
        raise NablaError(f"{relative(path)} is missing or damaged", f"run `doit fetch:{recipe}`") from None


def fetched(loaded: Recipe) -> dict[str, Path]:
    """Return source -> file in the download cache, each checked; one that is damaged or gone is fetched again.

    Raises `NablaError` if that is impossible.
    """
    files = {}
    for archive in read_record(loaded.name):
        try:
            path = cache().get(archive.sha256, archive.size)
        except ChecksumError:
            path = None
        if path is None:
            restore(loaded, archive.source, archive.sha256)
            path = cache().get(archive.sha256, archive.size)
        if path is None:
            raise NablaError(f"{archive.file} is no longer in the download cache", f"run `doit fetch:{loaded.name}`")
        files[archive.source] = path
    return files
