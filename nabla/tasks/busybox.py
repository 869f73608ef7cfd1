# SPDX-License-Identifier: Apache-2.0
"""The guest's basic commands and its shell, for a machine without fork.

musl:install -> busybox:configure -> :build -> :install -> out/busybox
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla import build
from nabla.paths import BUSYBOX
from nabla.tasklib import TaskDict, Tree


def task_busybox() -> Iterator[TaskDict]:
    """Build the guest's basic commands."""
    doc = "build the guest's basic commands and shell"
    yield from build.steps("busybox", "busybox", {".": Tree(BUSYBOX)}, doc=doc, with_musl=True)
