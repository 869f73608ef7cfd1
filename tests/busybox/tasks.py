# SPDX-License-Identifier: Apache-2.0
"""The test suite of busybox, in the guest and on the host.

musl -> check:stock-busybox -> out/check/busybox
kernel, launcher, rootfs:minimal, check:stock-busybox -> check:busybox -> out/check/busybox-testsuite.md
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.core.artifacts import BUILD_ROOT, Tree, source_record
from nabla.core.paths import MUSL, NABLA_RUN, VMLINUX
from nabla.engine import task
from nabla.engine.task import TaskDict
from tests.busybox import suite


def check_steps() -> Iterator[TaskDict]:
    """Yield busybox's steps of the group `check`."""
    yield task.step(
        "check:stock-busybox",
        suite.build_stock,
        doc="build upstream's busybox for the comparison",
        inputs=[suite.FRAGMENT, source_record("busybox"), Tree(MUSL), BUILD_ROOT],
        outputs=[Tree(suite.STOCK)],
    )
    yield task.step(
        "check:busybox",
        suite.check_busybox,
        doc="run busybox's test suite in the guest and on the host",
        inputs=[Tree(suite.STOCK), suite.IMAGE, VMLINUX, NABLA_RUN, suite.KNOWN],
        outputs=[suite.REPORT],
    )
