# SPDX-License-Identifier: Apache-2.0
"""Progress bars (tqdm) of downloads, in bytes; shown on a terminal only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from nabla import log


class Bar:
    """One bar: `total` bytes (None: unknown), `done` of them already there."""

    def __init__(self, title: str, total: int | None, done: int = 0) -> None:
        hidden = not sys.stderr.isatty() or log.is_quiet()
        self._bar = tqdm(desc=title, total=total, initial=done, unit="B", unit_scale=True, leave=False, disable=hidden)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, amount: int) -> None:
        """Move forward by `amount` bytes."""
        self._bar.update(amount)

    def move_to(self, position: int) -> None:
        """Move to an absolute position, not beyond the total."""
        total = self._bar.total
        self._bar.update((position if total is None else min(position, int(total))) - int(self._bar.n))


@contextmanager
def watch_folder(title: str, folder: Path, total: int) -> Iterator[None]:
    """Show how many bytes lie below `folder` while another program downloads into it."""
    finished = threading.Event()

    def watch(bar: Bar) -> None:
        while not finished.wait(0.2):
            bar.move_to(_bytes_below(folder))

    with Bar(title, total) as bar:
        watcher = threading.Thread(target=watch, args=(bar,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()
            watcher.join()


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total
