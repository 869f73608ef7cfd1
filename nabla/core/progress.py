# SPDX-License-Identifier: Apache-2.0
"""Progress bars (tqdm): compiled objects of a build, bytes of a download.

The total number of objects is counted in advance (`make -n`) or known from the last complete build of the component.
Otherwise the bar shows the count without a total.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from nabla.core import files, log
from nabla.core.paths import STATE

# kbuild's short form (`  CC      fs/open.o`) and a command line of the compiler (`gcc … -c …`).
COMPILED = re.compile(r"^\s+(?:CC|AS|HOSTCC|HOSTCXX|LDS|AR|LD)\s|(?:^|/|\s)\S*(?:gcc|cc)(?:-\d+)?\s.*\s-c(?:\s|$)")


@dataclass
class Counter:
    """Counts matching lines; pass it as `progress` to a command."""

    bar: tqdm[NoReturn]
    pattern: re.Pattern[str] = COMPILED
    done: int = 0

    def __call__(self, line: str) -> None:
        """Process one line of the build's output."""
        if self.pattern.search(line):
            self.done += 1
            if self.bar.total is not None and self.done > self.bar.total:
                self.bar.total = self.done
            self.bar.update()


@contextmanager
def counting(title: str, key: str, total: int | None = None, pattern: re.Pattern[str] = COMPILED) -> Iterator[Counter]:
    """Show a bar while the body runs; the default of `total` is the number saved under `key`.

    The number is saved if the body succeeds.
    """
    with tqdm(total=total or _saved().get(key), desc=title, unit="obj", disable=None, leave=False) as bar:
        counter = Counter(bar, pattern)
        yield counter
    if total is None and counter.done:
        _save(key, counter.done)
    log.info(f"{title}: {counter.done} objects")


def _saved() -> dict[str, int]:
    try:
        table: dict[str, int] = json.loads((STATE / "objects.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return table


def _save(key: str, number: int) -> None:
    # If two processes write at the same time, one number is lost until the next build.
    files.write(STATE / "objects.json", json.dumps({**_saved(), key: number}, sort_keys=True))


class Bar:
    """A bar for bytes. `total`: None if unknown; `done`: the bytes at the start."""

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
    """Show the number of bytes below `folder` while another program downloads into it."""
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
