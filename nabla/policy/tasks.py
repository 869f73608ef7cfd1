# SPDX-License-Identifier: Apache-2.0
"""Committed files that are generated from launcher/policy.toml: the kernel's filter and a page of the documentation.

lock:policy (on demand) -> arch/um/nommu/policy.h inside patches/linux, docs/host-syscalls.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from nabla.core import files, log
from nabla.core.errors import ConfigError
from nabla.core.paths import OUT, relative
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.task import TaskDict
from nabla.policy import model, patch_text
from nabla.sources import recipe

FILTER = OUT / "policy" / "filter"
HEADER = "arch/um/nommu/policy.h"


def lock_steps() -> Iterator[TaskDict]:
    """Yield `lock:policy`, one of the group `lock`."""
    yield task.step(
        "lock:policy",
        update,
        doc="write the filter of launcher/policy.toml into its kernel patch, and its page in docs/",
        always=True,
    )


def task_policy() -> Iterator[TaskDict]:
    """Write the policy's filter to a file."""
    yield task.command(
        "policy:dump",
        dump,
        doc="write the filter of launcher/policy.toml to out/policy/filter, for verify.seccomp",
        params=[
            {
                "name": "settings",
                "short": "s",
                "long": "set",
                "type": list,
                "default": [],
                "help": "NAME=VALUE: a constant of the VM (0 if not set)",
            }
        ],
    )


def dump(settings: list[str]) -> None:
    """Write the filter with the given constants. Raises `ConfigError` for an unknown constant or an invalid policy."""
    from nabla.policy import compiler

    constants = dict.fromkeys(model.CONSTANTS, 0)
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in constants:
            raise ConfigError(f"there is no constant {name!r}", f"known constants: {', '.join(constants)}")
        try:
            constants[name] = int(value, 0)
        except ValueError:
            raise ConfigError(f"--set {setting}: {value!r} is not a number", "such as --set TIMER=3") from None
    lines = compiler.compile_policy(model.load())
    files.write(FILTER, b"".join(struct.pack("<HBBI", *fields) for fields in compiler.fill(lines, constants)))
    log.info(f"{relative(FILTER)}: {len(lines)} instructions")


def update(job: Job) -> None:
    """Write changed files. Raises `ConfigError` for an invalid policy, `PatchError` if no patch adds the header."""
    # Imported when needed: the template library would delay each start of doit.
    from nabla.policy import document, header

    policy = model.load()
    added = patch_text.find(recipe.load("linux").patches, HEADER)
    written = [
        _write(added.patch, patch_text.replace(added, header.render(policy))),
        _write(document.PAGE, document.render(policy, document.read_rates())),
    ]
    for line in written:
        log.info(line)
        job.note(line)


def _write(path: Path, text: str) -> str:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return f"{relative(path)}: unchanged"
    files.write(path, text)
    return f"{relative(path)}: written"
