# SPDX-License-Identifier: Apache-2.0
"""nabla-run with closed streams, and with signals at any moment of a VM's life, with and without a terminal; see
test_fuzz_launcher.py.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from nabla.core.paths import NABLA_RUN, ROOT, VMLINUX
from nabla.fs.ext3 import SUPERBLOCK

from .conftest import image_of
from .hostile import ENVIRONMENT, Victim
from .launcher import OWN_ERROR

CLOSINGS = [closed for count in range(4) for closed in itertools.combinations((0, 1, 2), count)]


@pytest.mark.parametrize("closed", CLOSINGS, ids=str)
@pytest.mark.parametrize("others", ["null", "pipe", "full"])
def test_closed_streams(victim: Victim, closed: tuple[int, ...], others: str) -> None:
    """The status is right whichever streams are closed, and nothing is written to the image by mistake."""
    beginning = victim.image.read_bytes()[:SUPERBLOCK]
    open_ones = {"null": "/dev/null", "full": "/dev/full"}
    redirections = " ".join(f"{fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
    if others != "pipe":
        rest = [fd for fd in range(3) if fd not in closed]
        redirections += " " + " ".join(f"{fd}<>{open_ones[others] if fd else '/dev/null'}" for fd in rest)

    def status(*words: str | Path) -> int:
        line = f"{shlex.join([str(victim.launcher), *map(str, words)])} {redirections}"
        return subprocess.run(
            ["sh", "-c", line], stdin=subprocess.PIPE, capture_output=True, env=ENVIRONMENT, timeout=60, check=False
        ).returncode

    kernel = ("--kernel", victim.kernel)
    assert status(*kernel, victim.image, "--", "sh", "-c", "echo out; echo err >&2; cat; exit 7") == 7
    assert status(*kernel, "--json", "--verbose", "--stats-fd", "2", victim.image, "--", "true") in (
        (0, OWN_ERROR) if 2 in closed else (0,)
    )
    assert status(*kernel, victim.image.with_name("missing")) == OWN_ERROR
    assert victim.image.read_bytes()[:SUPERBLOCK] == beginning


def machine(launcher: Path, script: str, token: str) -> list[str]:
    """Return the command line of a VM that runs a script; `token` marks its processes."""
    words = [launcher, "--kernel", VMLINUX, "--memory", "32M", "--ephemeral", image_of("minimal"), "--"]
    return [*map(str, words), "sh", "-c", script, token]


QUITTING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def nobody_left(token: str) -> None:
    """Wait until no process has this word on its command line."""
    deadline = time.monotonic() + 10
    while left := list(_processes(token)):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def _processes(token: str) -> list[str]:
    findings = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if token.encode() in line and path.parent.name != str(os.getpid()):
            findings.append(f"{path.parent.name} {line[:200]!r}")
    return findings


@pytest.mark.parametrize("which", ["sanitized", "as built"])
def test_signals_without_a_terminal(sanitized: Path, which: str) -> None:
    """128+N whenever the signal arrives, except for signals that only stop, continue, or report a window change."""
    chosen = random.Random(11)
    launcher = sanitized if which == "sanitized" else NABLA_RUN
    token = f"token-{os.getpid()}-{which.replace(' ', '-')}"
    words = machine(launcher, "sleep 0.03; exit 7", token)
    harmless = (signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP, signal.SIGUSR1)
    for number in range(80):
        kind = chosen.choice(QUITTING if number % 2 else harmless[:3])
        with subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            preexec_fn=_usual_signals,
            start_new_session=bool(number & 4),
        ) as process:
            delay = 0.04 * chosen.random() ** 1.5
            time.sleep(delay)
            process.send_signal(kind)
            if kind == signal.SIGTSTP:
                time.sleep(0.002)
                process.send_signal(signal.SIGCONT)
            _, errors = process.communicate(timeout=30)
            details = (kind, delay, process.returncode, errors)
            if kind in QUITTING:
                # Killed by the signal itself if it arrived before a handler was installed; after the end it has no
                # effect.
                assert process.returncode in (128 + kind, -kind, 7), details
            else:
                assert process.returncode == 7, details
            assert errors == b"", details
    nobody_left(token)


def _usual_signals() -> None:
    for number in (*QUITTING, signal.SIGTSTP, signal.SIGWINCH):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("which", ["sanitized", "as built"])
def test_signals_on_a_terminal(sanitized: Path, which: str, tmp_path: Path) -> None:
    """As above; the terminal is restored after each signal, and while the VM is stopped."""
    launcher = sanitized if which == "sanitized" else NABLA_RUN
    token = f"token-{os.getpid()}-tty-{which.replace(' ', '-')}"
    names = ",".join(number.name for number in (*QUITTING, signal.SIGWINCH, signal.SIGTSTP))
    rounds = ["-m", "tests.integration.terminal_rounds", "13", "100", names, str(tmp_path / "results"), "--"]
    command = [*rounds, *machine(launcher, "sleep 0.02; exit 7", token)]
    shell = pexpect.spawn(sys.executable, command, cwd=str(ROOT), env=ENVIRONMENT, timeout=60)
    shell.expect(pexpect.EOF)
    shell.close()
    results = [json.loads(line) for line in (tmp_path / "results").read_text().splitlines()]
    assert shell.exitstatus == 0, shell.before
    assert len(results) == 100
    assert [result for result in results if result["wrong"]] == []
    for result in results:
        number = signal.Signals[result["signal"]]
        right = (128 + number, -number, 7) if number in QUITTING else (7,)
        assert result["code"] in right, result
    nobody_left(token)


def test_killed_launchers_leave_nothing() -> None:
    """SIGKILL at any moment."""
    chosen = random.Random(17)
    token = f"token-{os.getpid()}-kill"
    for _ in range(60):
        with subprocess.Popen(machine(NABLA_RUN, "sleep 1000", token), stdin=subprocess.DEVNULL) as process:
            time.sleep(0.015 * chosen.random())
            process.kill()
    nobody_left(token)
