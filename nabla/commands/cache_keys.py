# SPDX-License-Identifier: Apache-2.0
"""The results that this checkout now uses: the keys of its tasks, and the files that it pins."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nabla.core import artifacts
from nabla.core.errors import NablaError
from nabla.engine import discovery, result_cache
from nabla.engine.action import Action
from nabla.packages import builder, catalog
from nabla.release import assembly
from nabla.sandbox import lockfile
from nabla.sources import fetch, recipe


@dataclass(frozen=True)
class Result:
    """A result that a task produces with the present inputs."""

    key: str
    task: str


@dataclass(frozen=True)
class PinnedFile:
    """A file with a known digest: a source, or a package of a build root."""

    name: str
    sha256: str
    size: int | None


def results() -> list[Result]:
    """Return the results of all tasks whose inputs exist. An input is absent as long as its task has not run."""
    reachable = [Result(key, action.name) for action in _actions() if (key := action.key()) is not None]
    for loaded in catalog.all_recipes():
        with suppress(NablaError, OSError):
            reachable.append(Result(builder.installed_key(loaded), f"packages:{loaded.name}"))
    return reachable


def keys() -> set[str]:
    """Return the keys of all results that a build of this checkout uses, including those of split packages."""
    current = {each.key for each in results()}
    for loaded in catalog.all_recipes():
        with suppress(NablaError, OSError):
            known = result_cache.known_digests(builder.installed_key(loaded))
            if known is not None:
                current.add(builder.package_key(loaded, known["installed"]))
    images = map(artifacts.image_path, artifacts.RELEASED_IMAGES)
    return current | {assembly.compressed_key(image) for image in images if image.exists()}


def pinned_files() -> Iterator[PinnedFile]:
    """Yield the files that all recipes and locks pin."""
    for name in recipe.names():
        for source in recipe.load(name).source:
            if source.local is None:
                yield from (PinnedFile(source.name, each.sha256, each.size) for each in fetch.usable(source))
    for pins in (lockfile.BASE, lockfile.PACKAGING, lockfile.VARY):
        for file in lockfile.read_lock(pins.lock).files:
            yield PinnedFile(f"{file.name} {file.version}", file.sha256, file.size)


def _actions() -> Iterator[Action]:
    for creator in discovery.discover().values():
        tasks: Any = creator()
        for task in tasks if inspect.isgenerator(tasks) else [tasks]:
            yield from (each for each in task.get("actions") or () if isinstance(each, Action))
