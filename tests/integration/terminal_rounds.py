# SPDX-License-Identifier: Apache-2.0
"""A kind of shell: starts one command repeatedly in the foreground of its terminal, sends a signal at a random
moment, and then checks that the terminal is in its original mode and no process is left.

python -m tests.integration.terminal_rounds SEED ROUNDS SIGNALS RESULTS -- COMMAND…

Writes one line of JSON for each round to the file RESULTS: signal, delay, target, exit status, and what is wrong.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

TERMINAL = 0
LONGEST = 0.02  # seconds: a VM has booted by then
PATIENCE = 20.0


def look() -> list[object]:
    """Return the terminal's modes and the flags of the open file behind the standard streams."""
    modes: list[object] = [*termios.tcgetattr(TERMINAL)]
    return [*modes, *(fcntl.fcntl(fd, fcntl.F_GETFL) for fd in range(3))]


def start(words: list[str]) -> int:
    """Start a command in its own process group, in the foreground, and return its process."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(TERMINAL, os.getpid())
        for number in (signal.SIGTTOU, signal.SIGINT, signal.SIGTSTP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        os.execv(words[0], words)
    with suppress(OSError):
        os.setpgid(pid, pid)
    os.tcsetpgrp(TERMINAL, pid)
    return pid


def wait(pid: int, flags: int = 0) -> int | None:
    """Return the status in the form of wait(2), None if nothing happens for a long time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG | flags)
        if done:
            return status
        time.sleep(0.0005)
    return None


def one_round(words: list[str], number: signal.Signals, delay: float, group: bool) -> dict[str, object]:
    """Start, send, wait, check."""
    wrong: list[str] = []
    before = look()
    pid = start(words)
    send = os.killpg if group else os.kill
    time.sleep(delay)
    with suppress(ProcessLookupError):
        send(pid, number)
    if number == signal.SIGTSTP:
        status = wait(pid, os.WUNTRACED)
        if status is not None and os.WIFSTOPPED(status):
            os.tcsetpgrp(TERMINAL, os.getpid())
            if look() != before:
                wrong.append("the terminal is not as before while it is stopped")
            os.tcsetpgrp(TERMINAL, pid)
            send(pid, signal.SIGCONT)
            status = wait(pid)
    else:
        status = wait(pid)
    if status is None:
        wrong.append("no end")
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.tcsetpgrp(TERMINAL, os.getpid())
    if look() != before:
        wrong.append(f"the terminal is not as before: {before} became {look()}")
        termios.tcsetattr(TERMINAL, termios.TCSANOW, before[:7])  # type: ignore[arg-type]
    code = None if status is None else os.waitstatus_to_exitcode(status)
    return {"signal": number.name, "delay": delay, "group": group, "code": code, "wrong": wrong}


def main(argv: list[str]) -> None:
    """Run the rounds."""
    seed, rounds, names, results = argv[:4]
    chosen = random.Random(int(seed))
    kinds = [signal.Signals[name] for name in names.split(",")]
    for number in (signal.SIGTTOU, signal.SIGINT, signal.SIGTSTP, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # If it were ignored, it would stay ignored in the command, which another test covers.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with Path(results).open("w", encoding="utf-8") as stream:
        for _ in range(int(rounds)):
            # Most things happen early.
            delay = LONGEST * chosen.random() ** 1.5
            result = one_round(argv[5:], chosen.choice(kinds), delay, chosen.random() < 0.3)
            stream.write(json.dumps(result) + "\n")
            stream.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
