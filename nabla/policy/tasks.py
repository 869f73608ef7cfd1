# SPDX-License-Identifier: Apache-2.0
"""What is made from launcher/policy.toml and committed: the kernel's filter and a page of the documentation.

lock:policy (on demand) -> arch/um/nommu/policy.h inside patches/linux, docs/host-syscalls.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nabla.core import files, log
from nabla.core.paths import relative
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.task import TaskDict
from nabla.policy import model, patch_text
from nabla.sources import recipe

HEADER = "arch/um/nommu/policy.h"


def lock_steps() -> Iterator[TaskDict]:
    """Yield `lock:policy`, one of the group `lock`."""
    yield task.step(
        "lock:policy",
        renew,
        doc="write the filter of launcher/policy.toml into its kernel patch, and its page in docs/",
        always=True,
    )


def renew(job: Job) -> None:
    """Write what differs; raises `ConfigError` for a wrong policy, `PatchError` when no patch adds the header."""
    # The library of templates takes time, which every start of doit would pay.
    from nabla.policy import document, header

    wanted = model.load()
    added = patch_text.find(recipe.load("linux").patches, HEADER)
    written = [
        _write(added.patch, patch_text.replace(added, header.render(wanted))),
        _write(document.PAGE, document.render(wanted, document.read_rates())),
    ]
    for line in written:
        log.info(line)
        job.note(line)


def _write(path: Path, text: str) -> str:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return f"{relative(path)}: nothing changed"
    files.write(path, text)
    return f"{relative(path)}: written"
