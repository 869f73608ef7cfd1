# SPDX-License-Identifier: Apache-2.0
"""Lines for the person at the terminal: steps with elapsed time, notes, warnings. All go to standard error.

Inside pytest only warnings are shown. Colour is used on a terminal that is not dumb and where `NO_COLOR` is not set.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_depth = 0


def is_quiet() -> bool:
    """Tell whether only warnings are wanted: inside pytest, or with `NABLA_QUIET=1`."""
    return "PYTEST_CURRENT_TEST" in os.environ or os.environ.get("NABLA_QUIET") == "1"


def _colour(text: str, code: str) -> str:
    fancy = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")
    return f"\x1b[{code}m{text}\x1b[0m" if fancy else text


def _emit(text: str) -> None:
    # One write per line: two processes of `doit -n 2` must not mix within a line.
    sys.stderr.write("  " * _depth + text + "\n")
    sys.stderr.flush()


def info(message: str) -> None:
    """Show one line, indented by the steps that are open."""
    if not is_quiet():
        _emit(message)


def warn(message: str) -> None:
    """Show one line that deserves attention, also in tests."""
    _emit(_colour(f"warning: {message}", "33"))


def error(message: str) -> None:
    """Show a failure, also in tests; the first word is in colour."""
    head, colon, rest = message.partition(":")
    _emit(_colour(head, "31") + colon + rest)


def seconds(duration: float) -> str:
    """Return a duration in words: `0.3 s`, `42 s`, `3 min 07 s`."""
    if duration < 10:
        return f"{duration:.1f} s"
    if duration < 60:
        return f"{duration:.0f} s"
    whole = round(duration)
    return f"{whole // 60} min {whole % 60:02d} s"


@contextmanager
def step(title: str) -> Iterator[None]:
    """Show `title` now and, when the body ends well, how long it took; inner lines are indented."""
    global _depth
    info(f"{title} …")
    begin = time.monotonic()
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    info(_colour(f"{title}: done in {seconds(time.monotonic() - begin)}", "2"))
