# SPDX-License-Identifier: Apache-2.0
"""The committed sums of artifacts: `doit digests` compares them, `doit lock:digests` updates them.

packages -> digests:packages -> digests:sbom -+
kernel, rootfs:<released image> -> digests:oci +-> digests, lock:digests -> digests/*.sha256
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.core import log
from nabla.core.artifacts import ARTIFACTS, DIGEST_GROUPS
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.task import TaskDict
from nabla.release import digests

_AFTER = (
    *(
        task
        for name in ("kernel", "musl", "busybox", "init", "launcher", "client", "runtime", "images")
        for task in ARTIFACTS[name].tasks
    ),
    *("digests:packages", "digests:sbom", "digests:oci"),
)


def task_digests() -> Iterator[TaskDict]:
    """Compare the artifacts with the committed sums."""
    yield task.step(
        "digests",
        compare,
        doc="compare the artifacts with the committed sums in digests/",
        after=_AFTER,
        always=True,
    )


def lock_steps() -> Iterator[TaskDict]:
    """Yield `lock:digests`, one of the group `lock`."""
    yield task.step(
        "lock:digests",
        update,
        doc="write the sums of the artifacts to digests/; commit them with the change that causes them",
        after=_AFTER,
        always=True,
    )


def compare(job: Job) -> None:
    """Fail if a sum differs from the committed one."""
    count = digests.check(_sums())
    job.note(f"{count} sums are as committed")
    log.info(f"{count} files have the committed sums")


def update(job: Job) -> None:
    """Write all sums."""
    changed = 0
    for group, sums in _sums().items():
        for line in digests.write(group, sums):
            changed += 1
            job.note(line)
            log.info(line)
    log.info(f"{changed} sums changed" if changed else "digests/: unchanged")


def _sums() -> dict[str, dict[str, str]]:
    return {group: digests.sums(paths) for group, paths in DIGEST_GROUPS.items()}
