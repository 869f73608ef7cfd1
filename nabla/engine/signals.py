# SPDX-License-Identifier: Apache-2.0
"""The end of an interrupted doit: SIGTERM acts like ^C, and no worker outlives the doit that started it.

Python runs a signal's handler between two instructions of the main thread. Two gaps can lose a signal: it arrives just
before the main thread blocks in a system call, which it then does not interrupt; or the handler's exception is raised
where Python ignores exceptions, in a destructor or a fork hook. A periodic timer closes both: it interrupts the call,
and sends an ignored signal again.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
from multiprocessing.util import register_after_fork
from types import FrameType, TracebackType
from typing import Any

from nabla.core.errors import EXIT_INTERRUPTED

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_TICK = 0.25  # seconds

_parent = 0
_ignored: int | None = None  # the signal whose exception had no effect
_last = signal.SIGINT


def install() -> None:
    """Set up signals and the report of an interruption for this process and the workers of `doit -n`."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # A shell's background job ignores SIGINT.
        if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    signal.signal(signal.SIGALRM, _tick)
    _start_timer()
    # The interpreter resets handlers as it ends; the signal would kill it then.
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
    sys.excepthook = _report
    sys.unraisablehook = _on_ignored_exception
    # The process that forks is the parent: a worker's own helpers end with the worker.
    os.register_at_fork(before=_remember, after_in_child=_die_with_parent)
    # A fork does not copy the timer, but execve keeps it: only for children that stay in Python.
    register_after_fork(_tick, _start_timer)


def _start_timer(_: object = None) -> None:
    signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # As ^C: programs are ended and partial outputs removed. Finished tasks are already saved.
    global _last
    _last = signal.Signals(number)
    raise KeyboardInterrupt


def _tick(number: int, frame: FrameType | None) -> None:
    global _ignored
    again, _ignored = _ignored, None
    if again is not None:
        signal.raise_signal(again)


def _on_ignored_exception(what: Any) -> None:
    global _ignored
    if issubclass(what.exc_type, KeyboardInterrupt):
        _ignored = _last
    else:
        sys.__unraisablehook__(what)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(EXIT_INTERRUPTED)


def _remember() -> None:
    global _parent
    _parent = os.getpid()


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM to this worker when its parent ends, even by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != _parent:
        os.kill(os.getpid(), signal.SIGTERM)
