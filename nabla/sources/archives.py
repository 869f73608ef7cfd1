# SPDX-License-Identifier: Apache-2.0
"""The fetched source files of a recipe, which its record lists (out/state/sources/<recipe>.json)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from nabla.core.artifacts import source_record
from nabla.core.errors import NablaError
from nabla.core.paths import relative
from nabla.sources.recipe import Recipe
from nabla.sources.store import cache


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
    """Return source -> file in the download cache, each checked.

    The task that fetches them runs again before a build if one is damaged or missing (nabla.sources.fetch.InCache).
    Raises `NablaError` if one was damaged or removed since.
    """
    files = {}
    for archive in read_record(loaded.name):
        path = cache().get(archive.sha256, archive.size)
        if path is None:
            raise NablaError(f"{archive.file} is no longer in the download cache", f"run `doit fetch:{loaded.name}`")
        files[archive.source] = path
    return files
