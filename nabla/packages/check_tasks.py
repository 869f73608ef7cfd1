# SPDX-License-Identifier: Apache-2.0
"""Checks that take minutes: test suites of other projects, run in a VM.

kernel, launcher, rootfs:packages -> check:<recipe with tests> -> out/check/<recipe>.json
Other areas add checks by a function `check_steps`.
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.core.artifacts import package_record
from nabla.core.paths import NABLA_RUN, VMLINUX
from nabla.engine import discovery, task
from nabla.engine.task import TaskDict
from nabla.packages import catalog, upstream_tests


def task_check() -> Iterator[TaskDict]:
    """Run test suites of other projects in a VM."""
    yield task.group("check", "run test suites of other projects in a VM (minutes)")
    yield from discovery.steps("check_steps")
    for loaded in catalog.recipes():
        if loaded.package.check:
            yield task.step(
                f"check:{loaded.name}",
                upstream_tests.check_package,
                doc=f"run the tests of {loaded.name} in the guest",
                inputs=[package_record(loaded.name), upstream_tests.IMAGE, VMLINUX, NABLA_RUN],
                outputs=[upstream_tests.record_path(loaded.name)],
                config=loaded.package.check,
                args=[loaded.name],
            )
