# SPDX-License-Identifier: Apache-2.0
"""The system calls of x86-64 by number and by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def names() -> dict[int, str]:
    """Return the names of x86-64's system calls by number (verify/syscalls_x86_64.txt)."""
    text = Path(__file__).with_name("syscalls_x86_64.txt").read_text(encoding="utf-8")
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {int(number): name for number, name in rows}


@cache
def numbers() -> dict[str, int]:
    """Return the numbers of x86-64's system calls by name."""
    return {name: number for number, name in names().items()}
