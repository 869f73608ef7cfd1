# SPDX-License-Identifier: Apache-2.0
"""Does a second, different build give the same bytes? See nabla/repro.py for what is varied.

repro:prepare -> repro:musl, :busybox, :init, :launcher, :packages, :images, :kernel (each also after its first build)
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla import log, repro, tasklib
from nabla.artifacts import ARTIFACTS
from nabla.tasklib import Job, TaskDict


def task_repro() -> Iterator[TaskDict]:
    """Build everything a second time, differently, and compare the bytes."""
    yield tasklib.group("repro", "build everything a second time, differently, and compare the bytes")
    yield tasklib.step(
        "repro:prepare",
        prepare,
        doc="copy the checkout to another place, for another user",
        after=["fetch", "toolchain"],
        always=True,
    )
    for name, artifact in ARTIFACTS.items():
        yield tasklib.step(
            f"repro:{name}",
            compare,
            doc=f"build {name} again and compare",
            after=[*artifact.tasks, "repro:prepare"],
            args=[name],
            always=True,
        )


def prepare(job: Job) -> None:
    """Make the second checkout."""
    job.note(str(repro.prepare().root))


def compare(job: Job, name: str) -> None:
    """Build one artifact in the second checkout; print its sum, or fail where the bytes differ."""
    artifact = ARTIFACTS[name]
    second = repro.current()
    second.build(artifact.tasks, job.log, fresh_packages=name == "packages")
    for line in second.sums(artifact.paths):
        job.note(line)
        log.info(f"identical: {line}")
