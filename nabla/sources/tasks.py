# SPDX-License-Identifier: Apache-2.0
"""Get the sources of all recipes into the cache; areas that fetch other things say so by `fetch_steps`.

recipes/*/recipe.toml    -> fetch:<recipe>  -> out/state/sources/<recipe>.json, which names the files by sha256
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from nabla.engine import discovery
from nabla.engine.task import Job, TaskDict, group, step
from nabla.sources import fetch, openpgp, origins, recipe
from nabla.sources.records import record_path
from nabla.sources.store import cache

_ORIGINS = [Path(origins.__path__[0]) / name for name in ("url.py", "debian.py", "pypi.py")]


def task_fetch() -> Iterator[TaskDict]:
    """Download and check the sources of all recipes."""
    yield group("fetch", "download and check the sources of all recipes and the build root")
    yield from discovery.steps("fetch_steps")
    for name in recipe.names():
        loaded = recipe.load(name)
        remote = [source for source in loaded.source if source.local is None]
        if not remote:
            continue
        yield step(
            f"fetch:{name}",
            fetch_recipe,
            doc=f"download and check the sources of {name} {loaded.version}",
            inputs=sorted({o.signature.key_path for s in remote for o in s.origin if o.signature}),
            outputs=[record_path(name)],
            config=[msgspec.to_builtins(remote), sorted(fetch.without())],
            code=[fetch, openpgp, *_ORIGINS],
            args=[name],
            checks=[InCache(name)],
        )


def fetch_recipe(job: Job, name: str) -> None:
    """Fetch all sources of one recipe and record what came."""
    record = []
    for source in recipe.load(name).source:
        if source.local is not None:
            continue
        fetched = fetch.obtain(source, task_log=job.log)
        origin = fetched.origin
        size = fetched.path.stat().st_size
        record.append({"source": source.name, "file": origin.file, "sha256": origin.sha256, "size": size})
        job.note(f"{source.name}: {fetched.path} ({fetch.describe(origin)})")
    job.out(record_path(name)).write_text(json.dumps(record, indent=1) + "\n")


@dataclass(frozen=True)
class InCache:
    """Up-to-date check: the recorded files are still in the cache, which lies outside of this checkout."""

    name: str

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        try:
            record = json.loads(record_path(self.name).read_text())
            return all(cache().path(entry["sha256"]).stat().st_size == entry["size"] for entry in record)
        except (OSError, ValueError, KeyError):
            return False
