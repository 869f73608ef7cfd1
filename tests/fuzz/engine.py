# SPDX-License-Identifier: Apache-2.0
"""Shared by all fuzzers of the VM: rounds that a seed determines, the verdict on a VM, and crashes stored as files.

A round boots a VM, attacks it, and returns a finding, or nothing. A guest program may crash itself; a panic, a
forbidden host call, a VM that never ends, or one that a signal ends, is a finding. A finding is identified by its seed:
a file in crashes/ names the fuzzer and the seed, and the tests run that round forever.
"""

from __future__ import annotations

import subprocess
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nabla.core.paths import NABLA_RUN, relative

CRASHES = Path(__file__).with_name("crashes")
# nabla-run's own statuses, see docs/nabla-run.md.
TIMED_OUT, FAILED, SIGNAL = 124, 125, 128
WARNINGS = ("WARNING: CPU:", "BUG:", "refcount_t:")


@dataclass(frozen=True)
class Finding:
    """A failed round: its fuzzer and seed, the problem, and the VM's last lines of output."""

    fuzzer: str
    seed: int
    what: str
    lines: tuple[str, ...] = ()

    def text(self) -> str:
        """Return a readable description."""
        return "\n".join([f"{self.fuzzer}: seed {self.seed}: {self.what}", *(f"  {line}" for line in self.lines)])


@dataclass(frozen=True)
class Fuzzer:
    """One kind of damage. `round` does one round; `each` is how many `unit`s a round tries."""

    name: str
    unit: str
    each: int
    round: Callable[[int], Finding | None]


def boot(image: Path, options: Sequence[str], command: Sequence[str], timeout: int, **more: object) -> tuple[int, str]:
    """Run a command in a VM; return nabla-run's status and all output, including the kernel's messages."""
    argv = [str(NABLA_RUN), "--verbose", "--append", "loglevel=5", "--ephemeral", "--timeout", str(timeout), *options]
    finished = subprocess.run(  # type: ignore[call-overload]
        [*argv, str(image), "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        **more,
    )
    return int(finished.returncode), str(finished.stdout.decode(errors="replace"))


def _printable(line: str) -> str:
    """Return the printable ASCII characters of a line, at most 200."""
    return "".join(letter for letter in line if " " <= letter <= "~").strip()[:200]


def verdict(fuzzer: str, seed: int, status: int, output: str, expected: Sequence[int] = (0,)) -> Finding | None:
    """Judge a VM by its exit status and by the warnings of its kernel."""
    # Fuzzed programs write anything to the console.
    lines = tuple(shown for line in output.splitlines() if (shown := _printable(line)))[-40:]
    complaints = [line for line in output.splitlines() if any(word in line for word in WARNINGS)]
    if status in expected and not complaints:
        return None
    if complaints and status in expected:
        return Finding(fuzzer, seed, f"the kernel warns: {_printable(complaints[0])}", lines)
    if status == TIMED_OUT:
        return Finding(fuzzer, seed, "the VM does not end", lines)
    if status == FAILED:
        panics = [_printable(line) for line in output.splitlines() if "anic" in line]
        return Finding(fuzzer, seed, panics[0] if panics else "the VM failed", lines)
    if status == SIGNAL + 31:
        return Finding(fuzzer, seed, "the VM made a forbidden host call", lines)
    return Finding(fuzzer, seed, f"exit status {status}", lines)


def run(fuzzer: Fuzzer, seed: int, until: Callable[[int], bool], jobs: int = 1) -> Iterator[tuple[int, Finding | None]]:
    """Do rounds, the first one with `seed`, as long as `until` is false for the number of rounds started.

    `jobs` rounds run at a time. The fuzzers of readers need 1: their limit of time is a signal, which reaches the main
    thread only. Yields each seed with what is wrong, in order.
    """
    if jobs == 1:
        done = 0
        while not until(done):
            yield seed + done, fuzzer.round(seed + done)
            done += 1
        return
    with ThreadPoolExecutor(jobs) as pool:
        running: deque[tuple[int, Future[Finding | None]]] = deque()
        started = 0
        while running or not until(started):
            while len(running) < jobs and not until(started):
                running.append((seed + started, pool.submit(fuzzer.round, seed + started)))
                started += 1
            number, round_ = running.popleft()
            yield number, round_.result()


def for_rounds(count: int) -> Callable[[int], bool]:
    """Return a condition: this number of rounds."""
    return lambda done: done >= count


def for_seconds(seconds: float) -> Callable[[int], bool]:
    """Return a condition: at least one round, and none starts after this number of seconds."""
    end = time.monotonic() + seconds
    return lambda done: done > 0 and time.monotonic() >= end


def keep(finding: Finding) -> Path:
    """Write a finding into crashes/, where the tests find it; return the file."""
    path = CRASHES / f"{finding.fuzzer}-{finding.seed}.toml"
    what = finding.what.replace("\\", "/").replace('"', "'")
    path.write_text(
        f'# SPDX-License-Identifier: Apache-2.0\n# {what}\nfuzzer = "{finding.fuzzer}"\nseed = {finding.seed}\n',
        encoding="utf-8",
    )
    return path


def stored() -> list[tuple[str, int]]:
    """Return fuzzer and seed of each file in crashes/."""
    findings = []
    for path in sorted(CRASHES.glob("*.toml")):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        assert set(content) == {"fuzzer", "seed"}, f"{relative(path)}: fuzzer and seed, and no other key"
        findings.append((str(content["fuzzer"]), int(content["seed"])))
    return findings
