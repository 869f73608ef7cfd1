# SPDX-License-Identifier: Apache-2.0
"""What is made from the rest and committed all the same: each area says by `lock_steps` how it renews its own.

lock:update, lock:verify (build roots), lock:policy (the kernel's filter), lock:digests (sums of everything)
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla import tasks
from nabla.tasklib import TaskDict


def task_lock() -> Iterator[TaskDict]:
    """Renew the committed locks."""
    for module in tasks.modules():
        if hasattr(module, "lock_steps"):
            yield from module.lock_steps()
