# SPDX-License-Identifier: Apache-2.0
"""VMs for tests: start one on an image, run a command, get status and output.

vm = Vm(IMAGES / "minimal.ext3", ephemeral=True)
result = vm.run("uname", "-s")      # boots, runs, powers off: some ten milliseconds
assert result.status == 0 and result.output == "Linux\\n"

with vm.interactive() as console:   # a terminal, by pexpect
    console.expect_exact("# ")
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pexpect

from nabla.core.paths import NABLA_RUN


@dataclass(frozen=True)
class Result:
    """How a command in the guest ended: exit status, its output, and nabla-run's own messages in `errors`."""

    status: int
    output: str
    errors: str

    def lines(self) -> list[str]:
        """Return the lines of the output."""
        return self.output.splitlines()

    def describe(self) -> str:
        """Return everything, for the message of a failed assertion."""
        return f"exit status {self.status}\n--- output\n{self.output}\n--- errors\n{self.errors}"


@dataclass(frozen=True)
class Vm:
    """The settings of a VM. Each `run` and each `interactive` boots a new one."""

    image: Path
    memory: str = "256M"
    ephemeral: bool = False
    read_only: bool = False
    options: tuple[str, ...] = ()

    def but(self, **changes: object) -> Vm:
        """Return the same settings with some changes."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def argv(self, *command: str, env: Mapping[str, str] | None = None) -> list[str]:
        """Return the command line of nabla-run."""
        words = [str(NABLA_RUN), "--memory", self.memory]
        if self.ephemeral:
            words.append("--ephemeral")
        if self.read_only:
            words.append("--read-only")
        for name, value in (env or {}).items():
            words += ["--env", f"{name}={value}"]
        words += [*self.options, str(self.image)]
        return [*words, "--", *command] if command else words

    def run(
        self, *command: str, stdin: bytes | None = None, timeout: float = 120, env: Mapping[str, str] | None = None
    ) -> Result:
        """Boot, run the command, return how it ended. Raises `AssertionError` if it takes too long.

        Bytes that are not UTF-8 become the replacement character.
        """
        finished = self.run_bytes(*command, stdin=stdin, timeout=timeout, env=env)
        return Result(
            finished.returncode,
            finished.stdout.decode(errors="replace"),
            finished.stderr.decode(errors="replace"),
        )

    def run_bytes(
        self, *command: str, stdin: bytes | None = None, timeout: float = 120, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Like `run`, with the output as bytes."""
        words = self.argv(*command, env=env)
        try:
            return subprocess.run(
                words,
                input=stdin if stdin is not None else b"",
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            so_far = (late.stdout or b"").decode(errors="replace")
            raise AssertionError(f"{' '.join(words)}: no end within {timeout} s; output so far:\n{so_far}") from None

    def shell(self, script: str, *, timeout: float = 120, env: Mapping[str, str] | None = None) -> Result:
        """Run a shell script."""
        return self.run("/bin/sh", "-c", script, timeout=timeout, env=env)

    def check(self, script: str, *, timeout: float = 120, env: Mapping[str, str] | None = None) -> str:
        """Run a shell script that must exit with status 0; returns its output."""
        result = self.shell(script, timeout=timeout, env=env)
        assert result.status == 0, result.describe()
        return result.output

    @contextmanager
    def interactive(
        self, *command: str, size: tuple[int, int] = (24, 80), timeout: float = 60
    ) -> Iterator[pexpect.spawn[str]]:
        """Start the VM on a terminal of `size` (rows, columns); it is ended on leaving the context."""
        words = self.argv(*command)
        console = pexpect.spawn(
            words[0],
            words[1:],
            dimensions=size,
            timeout=timeout,
            encoding="utf-8",
            codec_errors="replace",
            env={**os.environ, "TERM": "linux"},
        )
        try:
            yield console
        finally:
            console.close(force=True)


def status_of(console: pexpect.spawn[str]) -> int:
    """Wait for the VM's end and return nabla-run's exit status as a shell reports it."""
    console.expect(pexpect.EOF)
    console.close()
    if console.exitstatus is not None:
        return int(console.exitstatus)
    return 128 + int(console.signalstatus or 0)


def tap_failures(output: str) -> Sequence[str]:
    """Return the errors in a TAP report: failed checks with their remarks, a missing or wrong plan."""
    lines = [line.rstrip("\r") for line in output.splitlines()]
    wrong: list[str] = []
    for index, line in enumerate(lines):
        if line.startswith("not ok"):
            wrong.append(line)
            wrong += [remark for remark in lines[index + 1 : index + 2] if remark.startswith("#")]
    results = sum(line.startswith(("ok ", "not ok ")) for line in lines)
    plans = [line for line in lines if line.startswith("1..")]
    if plans != [f"1..{results}"]:
        wrong.append(f"plan {plans} for {results} results: the program did not run to its end")
    return wrong
