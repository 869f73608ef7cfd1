# SPDX-License-Identifier: Apache-2.0
"""Python code in an interpreter of the guest that goes on between calls. `guest_python.py` is its other end."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .commands import CommandResult, Commands
from .errors import ProtocolError, SandboxError, SandboxTimeout
from .files import Files

FOLDER = "/run/nabla-python"
PROGRAM = f"{FOLDER}/guest_python.py"
SOURCE = Path(__file__).with_name("guest_python.py")
CLIENT = ["nc", f"local:{FOLDER}/socket"]
WAIT = ["/bin/sh", "-c", f"until test -S {FOLDER}/socket; do sleep 0.001; done"]
STOP = ["/bin/sh", "-c", f"kill -9 $(cat {FOLDER}/process); rm -f {FOLDER}/socket"]
LENGTHS = re.compile(" ".join(["([0-9]{1,10})"] * 4))


@dataclass(frozen=True)
class CodeResult:
    """What code did: the `repr` of its last expression, what it wrote, and the traceback of an exception.

    `text` is empty for None, `error` if there was none. Bytes that are not UTF-8 became U+FFFD.
    """

    text: str
    stdout: str
    stderr: str
    error: str


def decode(result: CommandResult) -> CodeResult:
    """Take an answer apart. Raises `ProtocolError` unless it has exactly the bytes that it announces."""
    line, _, rest = result.stdout.partition("\n")
    match = LENGTHS.fullmatch(line)
    if not match:
        raise ProtocolError("the interpreter in the guest has ended")
    answer = rest.encode()
    lengths = [int(each) for each in match.groups()]
    if sum(lengths) != len(answer):
        raise ProtocolError("the interpreter in the guest sent an answer whose length differs from the announced one")
    texts, at = [], 0
    for length in lengths:
        texts.append(answer[at : at + length].decode(errors="replace"))
        at += length
    return CodeResult(*texts)


def start_words(modules: Iterable[str] = ()) -> list[str]:
    """Return the command that starts the interpreter, with these modules imported."""
    return ["python3", PROGRAM, *modules]


def check_start(result: CommandResult) -> None:
    """Raise `SandboxError` if the interpreter did not start."""
    if result.exit_code:
        raise SandboxError(f"python3 of the guest does not start: {result.stderr.strip()[-500:]}")


def is_missing(result: CommandResult) -> bool:
    """Say whether there was no interpreter to connect to."""
    return bool(result.exit_code) and not result.stdout


def too_late(timeout: float | None) -> SandboxTimeout:
    """Return the exception of code that did not end in time."""
    return SandboxTimeout(f"the code did not end within {timeout:g} s; its interpreter was ended")


class Interpreter:
    """The interpreter of a sandbox."""

    def __init__(self, commands: Commands, files: Files) -> None:
        self._commands = commands
        self._files = files

    def start(self, modules: Iterable[str] = ()) -> None:
        """Start it. Raises `SandboxError`."""
        self._files.make_dir(FOLDER)
        self._files.write(PROGRAM, SOURCE.read_bytes())
        check_start(self._commands.run(start_words(modules)))
        check_start(self._commands.run(WAIT))

    def run(self, code: str, timeout: float | None) -> CodeResult:
        """Run code; start the interpreter if there is none."""
        result = self._send(code, timeout)
        if is_missing(result):
            self.start()
            result = self._send(code, timeout)
        return decode(result)

    def _send(self, code: str, timeout: float | None) -> CommandResult:
        try:
            return self._commands.run(CLIENT, stdin=code, timeout=timeout)
        except SandboxTimeout:
            self._commands.run(STOP)
            raise too_late(timeout) from None
