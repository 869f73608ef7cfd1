# SPDX-License-Identifier: Apache-2.0
"""Makes Python list folders in another order each time; on the path of second builds only (nabla/repro)."""

from __future__ import annotations

import os
import random
from typing import Any

_listdir, _scandir = os.listdir, os.scandir


class _Shuffled:
    """What os.scandir returns, in another order."""

    def __init__(self, *words: Any) -> None:
        with _scandir(*words) as found:
            self._entries = list(found)
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
        """Nothing is open."""


def _list(*words: Any) -> list[str]:
    found = _listdir(*words)
    random.shuffle(found)
    return found


setattr(os, "listdir", _list)  # noqa: B010 (a plain assignment is an error to type checkers)
setattr(os, "scandir", _Shuffled)  # noqa: B010
