# SPDX-License-Identifier: Apache-2.0
"""A bar that counts compiled objects in the output of a build.

How many there will be is either counted beforehand (`make -n`) or remembered from the last complete build of the same
thing; where neither is known the bar shows the count alone, not a guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from tqdm import tqdm

from nabla import log, store
from nabla.paths import STATE

# kbuild's short form (`  CC      fs/open.o`) and a plain compiler call (`gcc … -c …`, musl and small programs).
COMPILED = re.compile(r"^\s+(?:CC|AS|HOSTCC|HOSTCXX|LDS|AR|LD)\s|(?:^|/|\s)\S*(?:gcc|cc)(?:-\d+)?\s.*\s-c(?:\s|$)")


@dataclass
class Counter:
    """Counts matching lines; pass it as `progress` to a command."""

    bar: tqdm[NoReturn]
    pattern: re.Pattern[str] = COMPILED
    done: int = 0

    def __call__(self, line: str) -> None:
        """Look at one line of the build's output."""
        if self.pattern.search(line):
            self.done += 1
            if self.bar.total is not None and self.done > self.bar.total:
                self.bar.total = self.done
            self.bar.update()


@contextmanager
def counting(title: str, key: str, total: int | None = None, pattern: re.Pattern[str] = COMPILED) -> Iterator[Counter]:
    """Show a bar while the body runs; without `total` the number remembered under `key` is used, if there is one.

    The number is remembered when the body ends well.
    """
    remembered = _remembered().get(key)
    with tqdm(total=total or remembered, desc=title, unit="obj", disable=None, leave=False) as bar:
        counter = Counter(bar, pattern)
        yield counter
    if total is None and counter.done:
        _remember(key, counter.done)
    log.info(f"{title}: {counter.done} objects")


def _remembered() -> dict[str, int]:
    try:
        table: dict[str, int] = json.loads((STATE / "objects.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return table


def _remember(key: str, number: int) -> None:
    store.make_folder(STATE)
    with store.lock(STATE / "locks" / "objects", "waiting for the object counts"):
        partial = STATE / ".objects.json.partial"
        partial.write_text(json.dumps({**_remembered(), key: number}, sort_keys=True), encoding="utf-8")
        partial.rename(STATE / "objects.json")
