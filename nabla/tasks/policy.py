# SPDX-License-Identifier: Apache-2.0
"""What is made from launcher/policy.toml and committed: the kernel's filter and a page of the documentation.

lock:policy (on demand) -> arch/um/nommu/policy.h inside patches/linux, docs/host-syscalls.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nabla import log, policy, policy_patch, recipe, tasklib
from nabla.paths import relative
from nabla.tasklib import Job, TaskDict

HEADER = "arch/um/nommu/policy.h"


def lock_steps() -> Iterator[TaskDict]:
    """Yield `lock:policy`, one of the group `lock`."""
    yield tasklib.step(
        "lock:policy",
        renew,
        doc="write the filter of launcher/policy.toml into its kernel patch, and its page in docs/",
        always=True,
    )


def renew(job: Job) -> None:
    """Write what differs; raises `ConfigError` for a wrong policy, `PatchError` when no patch adds the header."""
    # The library of templates takes time, which every start of doit would pay.
    from nabla import policy_header, policy_page

    wanted = policy.load()
    added = policy_patch.find(recipe.load("linux").patches, HEADER)
    written = [
        _write(added.patch, policy_patch.replace(added, policy_header.render(wanted))),
        _write(policy_page.PAGE, policy_page.render(wanted, policy_page.read_rates())),
    ]
    for line in written:
        log.info(line)
        job.note(line)


def _write(path: Path, text: str) -> str:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return f"{relative(path)}: nothing changed"
    partial = path.with_name(f".{path.name}.new")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)
    return f"{relative(path)}: written"
