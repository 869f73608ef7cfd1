# SPDX-License-Identifier: Apache-2.0
"""The locked build root.

lock:update (on demand) -> toolchain/buildroot.lock -> toolchain:unpack -> every build
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from nabla import buildroot, lockfile, log, recipe, store, tasklib
from nabla.build import enter
from nabla.errors import HostError, LockError, NablaError
from nabla.paths import relative
from nabla.sandbox import Bind, Sandbox
from nabla.sources import Work
from nabla.tasklib import Job, TaskDict
from nabla.tasks import kernel


def task_toolchain() -> Iterator[TaskDict]:
    """Fetch and unpack the locked build root."""
    yield tasklib.group("toolchain", "fetch and unpack the locked build root", after=["toolchain:unpack"])
    yield tasklib.step(
        "toolchain:unpack",
        unpack,
        doc="unpack the packages of toolchain/buildroot.lock",
        inputs=[lockfile.LOCK, lockfile.PACKAGES],
        after=["fetch:buildroot"],
        # The tree lies in the user's cache, not in out/: whether it is sound is asked of the tree itself.
        checks=[_unpacked],
    )
    yield tasklib.step(
        "toolchain:packaging",
        unpack_packaging,
        doc="unpack the packages of toolchain/packaging.lock",
        inputs=[lockfile.PACKAGING.lock, lockfile.PACKAGING.wish, lockfile.PACKAGES],
        after=["fetch:packaging"],
        checks=[_packaging_unpacked],
    )


def lock_steps() -> Iterator[TaskDict]:
    """Yield what the group `lock` does with the build roots."""
    yield tasklib.step(
        "lock:update",
        update,
        doc="resolve toolchain/packages.toml, packaging.toml and vary.toml anew, write their locks, show what changed",
        always=True,
    )
    yield tasklib.step(
        "lock:verify",
        verify,
        doc="read every file of the unpacked build roots and compare it with what was unpacked",
        after=["toolchain:unpack", "toolchain:packaging"],
        always=True,
    )


def task_shell() -> TaskDict:
    """Open a shell in the build sandbox."""
    return {
        "basename": "shell",
        "doc": "open a shell in the build sandbox, with a recipe's build folder: doit shell [RECIPE]",
        "actions": [tasklib.guard(_shell)],
        "pos_arg": "names",
        "task_dep": ["toolchain:unpack"],
        "verbosity": 2,
        "uptodate": [False],
    }


def unpack(job: Job) -> None:
    """Make sure that the build root is there."""
    job.note(f"build root: {buildroot.ensure()}")


def unpack_packaging(job: Job) -> None:
    """Make sure that the build root of packages is there."""
    job.note(f"build root: {buildroot.ensure(lockfile.PACKAGING)}")


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
    partial = pins.lock.with_name(f".{pins.lock.name}.new")
    partial.write_text(lockfile.render(new, pins.wish.name), encoding="utf-8")
    partial.rename(pins.lock)
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


def _shell(names: list[str]) -> None:
    if not sys.stdin.isatty():
        raise HostError("doit shell needs a terminal")
    if not names:
        store.make_folder(Work("shell").base)
        place = Sandbox((Bind(Work("shell").base, "/build", writable=True),))
    elif names[0] in ("kernel", kernel.RECIPE) and Work(kernel.RECIPE).objects.is_dir():
        place = kernel.enter(Work(kernel.RECIPE).objects)
    elif (Work(names[0]).build / names[0]).is_dir():
        if recipe.load(names[0]).package is not None:
            # Here: loading it takes longer than most tasks.
            from nabla import package_build

            place = package_build.enter(names[0])
        else:
            place = enter(names[0], with_musl=names[0] != "musl")
    else:
        raise NablaError(
            f"there is no build folder of {names[0]!r}",
            "name a recipe, after building it here; of a result that the cache had, this makes one:\n"
            f"doit clean {names[0]} && doit fresh=1 {names[0]}",
        )
    place.shell()
