# SPDX-License-Identifier: Apache-2.0
"""Shuffle Python's listings of folders; in the module path of second builds only (nabla/repro)."""

from __future__ import annotations

import os
import random
from typing import Any

_listdir, _scandir = os.listdir, os.scandir


class _Shuffled:
    """A shuffled os.scandir."""

    def __init__(self, *words: Any) -> None:
        with _scandir(*words) as entries:
            self._entries = list(entries)
        random.shuffle(self._entries)

    def __iter__(self) -> _Shuffled:
        return self

    def __next__(self) -> os.DirEntry[str]:
        if not self._entries:
            raise StopIteration
        return self._entries.pop()

    def __enter__(self) -> _Shuffled:
        return self

    def __exit__(self, *what: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: no folder is open."""


def _list(*words: Any) -> list[str]:
    names = _listdir(*words)
    random.shuffle(names)
    return names


setattr(os, "listdir", _list)  # noqa: B010 (type checkers reject a plain assignment)
setattr(os, "scandir", _Shuffled)  # noqa: B010
