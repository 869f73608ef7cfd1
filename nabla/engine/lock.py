# SPDX-License-Identifier: Apache-2.0
"""The lock of the checkout: one doit at a time runs tasks in it.

`doit` takes the lock before it checks which tasks are out of date: a second doit waits, then uses the results of the
first. A command that runs for any length of time (a VM, a shell, the tests) releases the lock; the next step takes it
again. Workers of `doit -n` share the lock of their doit and never release it, because other workers may be building.
"""

from __future__ import annotations

import fcntl
import os
from io import TextIOWrapper

from nabla.core import files, log
from nabla.core.paths import STATE

_stream: TextIOWrapper | None = None
_owner = 0


def acquire() -> None:
    """Take the lock, unless this doit holds it; prints a message while another doit holds it."""
    global _stream, _owner
    if _stream is not None:
        return
    files.make_folder(STATE)
    stream = (STATE / "lock").open("a")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("waiting for another doit in this checkout …")
        fcntl.flock(stream, fcntl.LOCK_EX)
    _stream, _owner = stream, os.getpid()


def release() -> None:
    """Release the lock; does nothing in a worker."""
    global _stream
    if _stream is not None and _owner == os.getpid():
        _stream.close()
        _stream = None
