# SPDX-License-Identifier: Apache-2.0
"""One module for each kind of origin.

Each has a function `obtain(origin, request) -> Delivery`, which downloads a file or raises a `FetchError` with the
reason. The caller, nabla.sources.fetch, verifies the file.
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
    """The parameters of a download: the name for messages, the cache, a folder, the log file of the task."""

    name: str
    cache: Store
    folder: Path  # empty, temporary, on the file system of the cache
    log: Path | None = None

    def run(self, argv: Sequence[str | Path], **options: Any) -> Result:
        """Run a program; its output goes to the task's log file, if there is one."""
        return run(argv, log=self.log, **options)


@dataclass(frozen=True)
class Delivery:
    """A downloaded file before its verification, and its detached signature if the origin has one.

    `sha256`: the digest of the file, if the download computed it.
    """

    file: Path
    signature: Path | None = None
    sha256: str | None = None
