# SPDX-License-Identifier: Apache-2.0
"""Debian's unmodified programs in the guest: sets of locked packages, an image of each, and cases to run in it.

tests/programs/base.toml             the base of every set, in the format of toolchain/packages.toml
tests/programs/<set>/packages.toml   the packages of a set, and the files that their maintainer scripts would create
                     packages.lock   their resolution (nabla.sandbox.lockfile), written by `doit lock:programs`
                     cases.toml      scripts, and the output of each on an ordinary Linux system

The cases of a light set run in `doit test`; those of a heavy one are a task `check:programs-<set>`. The result cache
stores its outcome under the digest of its inputs: scripts, image, kernel and launcher.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from nabla.core import digest, process, toml
from nabla.core.errors import CommandError, NablaError
from nabla.core.paths import NABLA_RUN, OUT, TESTS, VMLINUX, relative
from nabla.engine import result_cache
from nabla.images.descriptions import Size
from nabla.sandbox import lockfile

FOLDER = TESTS / "programs"
BASE = FOLDER / "base.toml"
IMAGES = OUT / "programs"
TIMEOUT = 900.0  # seconds

# The set's shell runs the scripts, in a VM or in a sandbox on the host.
SHELL = ("/bin/sh", "-ec")
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/bash",
    "LC_ALL": "C.UTF-8",
    "TERM": "xterm",
}


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A script and its expected standard output.

    `guest`: the reason why the host's sandbox cannot run it, if there is one. `memory`: of the VM, if the set's is not
    sufficient.
    """

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]*$", description="lower-case name")]
    script: str
    expected: Annotated[str, msgspec.Meta(min_length=1)]
    memory: Size | None = None
    guest: str = ""


class Cases(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file cases.toml. `size`: of the image; `memory`: of the VMs; `heavy`: not part of `doit test`."""

    summary: Annotated[str, msgspec.Meta(min_length=1)]
    size: Size
    memory: Size
    case: Annotated[tuple[Case, ...], msgspec.Meta(min_length=1)]
    heavy: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a heavy set. `key`: digest of its inputs; `seconds`: wall-clock time of each case."""

    programs: str
    key: str
    seconds: dict[str, float]


class ProgramError(NablaError):
    """A program behaves differently in the guest than on an ordinary Linux system, or a set is invalid."""


@dataclass(frozen=True)
class Programs:
    """A set: its name and its cases."""

    name: str
    cases: Cases

    @property
    def pins(self) -> lockfile.Pins:
        """The files of the set's packages and their lock."""
        return lockfile.Pins(FOLDER / self.name / "packages.toml", FOLDER / self.name / "packages.lock")

    @property
    def image(self) -> Path:
        """The disk image with the programs."""
        return IMAGES / f"{self.name}.ext3"


def names() -> list[str]:
    """Return the names of all sets, sorted."""
    return sorted(path.parent.name for path in FOLDER.glob("*/cases.toml"))


def load(name: str) -> Programs:
    """Read one set. Raises `ProgramError` naming file, line and key."""
    document = toml.read(FOLDER / name / "cases.toml", ProgramError)
    cases = document.convert(Cases)
    seen: set[str] = set()
    for number, case in enumerate(cases.case):
        if case.name in seen:
            document.fail(("case", number, "name"), f"there are two cases {case.name!r}")
        seen.add(case.name)
    return Programs(name, cases)


def run(programs: Programs, case: Case) -> str:
    """Run one case in a separate VM. Returns a report of a failure; empty if it passed."""
    words = [str(NABLA_RUN), "--ephemeral", "--memory", case.memory or programs.cases.memory]
    for name, value in ENVIRONMENT.items():
        words += ["--env", f"{name}={value}"]
    return compare(case, [*words, str(programs.image), "--", *SHELL, case.script])


def compare(case: Case, words: list[str]) -> str:
    """Run a command that runs a case. Returns a report of the differences in its output; empty if there are none."""
    try:
        done = process.run(words, check=False, timeout=TIMEOUT)
    except CommandError as error:
        return f"{case.name}: {error.message}\n"
    if done.returncode == 0 and done.stdout == case.expected:
        return ""
    return (
        f"{case.name}: status {done.returncode} after {done.seconds:.1f} s\n--- expected\n{case.expected}"
        f"--- output\n{done.stdout}--- errors\n{done.stderr}"
    )


def check(programs: Programs, result: Path, log: Path) -> Outcome:
    """Run all cases of a set, or restore the outcome from the cache; write it to `result`. Raises `ProgramError`."""
    key = _key(programs)
    return result_cache.outcome(key, f"{programs.name}: cases", result, Outcome, lambda: _run_all(programs, key, log))


def _run_all(programs: Programs, key: str, log: Path) -> Outcome:
    seconds: dict[str, float] = {}
    wrong: list[str] = []
    with log.open("w", encoding="utf-8") as stream:
        for case in programs.cases.case:
            began = time.monotonic()
            account = run(programs, case)
            seconds[case.name] = round(time.monotonic() - began, 1)
            stream.write(account or f"{case.name}: passed after {seconds[case.name]} s\n")
            stream.flush()
            if account:
                wrong.append(account)
    if wrong:
        raise ProgramError(
            f"{programs.name}: {len(wrong)} of {len(programs.cases.case)} cases fail in the guest",
            "\n".join([*wrong[0].splitlines()[-40:], f"full output: {relative(log)}"]),
        )
    return Outcome(programs=programs.name, key=key, seconds=seconds)


def _key(programs: Programs) -> str:
    machine = [digest.sha256_file(path) for path in (programs.image, VMLINUX, NABLA_RUN)]
    return result_cache.key("cases", msgspec.to_builtins(programs.cases), machine, list(SHELL), ENVIRONMENT)
