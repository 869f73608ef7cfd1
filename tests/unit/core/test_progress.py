# SPDX-License-Identifier: Apache-2.0
"""Counting compiled objects in a build's output."""

from __future__ import annotations

from pathlib import Path

import pytest

from nabla.core import progress

LINES = [
    "  CC      fs/open.o",
    "  AS      arch/um/nommu/entry_64.o",
    "ccache gcc-12 -O2 -c -o obj/src/string/memcpy.lo src/string/memcpy.c",
    "x86_64-linux-musl-gcc -Wall -c main.c -o main.o",
]
OTHER = [
    "  CHK     include/generated/timeconst.h",
    "make[1]: Entering directory '/build'",
    "gcc main.o -o main",
    "cc -v",
]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store the numbers in a private folder."""
    monkeypatch.setattr(progress, "STATE", tmp_path)


def test_number_is_saved_from_a_complete_build() -> None:
    with progress.counting("x", "x") as counter:
        assert counter.bar.total is None
        for line in LINES + OTHER:
            counter(line)
    assert counter.done == len(LINES)
    with pytest.raises(KeyboardInterrupt), progress.counting("x", "x") as counter:
        assert counter.bar.total == len(LINES)
        raise KeyboardInterrupt
    with progress.counting("x", "x") as counter:
        assert counter.bar.total == len(LINES)


def test_counted_number_wins_and_a_surprise_moves_the_end() -> None:
    with progress.counting("x", "x", total=2) as counter:
        for line in LINES:
            counter(line)
        assert counter.bar.total == len(LINES)
    assert progress._saved() == {}
