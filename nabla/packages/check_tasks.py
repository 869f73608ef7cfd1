# SPDX-License-Identifier: Apache-2.0
"""Checks that take minutes: other projects' own test suites, run inside the machine.

musl -> check:stock-busybox -> out/check/busybox
kernel, launcher, rootfs:minimal, check:stock-busybox -> check:busybox -> out/check/busybox-testsuite.md
kernel, launcher, rootfs:packages -> check:<recipe with tests> -> out/check/<recipe>.json
Areas with other checks say so by `check_steps`.
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.core.artifacts import BUILD_ROOT, Tree, package_record, source_record
from nabla.core.paths import MUSL, NABLA_RUN, VMLINUX
from nabla.engine import discovery, task
from nabla.engine.task import TaskDict
from nabla.packages import busybox_suite, catalog, upstream_tests


def task_check() -> Iterator[TaskDict]:
    """Run other projects' test suites inside the VM."""
    yield task.group("check", "run other projects' own test suites inside the VM (minutes)")
    yield task.step(
        "check:stock-busybox",
        busybox_suite.build_stock,
        doc="build busybox as upstream has it, to compare with",
        inputs=[busybox_suite.FRAGMENT, source_record("busybox"), Tree(MUSL), BUILD_ROOT],
        outputs=[Tree(busybox_suite.STOCK)],
    )
    yield task.step(
        "check:busybox",
        busybox_suite.check_busybox,
        doc="run busybox's test suite in the guest and on the host",
        inputs=[Tree(busybox_suite.STOCK), busybox_suite.IMAGE, VMLINUX, NABLA_RUN, busybox_suite.KNOWN],
        outputs=[busybox_suite.REPORT],
    )
    yield from discovery.steps("check_steps")
    for loaded in catalog.recipes():
        if loaded.package.check:
            yield task.step(
                f"check:{loaded.name}",
                upstream_tests.check_package,
                doc=f"run the tests of {loaded.name} in the guest, as its recipe says",
                inputs=[package_record(loaded.name), upstream_tests.IMAGE, VMLINUX, NABLA_RUN],
                outputs=[upstream_tests.record_path(loaded.name)],
                config=loaded.package.check,
                args=[loaded.name],
            )
