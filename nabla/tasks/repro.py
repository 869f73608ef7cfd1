# SPDX-License-Identifier: Apache-2.0
"""Does a second, different build give the same bytes? See nabla/repro.py for what is varied.

repro:prepare -> repro:musl, :busybox, :init, :launcher, :packages, :images, :kernel (each also after its first build)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nabla import log, repro, tasklib
from nabla.package import REPOSITORY
from nabla.paths import BUSYBOX, IMAGES, MUSL, NABLA_INIT, NABLA_RUN, VMLINUX
from nabla.tasklib import Job, TaskDict

# name -> (tasks that make it, what they make)
ARTIFACTS: dict[str, tuple[list[str], list[Path]]] = {
    "musl": (["musl"], [MUSL]),
    "busybox": (["busybox"], [BUSYBOX]),
    "init": (["init"], [NABLA_INIT]),
    "launcher": (["launcher"], [NABLA_RUN]),
    "packages": (["packages"], [REPOSITORY]),
    "images": (["rootfs:minimal", "rootfs:alpine"], [IMAGES / f"{name}.ext3" for name in ("minimal", "alpine")]),
    "kernel": (["kernel"], [VMLINUX]),
}


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
    for name, (tasks, _) in ARTIFACTS.items():
        yield tasklib.step(
            f"repro:{name}",
            compare,
            doc=f"build {name} again and compare",
            after=[*tasks, "repro:prepare"],
            args=[name],
            always=True,
        )


def prepare(job: Job) -> None:
    """Make the second checkout."""
    job.note(str(repro.prepare().root))


def compare(job: Job, name: str) -> None:
    """Build one artifact in the second checkout; print its sum, or fail where the bytes differ."""
    tasks, paths = ARTIFACTS[name]
    second = repro.current()
    second.build(tasks, job.log, fresh_packages=name == "packages")
    for line in second.sums(paths):
        job.note(line)
        log.info(f"identical: {line}")
