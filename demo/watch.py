# SPDX-License-Identifier: Apache-2.0
"""See it work: a machine's terminal, and beside it, live, what the machine asks of the host.

Everything happens in one loop of one thread: keys go to the machine, what it writes goes to an emulated terminal, its
counters come through a pipe, and signals come through another one.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ptyprocess import PtyProcess
from rich.console import Console

from demo import terminal
from demo.screen import Terminal
from demo.stats import History, Lines
from demo.terminal import STDIN, Window
from demo.view import Facts, Layout, View, layout, short
from nabla.core import process

LEAVE_KEY = b"\x1d"  # ctrl-]
TERM = "linux"  # what pyte emulates
_FRAME = 1 / 30  # seconds
_IDLE = 1.0  # seconds after which memory is looked at again
_CHUNK = 8192  # bytes of the machine's output between two looks at the keyboard
_KEYS_MAX = 1 << 20  # bytes typed ahead; more is dropped, as a terminal does it
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Outcome:
    """How it went. `status`: exit status of nabla-run. `left`: the user left before the machine's end.

    `told`: the signal that ended the demo. `text`: the last rows of the machine's terminal.
    """

    status: int
    left: bool
    told: int
    text: list[str]
    history: History

    def summary(self) -> str:
        """Return one line: which calls were made how often."""
        calls = [f"{name} {short(count)}" for name, count in self.history.last.calls.items() if count]
        return f"host calls: {', '.join(calls)}" if calls else "the machine ended before its calls were counted"


def watch(argv: Sequence[str | Path], memory: str, *, stay: bool) -> Outcome:
    """Show nabla-run with the words `argv` on the caller's terminal until the machine ends or the user leaves.

    `memory`: what the machine was given, to be shown. `stay`: when it has ended, wait for a key. Raises `HostError`
    without a terminal. A signal ends the machine, and the terminal is given back.
    """
    terminal.check()
    with ExitStack() as stack:
        wake = stack.enter_context(_pipe())
        stats = stack.enter_context(_pipe())
        for end in wake:
            os.set_blocking(end, False)
        stack.enter_context(terminal.signals_to(wake[1]))
        window = stack.enter_context(Window())
        place = layout(*terminal.size())
        # The option belongs to nabla-run, so it comes before the image and the command.
        words = [argv[0], "--stats-fd", str(stats[1]), *argv[1:]]
        child = stack.enter_context(
            process.on_terminal(
                words, rows=place.guest.rows, cols=place.guest.cols, env={"TERM": TERM}, pass_fds=(stats[1],)
            )
        )
        os.set_blocking(child.fd, False)
        return _Demo(window, child, stats[0], wake[0], memory, stay, place).loop()


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@dataclass
class _Demo:
    window: Window
    process: PtyProcess
    stats: int
    wake: int
    memory: str
    stay: bool
    place: Layout
    keys: bytearray = field(default_factory=bytearray)  # for the machine, not yet taken
    history: History = field(default_factory=History)
    lines: Lines = field(default_factory=Lines)
    resident: int | None = None
    ended: int | None = None
    left: bool = False
    told: int = 0
    panel_due: bool = True
    drawn: float = 0.0
    looked: float = 0.0

    def __post_init__(self) -> None:
        console = Console(file=sys.__stdout__, force_terminal=True)
        self.view = View(None if console.no_color else console.color_system, terminal.speaks_utf8())
        self.terminal = Terminal(self.place.guest.rows, self.place.guest.cols, self.view.colours)
        self.panel: list[str] = []
        self.size = terminal.size()

    def loop(self) -> Outcome:
        """Go on until there is a reason to end."""
        with selectors.DefaultSelector() as selector:
            selector.register(STDIN, selectors.EVENT_READ, self._on_key)
            selector.register(self.wake, selectors.EVENT_READ, self._on_wake)
            selector.register(self.stats, selectors.EVENT_READ, self._on_stats)
            selector.register(self.process.fd, selectors.EVENT_READ, self._on_output)
            while not self._is_over():
                if self.ended is None:
                    wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.keys else 0)
                    selector.modify(self.process.fd, wanted, self._on_output)
                for key, _ in selector.select(self._time_left()):
                    key.data()
                if self.ended is None and not self.process.isalive():
                    self._on_end(selector)
                self._draw()
        status = self.ended
        if status is None:
            self.process.kill(signal.SIGTERM)
            status = 128 + signal.SIGTERM
        return Outcome(status, self.left, self.told, [row for row in self.terminal.text() if row], self.history)

    def _is_over(self) -> bool:
        return self.left or self.told != 0 or (self.ended is not None and not self.stay)

    def _time_left(self) -> float:
        now = time.monotonic()
        return max(0.0, min(self.drawn + _FRAME if self.panel_due else now + _IDLE / 4, now + _IDLE / 4) - now)

    def _on_key(self) -> None:
        data = os.read(STDIN, _CHUNK)
        if not data or LEAVE_KEY in data or self.ended is not None:
            self.left = True
        elif len(self.keys) + len(data) <= _KEYS_MAX:
            self.keys += data

    def _on_output(self) -> None:
        """What the machine wrote, and room for what was typed."""
        self._write_keys()
        try:
            data = os.read(self.process.fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the other end any more
            data = b""
        if data:
            self.keys += self.terminal.feed(data)
            self.panel_due = True
        else:
            time.sleep(0.005)  # its end is a moment away

    def _write_keys(self) -> None:
        if self.keys:
            with suppress(OSError):
                del self.keys[: os.write(self.process.fd, self.keys[:_CHUNK])]

    def _on_stats(self) -> None:
        for sample in self.lines.feed(os.read(self.stats, _CHUNK)):
            self.history.add(sample)
        self.panel = []
        self.panel_due = True

    def _on_end(self, selector: selectors.BaseSelector) -> None:
        while True:  # what is left in the terminal
            try:
                data = os.read(self.process.fd, _CHUNK)
            except OSError:
                data = b""
            if not data:
                break
            self.terminal.feed(data)
        selector.unregister(self.process.fd)
        number = self.process.signalstatus
        self.ended = 128 + number if number is not None else int(self.process.exitstatus or 0)
        self.panel = []
        self.panel_due = True

    def _on_wake(self) -> None:
        for number in os.read(self.wake, 64):
            if number == signal.SIGWINCH:
                self._resize()
            elif number == signal.SIGTSTP:
                self.window.leave()
                os.kill(os.getpid(), signal.SIGSTOP)
                self.window.enter()
                self._resize()
            elif number in terminal.SIGNALS:
                self.told = number

    def _resize(self) -> None:
        self.size = terminal.size()
        self.place = layout(*self.size)
        guest = self.place.guest
        self.terminal.resize(guest.rows, guest.cols)
        with suppress(OSError):
            self.process.setwinsize(guest.rows, guest.cols)
        self.window.forget()
        self.panel = []
        self.panel_due = True

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self.looked > _IDLE:
            self.looked = now
            self.resident = _resident(self.process.pid)
        if not self.panel_due or now - self.drawn < _FRAME:
            return
        self.drawn, self.panel_due = now, False
        if self.place.panel is not None and not self.panel:
            facts = Facts(self.memory, self.resident, self.ended)
            self.panel = self.view.panel(self.history, facts, self.place.panel)
        frame = self.view.frame(self.size, self.terminal.rows(), self.panel)
        self.window.show(frame, self.terminal.cursor() if self.ended is None else None)


def _resident(launcher: int) -> int | None:
    """Return how much of the host's memory the launcher's child has, in bytes; None when the host does not tell."""
    with suppress(OSError, ValueError, IndexError):
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        # The network helper may be a child as well; the machine is the last that was started.
        return int(Path(f"/proc/{children[-1]}/statm").read_text().split()[1]) * _PAGE
    return None
