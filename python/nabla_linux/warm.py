# SPDX-License-Identifier: Apache-2.0
"""Snapshots of sandboxes whose Python has started, for `Sandbox.create(snapshot=…)` and `run_code`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from . import parts
from .errors import SandboxError
from .sandbox import Sandbox


def warm_python(
    image: str | os.PathLike[str] | None = None,
    *,
    memory: str = "256M",
    modules: Iterable[str] = (),
    nabla_run: str | os.PathLike[str] | None = None,
) -> Path:
    """Return a snapshot of a sandbox on `image` whose Python has started and has imported `modules`.

    The first call creates it, which takes as long as the start of Python; the file stays in `parts.cache_folder()`. A
    file that no longer fits, as after a change of the image, is created again. Raises `SandboxError`.
    """
    words = tuple(modules)
    used = Path(image) if image is not None else parts.image()
    program = parts.nabla_run(nabla_run)
    inputs = [str(used.resolve()), str(program.resolve()), memory, *words]
    name = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:32]
    target = parts.cache_folder() / f"{name}.snap"
    if target.exists() and _fits(target, used, program):
        return target
    with (
        tempfile.TemporaryDirectory(dir=target.parent) as folder,
        Sandbox.create(used, memory=memory, nabla_run=program) as sandbox,
    ):
        sandbox._interpreter.start(words)
        # what the first call needs is in the snapshot, too
        sandbox.run_code("1")
        os.replace(sandbox.snapshot(Path(folder) / "new"), target)
    return target


def _fits(snapshot: Path, image: Path, program: Path) -> bool:
    with (
        contextlib.suppress(SandboxError),
        Sandbox.create(image, snapshot=snapshot, nabla_run=program) as sandbox,
    ):
        return sandbox.commands.run(["true"]).exit_code == 0
    return False
