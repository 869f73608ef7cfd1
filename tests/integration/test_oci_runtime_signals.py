# SPDX-License-Identifier: Apache-2.0
"""nabla-oci kill and ps: signals for the processes in the guest, and the lists of them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from .bundles import Bundle, eventually, wait
from .named import DATA, EXIT, STARTED, frame
from .test_oci_runtime import bundle, tree
from .test_oci_runtime_exec import detach, running
from .test_oci_runtime_hostile import GO, ONE, broker, says

__all__ = ["bundle", "running", "tree"]

LOOP = "while :; do sleep 0.05; done"
DEFAULT = ("ABRT", "ALRM", "BUS", "FPE", "HUP", "ILL", "INT", "PIPE", "QUIT", "SEGV", "TERM", "TRAP", "USR1", "USR2")


def started(bundle: Bundle, script: str) -> int:
    """Start the container with a script that writes `up`; return its process."""
    bundle.shell(script)
    pid = bundle.create()
    bundle.check("start", "c1")
    bundle.wait_for("up\n")
    return pid


def test_a_signal_reaches_the_first_process_alone(bundle: Bundle) -> None:
    pid = started(
        bundle,
        f"sh -c 'trap \"echo other\" USR1; {LOOP}' & trap 'echo first' USR1; trap 'exit 4' USR2; echo up; {LOOP}",
    )
    bundle.check("kill", "c1", "USR1")
    bundle.wait_for("first\n")
    bundle.check("kill", "c1", "SIGUSR2")
    assert wait(pid) == 4
    assert bundle.output.read_text() == "up\nfirst\n"


def test_every_signal(bundle: Bundle) -> None:
    """Real-time signals, too, but for those that musl keeps for itself."""
    numbers = [n for n in range(1, 65) if n not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, 32, 33, 34)]
    traps = "; ".join(f"trap 'echo got {n}' {n}" for n in numbers)
    pid = started(bundle, f"{traps}; echo up; {LOOP}")
    for number in numbers:
        bundle.check("kill", "c1", str(number))
        bundle.wait_for(f"got {number}\n")
    bundle.check("kill", "c1", "KILL")
    assert wait(pid) == -signal.SIGKILL


@pytest.mark.parametrize("name", DEFAULT)
def test_what_signals_do_by_themselves(bundle: Bundle, name: str) -> None:
    """They end a program that does not handle them, and the status says so."""
    pid = started(bundle, "echo up; exec sleep 1000")
    eventually(lambda: "sleep" in bundle.check("ps", "c1"))
    bundle.check("kill", "c1", name)
    assert wait(pid) == 128 + getattr(signal, f"SIG{name}")


def test_stop_and_continue(bundle: Bundle) -> None:
    pid = started(bundle, "trap 'echo continued; exit 3' CONT; echo up; while :; do echo x >>/beats; sleep 0.05; done")
    beats = bundle.folder / "rootfs" / "beats"
    bundle.check("kill", "c1", "STOP")
    eventually(lambda: "T" in bundle.check("exec", "c1", "sh", "-c", "cut -d' ' -f3 /proc/[0-9]*/stat"))
    before = beats.stat().st_size
    bundle.check("exec", "c1", "sleep", "0.2")
    assert beats.stat().st_size <= before + 2
    bundle.check("kill", "c1", "CONT")
    assert wait(pid) == 3


def test_all_processes(bundle: Bundle) -> None:
    """--all: those of exec, too."""
    script = "trap 'echo {0} >>/seen; exit 0' USR1; echo up >>/up; while :; do sleep 0.05; done"
    bundle.shell(script.format("first"))
    pid = bundle.create()
    bundle.check("start", "c1")
    other = detach(bundle, "c1", "sh", "-c", script.format("other"))
    up, seen = (bundle.folder / "rootfs" / name for name in ("up", "seen"))
    eventually(lambda: up.exists() and up.read_text() == "up\nup\n")
    bundle.check("kill", "--all", "c1", "USR1")
    assert wait(pid) == 0
    wait(other)
    assert "first\n" in seen.read_text()


def test_while_no_session_is_free(running: Bundle) -> None:
    """TERM still gets through, as a power button."""
    stdin, keep = os.pipe()
    pids = [detach(running, "c1", "cat", stdin=stdin) for _ in range(32)]
    os.close(stdin)
    running.refused("it has as many sessions as a VM can have", "kill", "c1", "HUP")
    running.check("kill", "c1", "TERM")
    eventually(lambda: running.state()["status"] == "stopped")
    os.close(keep)
    for pid in pids:
        wait(pid)


def test_processes_in_the_guest(bundle: Bundle) -> None:
    started(bundle, "sleep 1001 & echo up; exec sleep 1002")
    detach(bundle, "--user", "7:8", "c1", "sleep", "1003")
    # a process that is about to execute its program has the words of another one, or none
    eventually(lambda: all(f"sleep {number}" in bundle.check("ps", "c1") for number in (1001, 1002, 1003)))
    head, *rows = [line.split(maxsplit=3) for line in bundle.check("ps", "c1").splitlines()]
    assert head == ["PID", "PPID", "UID", "COMMAND"]
    assert sorted((row[2], row[3]) for row in rows) == [("0", "sleep 1001"), ("0", "sleep 1002"), ("7", "sleep 1003")]


def test_processes_on_the_host(running: Bundle) -> None:
    """What engines look for in their own lists."""
    pid = running.state()["pid"]
    running.check("exec", "c1", "true")
    children = [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    assert children
    assert set(json.loads(running.check("ps", "--format", "json", "c1"))) >= {pid, *children}
    running.check("pause", "c1")
    assert pid in json.loads(running.check("ps", "-f", "json", "c1"))
    running.refused("it is paused", "ps", "c1")
    running.check("resume", "c1")


def test_names_that_are_hostile(bundle: Bundle) -> None:
    """Names of processes neither control a terminal nor forge a line."""
    started(bundle, "echo up; exec sleep 1000")
    name = "x\n1 2 3 forged\x1b[2J\t\x7f"
    detach(bundle, "c1", "sh", "-c", "kill -STOP $$; :", name)
    eventually(lambda: "?1 2 3 forged?[2J??" in bundle.check("ps", "c1"))
    assert "\x1b" not in bundle.check("ps", "c1")


def test_a_list_that_is_hostile(running: Bundle) -> None:
    lines = b"1 2 3 good\n1 2 3 \x1b[2J\xff\n-1 2 3 no\n1 2 no\n\n99999999999999999999999 1 1 big\n1 2 3 cut"
    with broker(running, says(GO, frame(DATA, lines, stream=1), frame(EXIT, b"\0\0\0\0"))):
        rows = running.check("ps", "c1").splitlines()[1:]
    assert [row.split(maxsplit=3)[3] for row in rows] == ["good", "?[2J?", "big"]
    with broker(running, says(GO, *[frame(DATA, b"x" * 65536, stream=1)] * 80)):
        running.refused("its answer is too long", "ps", "c1")
    for frames in ((), (GO,), (GO, frame(EXIT, ONE)), (frame(STARTED),), (b"\xff" * 20,)):
        with broker(running, says(*frames)):
            running.refused("cannot list the processes of container c1: ", "ps", "c1")


def test_wrong_calls(bundle: Bundle) -> None:
    bundle.shell("sleep 1000")
    bundle.create()
    assert json.loads(bundle.check("ps", "--format", "json", "c1")) == [bundle.state()["pid"]]
    bundle.refused("container c1 is created and has no processes", "ps", "c1")
    bundle.refused("'xml' is unknown", "ps", "--format", "xml", "c1")
    bundle.refused("there is no signal 'NOTHING'", "kill", "c1", "NOTHING")
    bundle.refused("there is no signal '65'", "kill", "c1", "65")
