# SPDX-License-Identifier: Apache-2.0
"""An interruption is never lost, at whatever moment it arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from nabla.core.errors import EXIT_INTERRUPTED
from tests.conftest import ROOT

# Another thread takes the signal, so that the main thread's system call is not interrupted: as if the signal had
# arrived just before the call.
BLOCKED = """
import os, signal, threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
print("up", flush=True)
os.read(os.pipe()[0], 1)
"""
IN_A_DESTRUCTOR = """
import os, signal
class Thing:
    def __del__(self):
        print("up", flush=True)
        while True:
            pass
Thing()
os.read(os.pipe()[0], 1)
"""
IN_A_FORK_HOOK = """
import os, signal
def wait():
    print("up", flush=True)
    while True:
        pass
os.register_at_fork(before=wait)
if os.fork():
    os.read(os.pipe()[0], 1)
"""
IN_A_WORKER = """
import multiprocessing, os
from nabla.engine import signals
def work():
    print("up", flush=True)
    os.read(os.pipe()[0], 1)
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
"""


def test_timer_does_not_outlive_the_handler() -> None:
    program = "from nabla.engine import signals\nsignals.install()\nimport atexit, time\natexit.register(time.sleep, 1)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_timer_does_not_reach_programs() -> None:
    """execve preserves timers; the signal would kill a program."""
    program = """
import subprocess
from nabla.core import process
from nabla.engine import signals
signals.install()
assert process.interactive(["sleep", "1"]) == 0
with process.on_terminal(["sh", "-c", "sleep 1; echo end"], rows=24, cols=80) as terminal:
    assert b"end" in terminal.read(100)
assert subprocess.run(["sleep", "1"]).returncode == 0
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", [BLOCKED, IN_A_DESTRUCTOR, IN_A_FORK_HOOK, IN_A_WORKER])
def test_signal_is_not_lost(program: str, number: signal.Signals) -> None:
    words = [sys.executable, "-c", f"from nabla.engine import signals\nsignals.install()\n{program}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED
    assert b"interrupted\n" in errors
