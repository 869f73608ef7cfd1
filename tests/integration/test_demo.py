# SPDX-License-Identifier: Apache-2.0
"""`doit demo` on a real terminal: a person's keys go in, an emulated screen shows what that person would see."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest

from demo import view
from demo.screen import Terminal
from nabla.core.paths import ROOT

from .conftest import image_of

LEAVE = "\x1d"
# Without its dependencies: the tests' own run has built them.
DOIT = (sys.executable, "-m", "doit", "run", "--single", "demo", "--memory", "64M", "--ephemeral")
PROMPT = "nabla:/#"


class Person:
    """A user who starts the demo from a shell, types, and reads the screen."""

    def __init__(self, words: tuple[str, ...], rows: int, cols: int, env: dict[str, str]) -> None:
        self.terminal = Terminal(rows, cols)  # its own test is unit/demo/test_screen.py
        self.screen = self.terminal.screen
        # The shell waits before and after, so that the test can read the terminal's modes.
        script = 'read -r go; "$@"; echo "status $?"; read -r go; stty -a'
        environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **env}
        for name in {"NO_COLOR", "PYTEST_CURRENT_TEST"} - env.keys():
            environment.pop(name, None)
        self.shell: pexpect.spawn[bytes] = pexpect.spawn(
            "/bin/sh", ["-c", script, "sh", *words], dimensions=(rows, cols), env=environment, cwd=str(ROOT), timeout=30
        )
        self.shell.delaybeforesend = None
        self.modes_before = self.modes()
        self.type("\n")

    def modes(self) -> list[Any]:
        """Return the modes of the terminal."""
        return termios.tcgetattr(self.shell.child_fd)

    def type(self, text: str) -> None:
        """Press keys."""
        self.shell.send(text)

    def resize(self, rows: int, cols: int) -> None:
        """Resize the window."""
        self.terminal.resize(rows, cols)
        self.shell.setwinsize(rows, cols)

    def see(self, wanted: Callable[[], Any], timeout: float = 30) -> Any:
        """Read the screen until `wanted` returns a true value, and return that."""
        deadline = time.monotonic() + timeout
        while not (value := wanted()):
            assert time.monotonic() < deadline, "the screen shows:\n" + "\n".join(self.screen.display)
            self._more()
        return value

    def ask_size(self, wanted: str) -> None:
        """Ask the VM for its window's size until it reports the new one: keys may arrive before the change."""
        for number in range(20):
            answer = f"{wanted} {number}"
            self.type(f"clear; stty size; echo {answer}\n")
            while answer not in self.left():
                self.see(self._more)
            if wanted in self.left():
                return
            time.sleep(0.3)
        raise AssertionError(f"not {wanted}:\n" + "\n".join(self.screen.display))

    def _more(self) -> bool:
        """Look once."""
        try:
            self.terminal.feed(self.shell.read_nonblocking(65536, timeout=0.2))
        except pexpect.TIMEOUT:
            return False
        return True

    def see_text(self, text: str) -> None:
        """Wait until the screen shows a text."""
        self.see(lambda: any(text in row for row in self.screen.display))

    def left(self) -> list[str]:
        """Return the rows of the VM's side, without trailing blanks."""
        areas = view.layout(self.screen.lines, self.screen.columns)
        return [row[: areas.guest.cols].rstrip() for row in self.screen.display[: areas.guest.rows]]

    def right(self) -> list[str]:
        """Return the rows of the other side."""
        panel = view.layout(self.screen.lines, self.screen.columns).panel
        assert panel is not None
        return [row[panel.left :] for row in self.screen.display[panel.top :]]

    def counts(self) -> dict[str, int]:
        """Return the histogram's numbers; `k` is thousand, so they may be rounded."""
        matches = (re.match(r" (\w+) +\S* +[\d.]+k? +([\d.]+)(k?) *$", row) for row in self.right())
        return {match[1]: int(float(match[2]) * (1000 if match[3] else 1)) for match in matches if match}

    def doit(self) -> int:
        """Return the process that runs the demo."""
        pid = self.shell.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def after(self) -> int:
        """Wait for the demo's end, assert that the terminal is restored, and return the exit status."""
        status = self.see(lambda: re.search(r"^status (\d+)", "\n".join(self.screen.display), re.MULTILINE))
        assert self.modes() == self.modes_before
        assert not self.screen.cursor.hidden
        assert not [row for row in self.screen.display if "│" in row], "the demo's screen is still there"
        return int(status[1])


@contextmanager
def person(*words: str, rows: int = 24, cols: int = 100, **env: str) -> Iterator[Person]:
    image_of("alpine")
    someone = Person((*DOIT, *words), rows, cols, env)
    try:
        yield someone
    finally:
        someone.shell.close(force=True)


def test_a_session() -> None:
    """Prompt, a command on the left, counters on the right, another size, leaving."""
    with person() as someone:
        someone.see(lambda: PROMPT in someone.left()[0])
        someone.see(lambda: someone.counts().get("ppoll"))
        assert someone.modes()[3] & (termios.ECHO | termios.ICANON | termios.ISIG) == 0

        before = someone.counts()
        someone.type("for i in 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.01; done\n")
        someone.see(lambda: "line 9" in someone.left())
        assert someone.left().count("line 1") == 1
        someone.see(lambda: someone.counts()["pwritev2"] > before["pwritev2"])
        someone.see(lambda: someone.counts()["timer_settime"] > before["timer_settime"])
        someone.see(lambda: any(re.search(r"memory +\d+ MB of 64M", row) for row in someone.right()))

        someone.resize(30, 120)
        guest = view.layout(30, 120).guest
        someone.ask_size(f"{guest.rows} {guest.cols}")
        assert someone.right()[0].strip() == "Linux, in one host process"
        someone.resize(10, 50)  # no room for the panel
        someone.ask_size("10 50")

        someone.type(LEAVE)
        assert someone.after() == 0
        assert any("host calls: " in row for row in someone.screen.display)


def test_keys_go_to_the_guest() -> None:
    """^C ends the guest's command, not the demo; ^D ends the shell, which ends the demo."""
    with person() as someone:
        someone.see(lambda: PROMPT in someone.left()[0])
        someone.type("sh -c 'echo $((6*7)); exec sleep 1000'\n")
        someone.see(lambda: "42" in someone.left())
        someone.type("\x03")
        someone.see(lambda: someone.left().count(PROMPT) == 1)
        someone.type("echo status=$?\n")
        someone.see(lambda: "status=130" in someone.left())
        someone.type("\x04")
        assert someone.after() == 0


def test_much_output_can_be_interrupted() -> None:
    with person() as someone:
        someone.see(lambda: PROMPT in someone.left()[0])
        someone.type("yes\n")
        someone.see(lambda: set(someone.left()[:-1]) == {"y"})
        someone.type("\x03")
        someone.see(lambda: PROMPT in someone.left())
        someone.type("clear; echo still $((6*7))\n")
        someone.see(lambda: "still 42" in someone.left())


def test_colours_and_cursor() -> None:
    with person() as someone:
        someone.see(lambda: PROMPT in someone.left()[0])
        someone.type("clear; printf '\\033[1;31mred\\033[0m plain\\n\\033[5;7Hhere\\n'\n")
        someone.see(lambda: "      here" in someone.left()[4])
        row = someone.screen.buffer[someone.left().index("red plain")]
        assert (row[0].fg, row[0].bold) == ("red", True)
        assert (row[4].fg, row[4].bold) == ("default", False)
        someone.see(lambda: (someone.screen.cursor.y, someone.screen.cursor.x) == (5, len(PROMPT) + 1))


def test_a_command_stays_on_the_screen() -> None:
    with person("--", "sh", "-c", "echo done; exit 0") as someone:
        someone.see(lambda: any("ended with status 0" in row for row in someone.right()))
        assert someone.left()[0] == "done"
        someone.type(" ")
        assert someone.after() == 0


def test_a_short_command_is_counted() -> None:
    """A command that ends before the first quarter of a second."""
    with person("--", "true") as someone:
        someone.see(lambda: someone.counts().get("exit_group") == 1)
        someone.type("q")
        assert someone.after() == 0


def test_a_command_that_fails() -> None:
    with person("--", "sh", "-c", "echo so sorry; exit 3") as someone:
        someone.see(lambda: any("ended with status 3" in row for row in someone.right()))
        someone.type(" ")
        assert someone.after() == 2
        someone.see_text("so sorry")


def test_the_launcher_fails() -> None:
    with person("-o", "--memory=1M") as someone:
        assert someone.after() == 2
        someone.see_text("nabla-run: ")
        someone.see_text("the VM ended with status 125")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_told_to_end(number: signal.Signals) -> None:
    """The VM ends, the terminal is restored."""
    with person() as someone:
        someone.see(lambda: PROMPT in someone.left()[0])
        demo = someone.doit()
        (launcher,) = Path(f"/proc/{demo}/task/{demo}/children").read_text().split()
        os.kill(demo, number)
        assert someone.after() == 130
        assert not Path(f"/proc/{launcher}").exists()


def test_killed() -> None:
    """No process is left to restore the terminal, but the VM ends."""
    with person() as someone:
        someone.see(lambda: PROMPT in someone.left()[0])
        demo = someone.doit()
        (launcher,) = map(int, Path(f"/proc/{demo}/task/{demo}/children").read_text().split())
        (machine,) = map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split())
        os.kill(demo, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while any(_runs(pid) for pid in (launcher, machine)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Return whether a process runs; a zombie does not, and in a container it may never be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_stop_and_continue() -> None:
    """kill -TSTP: the terminal is usable while the demo is stopped."""
    with person() as someone:
        someone.see(lambda: PROMPT in someone.left()[0])
        demo = someone.doit()
        os.kill(demo, signal.SIGTSTP)
        someone.see(lambda: someone.modes() == someone.modes_before)
        os.kill(demo, signal.SIGCONT)
        someone.see(lambda: someone.modes() != someone.modes_before)
        someone.type("clear; echo again\n")
        someone.see(lambda: "again" in someone.left())
        someone.type(LEAVE)
        assert someone.after() == 0


def test_without_colours_and_utf8() -> None:
    with person(NO_COLOR="1", LC_ALL="POSIX", LANG="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") as someone:
        someone.see(lambda: PROMPT in someone.left()[0])
        someone.see(lambda: someone.counts().get("ppoll"))
        cells = [cell for row in someone.screen.buffer.values() for cell in row.values()]
        assert {cell.fg for cell in cells} == {"default"}
        assert "".join(someone.screen.display).isascii()
        someone.type(LEAVE)
        assert someone.after() == 0


@pytest.mark.parametrize(("streams", "message"), [("</dev/null", "needs a terminal"), ("| cat", "needs a terminal")])
def test_without_a_terminal(streams: str, message: str) -> None:
    """One clear error, before anything is built or started."""
    script = f'set -o pipefail; "$@" {streams}'
    words = (sys.executable, "-m", "doit", "demo")
    result = subprocess.run(
        ["/bin/bash", "-c", script, "bash", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    errors = [row for row in (result.stdout + result.stderr).splitlines() if row.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "hint: " in result.stdout + result.stderr


def test_a_terminal_that_cannot() -> None:
    with person(TERM="dumb") as someone:
        assert someone.after() == 2
        someone.see_text("by TERM, it cannot")
