# SPDX-License-Identifier: Apache-2.0
"""Tests of installed packages in a VM.

kernel, launcher, rootfs:alpine, packages:<recipe and its dependencies>
    -> package-test:<recipe with tests> -> out/package-tests/<recipe>.json
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.core.artifacts import APK_TOOLS, PUBLIC_KEY, package_record
from nabla.core.paths import NABLA_RUN, VMLINUX
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.task import TaskDict
from nabla.images import package_tests
from nabla.packages import catalog


def task_package_test() -> Iterator[TaskDict]:
    """Run the tests of all packages, optional ones included."""
    yield task.group("package-test", "build all packages, optional ones included, and test each in a VM")
    for loaded in catalog.all_recipes():
        if not package_tests.path_of(loaded.name).is_file():
            continue
        needed = package_tests.recipes(loaded.name)
        yield task.step(
            f"package-test:{loaded.name}",
            run_tests,
            doc=f"install the packages of {loaded.name} in a VM and run its tests",
            inputs=[
                package_tests.path_of(loaded.name),
                *map(package_record, needed),
                *(path for name in needed for path in catalog.apks(catalog.load(name))),
                *(APK_TOOLS, PUBLIC_KEY, package_tests.IMAGE, VMLINUX, NABLA_RUN),
            ],
            outputs=[package_tests.record_path(loaded.name)],
            args=[loaded.name],
        )


def run_tests(job: Job, recipe: str) -> None:
    """Step: run the tests of a recipe."""
    outcome = package_tests.check(recipe, job.out(package_tests.record_path(recipe)), job.log)
    job.note(f"{outcome.recipe} {outcome.version}: {outcome.tests} tests passed")
