# SPDX-License-Identifier: Apache-2.0
"""The programs that test and time the guest from inside; the test image carries them in /usr/lib/nabla-tests.

musl:install -> guest-tests:configure -> :build -> :install -> out/guest-tests
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla import build
from nabla.paths import GUEST_TESTS
from nabla.tasklib import TaskDict, Tree


def task_guest_tests() -> Iterator[TaskDict]:
    """Build the programs of tests/guest and bench/guest."""
    doc = "build the programs that run inside the guest"
    results = {"usr/lib/nabla-tests": Tree(GUEST_TESTS)}
    yield from build.steps("guest-tests", "guest-tests", results, doc=doc, with_musl=True)
