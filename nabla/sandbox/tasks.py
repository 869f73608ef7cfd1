# SPDX-License-Identifier: Apache-2.0
"""The locked build roots.

lock:update (on demand) -> toolchain/buildroot.lock -> fetch:buildroot -> toolchain:unpack -> every build
                           toolchain/packaging.lock -> fetch:packaging -> toolchain:packaging -> packages
                           toolchain/vary.lock      -> fetch:vary      -> second builds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nabla.core import files, log
from nabla.core.artifacts import BUILD_ROOT, PACKAGING_ROOT
from nabla.core.errors import LockError, NablaError
from nabla.core.paths import relative
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.remote import settings
from nabla.engine.task import TaskDict
from nabla.sandbox import buildroot, lockfile
from nabla.sources.store import cache

_PINS = {"buildroot": lockfile.BASE, "packaging": lockfile.PACKAGING, "vary": lockfile.VARY}
_RECORDS = {"buildroot": BUILD_ROOT, "packaging": PACKAGING_ROOT}


@dataclass(frozen=True)
class Fetched:
    """Up-to-date check: all packages of a build root are in the cache, or it is unpacked, or it may never be needed."""

    name: str

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        if _deferred(self.name):
            return True
        try:
            lock = lockfile.read_lock(_PINS[self.name].lock)
        except NablaError:
            return False  # the action reports the error
        # The tree has a hundred times as many entries as the lock.
        return all(cache().path(file.sha256).exists() for file in lock.files) or buildroot.intact(lock)


@dataclass(frozen=True)
class Unpacked:
    """Up-to-date check: a build root is unpacked and unchanged, or may never be needed. It is in the user's cache."""

    name: str

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        if _deferred(self.name):
            return True
        try:
            return buildroot.intact(lockfile.current(_PINS[self.name])[1])
        except NablaError:
            return False  # the action reports the error


def task_toolchain() -> Iterator[TaskDict]:
    """Fetch and unpack the locked build root."""
    yield task.group("toolchain", "fetch and unpack the locked build root", after=["toolchain:unpack"])
    for step, name in (("unpack", "buildroot"), ("packaging", "packaging")):
        pins = _PINS[name]
        yield task.step(
            f"toolchain:{step}",
            unpack,
            doc=f"unpack the packages of {relative(pins.lock)}",
            inputs=sorted({pins.lock, pins.requirements, lockfile.PACKAGES}),
            outputs=[_RECORDS[name]],
            after=[f"fetch:{name}"],
            args=[name],
            checks=[Unpacked(name)],
        )


def fetch_steps() -> Iterator[TaskDict]:
    """Yield the build roots' steps of the group `fetch`."""
    for name, pins in _PINS.items():
        yield task.step(
            f"fetch:{name}",
            fetch,
            doc=f"download and verify the packages of {relative(pins.lock)}",
            inputs=[pins.lock],
            args=[name],
            checks=[Fetched(name)],
        )


def lock_steps() -> Iterator[TaskDict]:
    """Yield the build roots' steps of the group `lock`."""
    yield task.step(
        "lock:update",
        update,
        doc="resolve toolchain/packages.toml, packaging.toml and vary.toml again, write their locks, print the changes",
        always=True,
    )
    yield task.step(
        "lock:verify",
        verify,
        doc="read every file of the unpacked build roots and compare it with the unpacked packages",
        after=["toolchain:unpack", "toolchain:packaging"],
        always=True,
    )


def fetch(job: Job, name: str) -> None:
    """Fetch all packages of a build root."""
    if _deferred(name):
        job.note("fetched when a step runs in the build root")
        return
    packages = buildroot.fetch(lockfile.read_lock(_PINS[name].lock))
    job.note(f"{len(packages)} packages in {cache().root}")


def unpack(job: Job, name: str) -> None:
    """Ensure that a build root is unpacked; record its digest."""
    if _deferred(name):
        lockfile.current(_PINS[name])  # fails if the lock is stale
        job.note("unpacked when a step runs in the build root")
    else:
        job.note(f"build root: {buildroot.ensure(_PINS[name])}")
    tree = lockfile.read_lock(_PINS[name].lock).tree
    job.out(_RECORDS[name]).write_text(f"{tree}\n", encoding="utf-8")


def _deferred(name: str) -> bool:
    """Return whether only the first step that runs unpacks the build root: stores may have all results."""
    return bool(settings.load().stores) and name != "vary"


def update(job: Job) -> None:
    """Write new locks; leave unchanged files alone."""
    for pins in _PINS.values():
        try:
            old = lockfile.read_lock(pins.lock)
        except LockError as error:
            log.warn(str(error))
            old = None
        new = buildroot.resolve(lockfile.read_requirements(pins.requirements))
        for line in lockfile.changes(old, new):
            log.info(line)
            job.note(line)
        if new == old:
            log.info(f"{relative(pins.lock)}: unchanged")
            continue
        files.write(pins.lock, lockfile.render(new, pins.requirements.name))
        log.info(f"{relative(pins.lock)}: {len(new.files)} packages, {new.size / 1e6:.0f} MB, tree {new.tree[:16]}…")


def verify(job: Job) -> None:
    """Fail if an entry of a build root differs from the unpacked packages."""
    for name in _RECORDS:
        buildroot.ensure(_PINS[name])
        changed = buildroot.verify(_PINS[name])
        for path in changed:
            job.note(f"differs: {path}")
        if changed:
            root = buildroot.root_path(lockfile.read_lock(_PINS[name].lock))
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            hint = f"remove it, and the next build unpacks it again: rm -r '{root}'"
            raise LockError(f"the build root was changed: {changed[0]}{more}", hint)
