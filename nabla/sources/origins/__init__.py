# SPDX-License-Identifier: Apache-2.0
"""Where files come from: one module for each kind of origin.

Each has a function `obtain(origin, request) -> Delivery`. It delivers a file of the size and sha256 wanted, or raises a
`FetchError` that says why it could not; checking is done by the caller, nabla.sources.fetch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.core.process import Result, run
from nabla.sources.store import Store


@dataclass(frozen=True)
class Request:
    """What an origin needs beside its own data: the name for messages, folders, the log file of the task."""

    name: str
    cache: Store
    folder: Path  # empty, temporary, on the file system of the cache
    log: Path | None = None

    def run(self, argv: Sequence[str | Path], **options: Any) -> Result:
        """Run a program, with its output in the task's log file where there is one."""
        return run(argv, log=self.log, **options)


@dataclass(frozen=True)
class Delivery:
    """A file as it arrived, unchecked, and its detached signature where the origin has one."""

    file: Path
    signature: Path | None = None
