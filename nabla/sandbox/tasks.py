# SPDX-License-Identifier: Apache-2.0
"""The locked build root.

lock:update (on demand) -> toolchain/buildroot.lock -> fetch:buildroot -> toolchain:unpack -> every build
                           toolchain/packaging.lock -> fetch:packaging -> toolchain:packaging -> packages
                           toolchain/vary.lock      -> fetch:vary      -> second builds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nabla.core import files, log
from nabla.core.artifacts import BUILD_ROOT, PACKAGING_ROOT
from nabla.core.errors import LockError, NablaError
from nabla.core.paths import relative
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.task import TaskDict
from nabla.sandbox import buildroot, lockfile
from nabla.sources.store import cache


def task_toolchain() -> Iterator[TaskDict]:
    """Fetch and unpack the locked build root."""
    yield task.group("toolchain", "fetch and unpack the locked build root", after=["toolchain:unpack"])
    yield task.step(
        "toolchain:unpack",
        unpack,
        doc="unpack the packages of toolchain/buildroot.lock",
        inputs=[lockfile.LOCK, lockfile.PACKAGES],
        outputs=[BUILD_ROOT],
        after=["fetch:buildroot"],
        # The tree lies in the user's cache, not in out/: whether it is sound is asked of the tree itself.
        checks=[_unpacked],
    )
    yield task.step(
        "toolchain:packaging",
        unpack_packaging,
        doc="unpack the packages of toolchain/packaging.lock",
        inputs=[lockfile.PACKAGING.lock, lockfile.PACKAGING.wish, lockfile.PACKAGES],
        outputs=[PACKAGING_ROOT],
        after=["fetch:packaging"],
        checks=[_packaging_unpacked],
    )


def fetch_steps() -> Iterator[TaskDict]:
    """Yield what the group `fetch` does for the build roots."""
    yield task.step(
        "fetch:buildroot",
        fetch_buildroot,
        doc="download and check the packages of toolchain/buildroot.lock",
        inputs=[lockfile.LOCK],
        checks=[buildroot_at_hand],
    )
    yield task.step(
        "fetch:packaging",
        fetch_buildroot,
        doc="download and check the packages of toolchain/packaging.lock",
        inputs=[lockfile.PACKAGING.lock],
        args=["packaging"],
        checks=[packaging_at_hand],
    )
    yield task.step(
        "fetch:vary",
        fetch_buildroot,
        doc="download and check the packages of toolchain/vary.lock, which second builds are varied with",
        inputs=[lockfile.VARY.lock],
        args=["vary"],
        checks=[vary_at_hand],
    )


def lock_steps() -> Iterator[TaskDict]:
    """Yield what the group `lock` does with the build roots."""
    yield task.step(
        "lock:update",
        update,
        doc="resolve toolchain/packages.toml, packaging.toml and vary.toml anew, write their locks, show what changed",
        always=True,
    )
    yield task.step(
        "lock:verify",
        verify,
        doc="read every file of the unpacked build roots and compare it with what was unpacked",
        after=["toolchain:unpack", "toolchain:packaging"],
        always=True,
    )


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


def unpack(job: Job) -> None:
    """Make sure that the build root exists; record its digest."""
    _unpack(job, lockfile.BASE, BUILD_ROOT)


def unpack_packaging(job: Job) -> None:
    """Make sure that the build root of packages exists; record its digest."""
    _unpack(job, lockfile.PACKAGING, PACKAGING_ROOT)


def _unpack(job: Job, pins: lockfile.Pins, record: Path) -> None:
    job.note(f"build root: {buildroot.ensure(pins)}")
    job.out(record).write_text(f"{lockfile.read_lock(pins.lock).tree}\n", encoding="utf-8")


def update(job: Job) -> None:
    """Write new locks; an equal one leaves the file alone."""
    for pins in (lockfile.BASE, lockfile.PACKAGING, lockfile.VARY):
        _update(job, pins)


def _update(job: Job, pins: lockfile.Pins) -> None:
    try:
        old = lockfile.read_lock(pins.lock)
    except LockError as error:
        log.warn(str(error))
        old = None
    new = buildroot.resolve(lockfile.read_wish(pins.wish))
    lines = lockfile.changes(old, new)
    for line in lines:
        log.info(line)
        job.note(line)
    if new == old:
        log.info(f"{relative(pins.lock)}: nothing changed")
        return
    files.write(pins.lock, lockfile.render(new, pins.wish.name))
    log.info(f"{relative(pins.lock)}: {len(new.files)} packages, {new.size / 1e6:.0f} MB, tree {new.tree[:16]}…")


def verify(job: Job) -> None:
    """Fail when an entry of a build root differs from what was unpacked."""
    for pins in (lockfile.BASE, lockfile.PACKAGING):
        _verify(job, pins)


def _verify(job: Job, pins: lockfile.Pins) -> None:
    wrong = buildroot.verify(pins)
    for path in wrong:
        job.note(f"differs: {path}")
    if wrong:
        raise LockError(
            f"the build root was changed: {wrong[0]}" + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""),
            f"remove it, the next build unpacks it again: rm -r '{buildroot.root_path(lockfile.read_lock(pins.lock))}'",
        )


def _unpacked(task: Any, values: Mapping[str, Any]) -> bool:
    return _intact(lockfile.BASE)


def _packaging_unpacked(task: Any, values: Mapping[str, Any]) -> bool:
    return _intact(lockfile.PACKAGING)


def _intact(pins: lockfile.Pins) -> bool:
    try:
        return buildroot.intact(lockfile.current(pins)[1])
    except NablaError:
        return False  # the action will say what is wrong
