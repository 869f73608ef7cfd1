# SPDX-License-Identifier: Apache-2.0
"""Free memory stays in large pieces under long mixed work, and the end of memory ends only those who took it.

kernel, launcher, rootfs:test -> check:fragmentation -> out/check/fragmentation.json
                              -> check:exhaustion    -> out/check/exhaustion.json
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.core.paths import NABLA_RUN, VMLINUX
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.task import TaskDict
from tests.memory import exhaustion, fragmentation


def check_steps() -> Iterator[TaskDict]:
    """Yield the task `check:fragmentation`, which takes half an hour and does not belong to the group."""
    yield task.ungrouped(
        task.step(
            "check:fragmentation",
            run,
            doc="run a mixture of programs in VMs of three sizes for half an hour",
            inputs=[fragmentation.IMAGE, VMLINUX, NABLA_RUN],
            outputs=[fragmentation.RESULT],
        )
    )
    yield task.ungrouped(
        task.step(
            "check:exhaustion",
            exhaust,
            doc="let processes take all memory of a VM in 1,000 rounds",
            inputs=[exhaustion.IMAGE, VMLINUX, NABLA_RUN],
            outputs=[exhaustion.RESULT],
        )
    )


def run(job: Job) -> None:
    """Run the mixture in VMs of all sizes."""
    for outcome in fragmentation.check(job.out(fragmentation.RESULT)).outcomes:
        job.note(f"{outcome.memory}: {outcome.actions} actions, {outcome.largest} of {outcome.free} MB in one piece")


def exhaust(job: Job) -> None:
    """Run the rounds."""
    outcome = exhaustion.check(job.out(exhaustion.RESULT))
    job.note(f"{outcome.rounds} rounds, the longest wait {outcome.worst} ms, {outcome.refused} starts refused")
