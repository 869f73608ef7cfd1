# SPDX-License-Identifier: Apache-2.0
"""The one function that starts processes."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nabla.core import process
from nabla.core.errors import CommandError, HostError
from tests.conftest import ROOT, has_ended


def test_captures() -> None:
    result = process.run(["sh", "-c", "echo out; echo err >&2; cat"], input="in")
    assert (result.returncode, result.stdout, result.stderr) == (0, "out\nin", "err\n")


def test_program_that_reads_late() -> None:
    """All of its input arrives, although it reads nothing for longer than the time between two looks for signals."""
    text = "x" * 1_000_000
    assert process.run(["sh", "-c", "sleep 1.5; cat"], input=text, timeout=60).stdout == text


def test_program_that_does_not_read() -> None:
    assert process.run(["true"], input="x" * 1_000_000).returncode == 0


def test_log_is_appended_and_progress_sees_lines(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "task.log"
    seen: list[str] = []
    process.run(["sh", "-c", "echo one; echo two >&2"], log=log, progress=seen.append)
    process.run(["echo", "three"], log=log)
    assert seen == ["one", "two"]
    assert log.read_text() == "$ sh -c 'echo one; echo two >&2'\none\ntwo\n$ echo three\nthree\n"


def test_failure_shows_end_of_log_place_and_line_to_paste(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    argv = ["sh", "-c", "seq 100; exit 7"]
    with pytest.raises(CommandError) as caught:
        process.run(argv, log=log, cwd=tmp_path, env={"A": "b c"})
    error = caught.value
    assert error.returncode == 7
    assert error.message == "sh failed with exit status 7"
    lines = error.hint.splitlines()
    assert lines[0] == f"last lines of {log}:"
    assert lines[1] == "  81"
    assert lines[-2] == "  100"
    assert lines[-1] == f"to repeat: cd {tmp_path} && A='b c' sh -c 'seq 100; exit 7'"
    repeated = subprocess.run(["sh", "-c", lines[-1].removeprefix("to repeat: ")], capture_output=True, check=False)
    assert repeated.returncode == 7
    assert process.run(argv, check=False).returncode == 7


def test_signal_is_named() -> None:
    with pytest.raises(CommandError, match=r"sh was ended by signal 9 \(Killed\)"):
        process.run(["sh", "-c", "kill -9 $$"])


def test_missing_program() -> None:
    with pytest.raises(HostError, match="program not found: no-such-program"):
        process.run(["no-such-program"])
    with pytest.raises(CommandError, match="no directory /no/such"):
        process.run(["true"], cwd=Path("/no/such"))


def test_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    pid, limit = tmp_path / "pid", 0.5
    while not pid.exists() or not pid.read_text():  # on a busy host the first tries may end too early
        with pytest.raises(CommandError, match=f"took longer than {limit:g} s"):
            process.run(["sh", "-c", f"sh -c 'echo $$ >{pid}; exec sleep 1000' & wait"], timeout=limit)
        limit *= 2
    assert has_ended(int(pid.read_text()))


def test_silent_program_times_out_with_progress_too(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="took longer"):
        process.run(["sleep", "30"], log=tmp_path / "log", progress=lambda line: None, timeout=0.5)


def test_interruption_ends_grandchildren(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    loop = f"sh -c 'trap \"\" TERM; echo $$ >{pid}; while :; do sleep 1; done' & wait"
    script = f"""
import signal, sys
from pathlib import Path
from nabla.core.process import run
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
run(["sh", "-c", {loop!r}], log=Path({str(tmp_path / "log")!r}))
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as running:
        while not pid.exists() or not pid.read_text():
            time.sleep(0.02)
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=20) == 3
    assert has_ended(int(pid.read_text()))


@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.001, 0.002, 0.004])
def test_interruption_at_the_very_start_leaves_nothing(tmp_path: Path, delay: float) -> None:
    """A signal between the start of the child and the moment when Python knows its process ID."""
    script = f"""
import os, signal, sys, threading, time
from nabla.core.process import run
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
def later():
    time.sleep({delay})
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=later).start()
while True:
    run(["sh", "-c", "echo $$ >> '{tmp_path}/started'; exec sleep 30"])
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as process:
        assert process.wait(timeout=20) == 3
    started = tmp_path / "started"
    for pid in started.read_text().split() if started.exists() else ():
        status = Path(f"/proc/{pid}/stat")
        assert not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_terminated_while_a_command_has_the_terminal(tmp_path: Path) -> None:
    script = f"""
import signal, sys
from nabla.core.process import interactive
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
interactive(["sh", "-c", "trap 'echo ended > {tmp_path}/ended; exit' TERM; touch {tmp_path}/begun; sleep 30 & wait"])
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as process:
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 3
    assert (tmp_path / "ended").exists()


def test_tools_speak_english() -> None:
    assert process.run(["sh", "-c", "echo $LC_ALL"]).stdout == "C.UTF-8\n"


def test_errors_travel_between_processes() -> None:
    error = CommandError("message", "hint", returncode=5)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.message, copy.hint, copy.returncode) == ("message", "hint", 5)
    assert error.render() == "error: message\nhint: hint"
    assert CommandError("m", "first\nsecond").render().splitlines() == ["error: m", "hint: first", "      second"]


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a terminal of that size and only the given descriptors; ignoring signals does not save it."""
    monkeypatch.setattr(process, "_GRACE", 0.5)
    reader, writer = os.pipe()
    script = f"stty size; echo $A >/dev/fd/{writer}; trap '' TERM HUP; echo up; while :; do sleep 1; done"
    try:
        with process.on_terminal(["sh", "-c", script], rows=7, cols=33, env={"A": "b c"}, pass_fds=[writer]) as child:
            seen = b""
            while b"up" not in seen:
                seen += os.read(child.fd, 100)
            assert b"7 33" in seen
            assert os.read(reader, 100) == b"b c\n"
            assert child.isalive()
        assert not child.isalive()
        assert child.signalstatus == signal.SIGKILL
    finally:
        os.close(reader)
        os.close(writer)
    with pytest.raises(HostError), process.on_terminal(["/nonexistent/program"], rows=1, cols=1):
        pass
