# SPDX-License-Identifier: Apache-2.0
"""Get the sources of all recipes into the cache.

recipes/*/recipe.toml    -> fetch:<recipe>  -> out/state/sources/<recipe>.json, which names the files by sha256
toolchain/buildroot.lock -> fetch:buildroot    (the packages of the build root, unpacked by toolchain:unpack)
toolchain/packaging.lock -> fetch:packaging    (those of the root that packages are built in)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from nabla import buildroot, fetch, lockfile, origins, recipe, signature
from nabla.errors import NablaError
from nabla.paths import STATE
from nabla.store import cache
from nabla.tasklib import Job, TaskDict, group, step

_ORIGINS = [Path(origins.__path__[0]) / name for name in ("url.py", "debian.py", "pypi.py")]


def record_path(name: str) -> Path:
    """Return the file that says which source files a recipe's build gets; an input for whoever unpacks them."""
    return STATE / "sources" / f"{name}.json"


def task_fetch() -> Iterator[TaskDict]:
    """Download and check the sources of all recipes."""
    yield group("fetch", "download and check the sources of all recipes and the build root")
    yield step(
        "fetch:buildroot",
        fetch_buildroot,
        doc="download and check the packages of toolchain/buildroot.lock",
        inputs=[lockfile.LOCK],
        checks=[buildroot_at_hand],
    )
    yield step(
        "fetch:packaging",
        fetch_buildroot,
        doc="download and check the packages of toolchain/packaging.lock",
        inputs=[lockfile.PACKAGING.lock],
        args=["packaging"],
        checks=[packaging_at_hand],
    )
    yield step(
        "fetch:vary",
        fetch_buildroot,
        doc="download and check the packages of toolchain/vary.lock, which second builds are varied with",
        inputs=[lockfile.VARY.lock],
        args=["vary"],
        checks=[vary_at_hand],
    )
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
            code=[fetch, signature, *_ORIGINS],
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


def fetch_buildroot(job: Job, which: str = "buildroot") -> None:
    """Fetch all packages of a build root."""
    pins = {"buildroot": lockfile.BASE, "packaging": lockfile.PACKAGING, "vary": lockfile.VARY}[which]
    packages = buildroot.fetch(lockfile.read_lock(pins.lock))
    job.note(f"{len(packages)} packages in {cache().root}")


def buildroot_at_hand(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: the build root is unpacked, or all of its packages are in the cache."""
    return _at_hand(lockfile.BASE)


def packaging_at_hand(task: Any, values: Mapping[str, Any]) -> bool:
    """The same for the build root of packages."""
    return _at_hand(lockfile.PACKAGING)


def vary_at_hand(task: Any, values: Mapping[str, Any]) -> bool:
    """The same for what second builds are varied with."""
    return _at_hand(lockfile.VARY)


def _at_hand(pins: lockfile.Pins) -> bool:
    try:
        lock = lockfile.read_lock(pins.lock)
    except NablaError:
        return False  # the action will say what is wrong
    # The tree has a hundred times as many entries to look at.
    return all(cache().path(file.sha256).exists() for file in lock.files) or buildroot.intact(lock)


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
