# SPDX-License-Identifier: Apache-2.0
"""Debian's unmodified programs in the guest: an image of each set, and the cases of heavy sets as checks.

tests/programs/<set>/packages.lock, init, rootfs:tools -> programs:<set> -> out/programs/<set>.ext3
programs:<set>, kernel, launcher -> check:programs-<set> (heavy sets) -> out/check/programs-<set>.json
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nabla.core import files, log
from nabla.core.artifacts import IMAGE_TOOLS
from nabla.core.errors import LockError
from nabla.core.paths import NABLA_INIT, NABLA_RUN, OUT, VMLINUX, relative
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.task import TaskDict
from nabla.fs import ext3
from nabla.images.descriptions import seeds, size_bytes
from nabla.sandbox import lockfile
from tests.programs import cases, image


def task_programs() -> Iterator[TaskDict]:
    """Build the images of programs that tests run in the guest."""
    yield task.group("programs", "build the images of all sets of Debian's programs")
    for name in cases.names():
        suite = cases.load(name)
        yield task.step(
            f"programs:{name}",
            make_image,
            doc=f"an image with Debian's programs: {suite.cases.summary}",
            inputs=[suite.pins.lock, suite.pins.requirements, cases.BASE, NABLA_INIT, IMAGE_TOOLS],
            outputs=[suite.image],
            config=suite.cases.size,
            args=[name],
        )


def tested_tasks() -> Iterator[str]:
    """Yield the tasks that the tests need: the images of the light sets."""
    yield from (f"programs:{name}" for name in cases.names() if not cases.load(name).cases.heavy)


def check_steps() -> Iterator[TaskDict]:
    """Yield the part of the group `check` that runs heavy sets."""
    for name in cases.names():
        suite = cases.load(name)
        if suite.cases.heavy:
            yield task.step(
                f"check:programs-{name}",
                run_cases,
                doc=f"run Debian's programs in the guest: {suite.cases.summary}",
                inputs=[cases.FOLDER / name / "cases.toml", suite.image, VMLINUX, NABLA_RUN],
                outputs=[result_path(name)],
                args=[name],
            )


def lock_steps() -> Iterator[TaskDict]:
    """Yield the sets' step of the group `lock`."""
    yield task.step(
        "lock:programs",
        update,
        doc="resolve each tests/programs/*/packages.toml that its lock does not match, and write the locks",
        always=True,
    )


def result_path(name: str) -> Path:
    """Return the file with the outcome of a heavy set."""
    return OUT / "check" / f"programs-{name}.json"


def make_image(job: Job, name: str) -> None:
    """Unpack a set's packages into an image."""
    suite = cases.load(name)
    tree = image.compose(suite)
    job.note(f"{len(tree)} entries")
    uuid, seed = seeds(f"programs-{name}")
    geometry = ext3.Geometry(size_bytes(suite.cases.size), uuid, seed, name)
    ext3.write(tree, geometry, job.out(suite.image), tools=IMAGE_TOOLS.path, scratch=job.scratch(), log=job.log)


def run_cases(job: Job, name: str) -> None:
    """Run the cases of a heavy set."""
    done = cases.check(cases.load(name), job.out(result_path(name)), job.log)
    for case, seconds in done.seconds.items():
        job.note(f"{case}: {seconds} s")


def update(job: Job) -> None:
    """Write the locks that are missing or stale."""
    stale = [suite for suite in map(cases.load, cases.names()) if not _is_current(suite.pins)]
    locks = image.resolve([lockfile.read_requirements(suite.pins.requirements) for suite in stale])
    for suite, lock in zip(stale, locks, strict=True):
        files.write(suite.pins.lock, lockfile.render(lock, suite.pins.requirements.name, "lock:programs"))
        summary = f"{relative(suite.pins.lock)}: {len(lock.files)} packages, {lock.size / 1e6:.0f} MB"
        log.info(summary)
        job.note(summary)


def _is_current(pins: lockfile.Pins) -> bool:
    try:
        lockfile.current(pins)
    except LockError:
        return False
    return True
