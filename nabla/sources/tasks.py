# SPDX-License-Identifier: Apache-2.0
"""Fetch the sources of all recipes into the cache. Other areas add downloads by a function `fetch_steps`.

recipes/*/recipe.toml    -> fetch:<recipe>  -> out/state/sources/<recipe>.json, which lists the files by sha256
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from nabla.core.artifacts import source_record
from nabla.engine import discovery
from nabla.engine.task import TaskDict, group, step, ungrouped
from nabla.sources import fetch, recipe


def task_fetch() -> Iterator[TaskDict]:
    """Download and verify the sources of all recipes."""
    yield group("fetch", "download and verify the sources of all recipes and the packages of the build roots")
    yield from discovery.steps("fetch_steps")
    for name in recipe.names():
        loaded = recipe.load(name)
        remote = [source for source in loaded.source if source.local is None]
        if not remote:
            continue
        task = step(
            f"fetch:{name}",
            fetch.fetch_recipe,
            doc=f"download and verify the sources of {name} {loaded.version}",
            inputs=sorted({o.signature.key_path for s in remote for o in s.origin if o.signature}),
            outputs=[source_record(name)],
            config=[msgspec.to_builtins(remote), sorted(fetch.without())],
            args=[name],
            checks=[fetch.InCache(name)],
        )
        # A separate task does not belong to the group.
        yield ungrouped(task) if loaded.optional else task
