# SPDX-License-Identifier: Apache-2.0
"""How doit ends when it is asked to: SIGTERM counts as ^C, and no worker outlives the doit that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType, TracebackType

from nabla.core.errors import EXIT_INTERRUPTED

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

_parent = 0


def install() -> None:
    """Set up signals and the report of an interruption for this process and the workers of `doit -n`."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.excepthook = _report
    # Whoever forks is the parent: a worker's own helpers end with the worker.
    os.register_at_fork(before=_remember, after_in_child=_die_with_parent)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # As ^C: programs are ended, partial outputs removed. What finished before is saved already.
    raise KeyboardInterrupt


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
    """Have the kernel send SIGTERM to this worker when its parent ends, be it by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != _parent:
        os.kill(os.getpid(), signal.SIGTERM)
