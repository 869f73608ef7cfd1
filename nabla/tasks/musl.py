# SPDX-License-Identifier: Apache-2.0
"""The guest's C library, which is also the sysroot that guest programs are compiled against.

toolchain:unpack -> musl:unpack -> :patch -> :configure -> :build -> :install -> out/musl
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla import build
from nabla.paths import MUSL
from nabla.tasklib import TaskDict, Tree


def task_musl() -> Iterator[TaskDict]:
    """Build the C library of the guest."""
    yield from build.steps("musl", "musl", {".": Tree(MUSL)}, doc="build the guest's C library", with_musl=False)
