# SPDX-License-Identifier: Apache-2.0
"""The host's terminal during the demo: raw, on its alternate screen, and restored in every case."""

from __future__ import annotations

import locale
import os
import shutil
import signal
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from nabla.core.errors import HostError

STDIN, STDOUT = 0, 1
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH, signal.SIGTSTP)
# The alternate screen without line wrap; and back to the usual style, cursor and key modes.
_ENTER = "\x1b[?1049h\x1b[?7l\x1b[0m\x1b[2J"
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"


def check() -> None:
    """Raise `HostError` unless standard input and output are a terminal that can show the demo."""
    if not (os.isatty(STDIN) and os.isatty(STDOUT)):
        hint = "without one: out/bin/nabla-run --json IMAGE -- COMMAND prints the host calls at the end"
        raise HostError("the demo needs a terminal for its input and output", hint)
    if os.environ.get("TERM", "dumb") == "dumb":
        raise HostError("the demo needs a terminal that can move its cursor; by TERM, it cannot", "try TERM=xterm")


def speaks_utf8() -> bool:
    """Return whether the user's locale uses UTF-8."""
    return locale.getencoding().lower().replace("-", "") == "utf8"


def size() -> tuple[int, int]:
    """Return rows and columns of the terminal; 24 x 80 if unknown."""
    with suppress(OSError):
        terminal = os.get_terminal_size(STDOUT)
        if terminal.lines and terminal.columns:
            return terminal.lines, terminal.columns
    fallback = shutil.get_terminal_size((80, 24))
    return fallback.lines, fallback.columns


def write(text: str) -> None:
    """Write the complete text, in the locale's encoding."""
    data = text.encode(locale.getencoding(), errors="replace")
    while data:
        data = data[os.write(STDOUT, data) :]


@contextmanager
def signals_to(descriptor: int) -> Iterator[None]:
    """Write the number of each signal in SIGNALS as one byte to a non-blocking pipe, instead of its default effect."""
    # Python writes the byte only if a Python handler is installed.
    before = {number: signal.signal(number, _nothing) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


class Window:
    """The terminal as rows of text; only changed rows are written."""

    def __init__(self) -> None:
        self._before = termios.tcgetattr(STDIN)
        self._shown: list[str] = []
        self._cursor: tuple[int, int] | None = None

    def __enter__(self) -> Window:
        self.enter()
        return self

    def __exit__(self, *reason: object) -> None:
        self.leave()

    def enter(self) -> None:
        """Take the terminal in raw mode."""
        tty.setraw(STDIN, termios.TCSANOW)
        self.forget()

    def leave(self) -> None:
        """Restore the terminal's modes; even from the background, where this would stop the process."""
        with suppress(OSError):  # the terminal may be gone
            write(_LEAVE)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            with suppress(termios.error):
                termios.tcsetattr(STDIN, termios.TCSANOW, self._before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def forget(self) -> None:
        """Redraw everything the next time, because the size has changed."""
        self._shown = []
        write(_ENTER)

    def show(self, rows: Sequence[str], cursor: tuple[int, int] | None) -> None:
        """Show these rows, and the cursor at row and column, from 0."""
        out = [f"\x1b[{y + 1};1H{row}" for y, row in enumerate(rows) if y >= len(self._shown) or self._shown[y] != row]
        if not out and cursor == self._cursor:
            return
        self._shown, self._cursor = list(rows), cursor
        position = f"\x1b[{cursor[0] + 1};{cursor[1] + 1}H\x1b[?25h" if cursor is not None else ""
        write("".join(["\x1b[?25l", *out, position]))
