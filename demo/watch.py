# SPDX-License-Identifier: Apache-2.0
"""A VM's terminal, and beside it, live, its host calls.

One loop in one thread handles everything: keys go to the VM, its output goes to an emulated terminal, its counters
arrive through a pipe, and signals through another one.
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
from demo.view import Layout, Status, View, layout, short
from nabla.core import process

LEAVE_KEY = b"\x1d"  # ctrl-]
TERM = "linux"  # the terminal that pyte emulates
_FRAME = 1 / 30  # seconds
_IDLE = 1.0  # seconds between two readings of the memory size
_CHUNK = 8192  # bytes of the VM's output between two reads of the keyboard
_KEYS_MAX = 1 << 20  # bytes typed ahead; more is dropped, as in a terminal
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Outcome:
    """The result. `status`: exit status of nabla-run. `left`: the user left before the VM's end.

    `end_signal`: the signal that ended the demo. `text`: the last rows of the VM's terminal.
    """

    status: int
    left: bool
    end_signal: int
    text: list[str]
    history: History

    def summary(self) -> str:
        """Return one line with the number of each call."""
        calls = [f"{name} {short(count)}" for name, count in self.history.last.calls.items() if count]
        return f"host calls: {', '.join(calls)}" if calls else "the VM ended before its calls were counted"


def watch(argv: Sequence[str | Path], memory: str, *, stay: bool) -> Outcome:
    """Show nabla-run with the command line `argv` on the caller's terminal until the VM ends or the user leaves.

    `memory`: the VM's memory, for display. `stay`: wait for a key after its end. Raises `HostError`
    without a terminal. A signal ends the VM, and the terminal is restored.
    """
    terminal.check()
    with ExitStack() as stack:
        wake = stack.enter_context(_pipe())
        stats = stack.enter_context(_pipe())
        for end in wake:
            os.set_blocking(end, False)
        stack.enter_context(terminal.signals_to(wake[1]))
        window = stack.enter_context(Window())
        areas = layout(*terminal.size())
        # The option belongs to nabla-run, so it comes before the image and the command.
        words = [argv[0], "--stats-fd", str(stats[1]), *argv[1:]]
        child = stack.enter_context(
            process.on_terminal(
                words, rows=areas.guest.rows, cols=areas.guest.cols, env={"TERM": TERM}, pass_fds=(stats[1],)
            )
        )
        os.set_blocking(child.fd, False)
        return _Demo(window, child, stats[0], wake[0], memory, stay, areas).loop()


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
    areas: Layout
    keys: bytearray = field(default_factory=bytearray)  # for the VM, not yet written
    history: History = field(default_factory=History)
    lines: Lines = field(default_factory=Lines)
    resident: int | None = None
    ended: int | None = None
    left: bool = False
    end_signal: int = 0
    panel_due: bool = True
    drawn: float = 0.0
    looked: float = 0.0

    def __post_init__(self) -> None:
        console = Console(file=sys.__stdout__, force_terminal=True)
        self.view = View(None if console.no_color else console.color_system, terminal.speaks_utf8())
        self.terminal = Terminal(self.areas.guest.rows, self.areas.guest.cols, self.view.colours)
        self.panel: list[str] = []
        self.size = terminal.size()

    def loop(self) -> Outcome:
        """Run until there is a reason to end."""
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
        return Outcome(status, self.left, self.end_signal, [row for row in self.terminal.text() if row], self.history)

    def _is_over(self) -> bool:
        return self.left or self.end_signal != 0 or (self.ended is not None and not self.stay)

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
        """Handle output of the VM, and space for typed keys."""
        self._write_keys()
        try:
            data = os.read(self.process.fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the other end is closed
            data = b""
        if data:
            self.keys += self.terminal.feed(data)
            self.panel_due = True
        else:
            time.sleep(0.005)  # the process is about to end

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
        while True:  # the rest of the terminal's output
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
                self.end_signal = number

    def _resize(self) -> None:
        self.size = terminal.size()
        self.areas = layout(*self.size)
        guest = self.areas.guest
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
        if self.areas.panel is not None and not self.panel:
            status = Status(self.memory, self.resident, self.ended)
            self.panel = self.view.panel(self.history, status, self.areas.panel)
        frame = self.view.frame(self.size, self.terminal.rows(), self.panel)
        self.window.show(frame, self.terminal.cursor() if self.ended is None else None)


def _resident(launcher: int) -> int | None:
    """Return the host memory of the launcher's child in bytes; None if unknown."""
    with suppress(OSError, ValueError, IndexError):
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        # passt may be a child as well; the VM is the child that was started last.
        return int(Path(f"/proc/{children[-1]}/statm").read_text().split()[1]) * _PAGE
    return None
