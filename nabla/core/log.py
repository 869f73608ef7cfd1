# SPDX-License-Identifier: Apache-2.0
"""Messages to the user on standard error: steps with elapsed time, notes, warnings.

In pytest only warnings are printed. Color is used on a terminal that is not dumb, unless `NO_COLOR` is set.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_depth = threading.local()  # .value: open steps of this thread


def is_quiet() -> bool:
    """Return whether only warnings are printed: in pytest, or with `NABLA_QUIET=1`."""
    return "PYTEST_CURRENT_TEST" in os.environ or os.environ.get("NABLA_QUIET") == "1"


def _color(text: str, code: str) -> str:
    fancy = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")
    return f"\x1b[{code}m{text}\x1b[0m" if fancy else text


def _emit(text: str) -> None:
    # One write for each line, so that lines of two processes of `doit -n 2` do not mix.
    sys.stderr.write("  " * getattr(_depth, "value", 0) + text + "\n")
    sys.stderr.flush()


def info(message: str) -> None:
    """Print one line, indented by the number of open steps."""
    if not is_quiet():
        _emit(message)


def warn(message: str) -> None:
    """Print a warning, also in tests."""
    _emit(_color(f"warning: {message}", "33"))


def error(message: str) -> None:
    """Print an error, also in tests; the text before the colon has a color."""
    head, colon, rest = message.partition(":")
    _emit(_color(head, "31") + colon + rest)


def seconds(duration: float) -> str:
    """Return a duration as text: `0.3 s`, `42 s`, `3 min 07 s`."""
    if duration < 10:
        return f"{duration:.1f} s"
    if duration < 60:
        return f"{duration:.0f} s"
    whole = round(duration)
    return f"{whole // 60} min {whole % 60:02d} s"


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print `title` and, after the body succeeded, its duration; inner lines are indented."""
    info(f"{title} …")
    begin = time.monotonic()
    before = getattr(_depth, "value", 0)
    _depth.value = before + 1
    try:
        yield
    finally:
        _depth.value = before
    info(_color(f"{title}: done in {seconds(time.monotonic() - begin)}", "2"))
