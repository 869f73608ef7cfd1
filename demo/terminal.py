# SPDX-License-Identifier: Apache-2.0
"""The host's terminal while the demo has it: raw, on its alternate screen, and put back whatever happens."""

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
# The alternate screen, without wrapping at its edge; and back, with the usual style, a cursor, and keys as they were.
_ENTER = "\x1b[?1049h\x1b[?7l\x1b[0m\x1b[2J"
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"


def check() -> None:
    """Raise `HostError` when standard input and output are not a terminal that can show the demo."""
    if not (os.isatty(STDIN) and os.isatty(STDOUT)):
        hint = "without one: out/bin/nabla-run --json IMAGE -- COMMAND tells the host calls at the end"
        raise HostError("the demo needs a terminal for its input and output", hint)
    if os.environ.get("TERM", "dumb") == "dumb":
        raise HostError("the demo needs a terminal that can place its cursor; TERM says it cannot", "try TERM=xterm")


def speaks_utf8() -> bool:
    """Tell whether the user's locale is one of UTF-8."""
    return locale.getencoding().lower().replace("-", "") == "utf8"


def size() -> tuple[int, int]:
    """Return rows and columns of the terminal; one that does not know is taken as 24 x 80."""
    with suppress(OSError):
        found = os.get_terminal_size(STDOUT)
        if found.lines and found.columns:
            return found.lines, found.columns
    fallback = shutil.get_terminal_size((80, 24))
    return fallback.lines, fallback.columns


def write(text: str) -> None:
    """Write all of it, in the locale's encoding."""
    data = text.encode(locale.getencoding(), errors="replace")
    while data:
        data = data[os.write(STDOUT, data) :]


@contextmanager
def signals_to(descriptor: int) -> Iterator[None]:
    """Have each of SIGNALS written as one byte, its number, to a pipe that does not block, instead of its effect."""
    # A handler of Python's own must be there, or the byte is not written.
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
    """The terminal as rows of text; only what changed is written."""

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
        """Take the terminal: each key comes as it is."""
        tty.setraw(STDIN, termios.TCSANOW)
        self.forget()

    def leave(self) -> None:
        """Give the terminal back in the modes it had; even from the background, where that would stop us."""
        with suppress(OSError):  # it may be gone
            write(_LEAVE)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            with suppress(termios.error):
                termios.tcsetattr(STDIN, termios.TCSANOW, self._before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def forget(self) -> None:
        """Draw everything the next time: the size is another one."""
        self._shown = []
        write(_ENTER)

    def show(self, rows: Sequence[str], cursor: tuple[int, int] | None) -> None:
        """Show these rows, and the cursor at row and column, from 0."""
        out = [f"\x1b[{y + 1};1H{row}" for y, row in enumerate(rows) if y >= len(self._shown) or self._shown[y] != row]
        if not out and cursor == self._cursor:
            return
        self._shown, self._cursor = list(rows), cursor
        place = f"\x1b[{cursor[0] + 1};{cursor[1] + 1}H\x1b[?25h" if cursor is not None else ""
        write("".join(["\x1b[?25l", *out, place]))
