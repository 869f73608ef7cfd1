# SPDX-License-Identifier: Apache-2.0
"""Our two small C programs: what starts the machine on the host, and what starts first inside it.

musl:install -> launcher:configure -> :build -> :install -> out/bin/nabla-run
musl:install -> init:configure     -> :build -> :install -> out/init/nabla-init
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla import build
from nabla.paths import NABLA_INIT, NABLA_RUN
from nabla.tasklib import TaskDict


def task_launcher() -> Iterator[TaskDict]:
    """Build nabla-run, which starts the machine."""
    results = {"usr/bin/nabla-run": NABLA_RUN}
    yield from build.steps("launcher", "nabla-run", results, doc="build nabla-run, the launcher", with_musl=True)


def task_init() -> Iterator[TaskDict]:
    """Build nabla-init, the first program of the guest."""
    results = {"sbin/nabla-init": NABLA_INIT}
    doc = "build nabla-init, the guest's first program"
    yield from build.steps("init", "nabla-init", results, doc=doc, with_musl=True)
