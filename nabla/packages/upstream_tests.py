# SPDX-License-Identifier: Apache-2.0
"""Run upstream's tests of a package in a VM, and record the result.

A recipe's `check` is a shell script for an image with the package and its tests. Its last line of output is
"<number> tests, <number> failed". The record contains the package's version and the digest of its files, which identify
the tested build:

    out/check/<recipe>.json     recipe, version, tree, key, seconds, tests, failed, and the last lines of output

The result cache stores a passed check under the digest of its inputs: script, package, image, kernel and launcher.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from nabla.core import digest
from nabla.core.artifacts import image_path
from nabla.core.errors import CommandError, NablaError
from nabla.core.paths import NABLA_RUN, OUT, VMLINUX, relative
from nabla.core.process import run
from nabla.engine import result_cache
from nabla.engine.action import Job
from nabla.packages import catalog
from nabla.packages.catalog import read_build_record
from nabla.sources.recipe import PackageRecipe

MEMORY = "1536M"
TIMEOUT = 3600.0  # seconds
IMAGE = image_path("packages")
_LINES = 12
_COUNTED = re.compile(r"(\d+) tests, (\d+) failed")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a package's tests. `tree`: digest of its files, as in out/packages; `key`: digest of all inputs;
    `seconds`: wall-clock time."""

    recipe: str
    version: str
    tree: str
    key: str
    seconds: int
    tests: int
    failed: int
    output: tuple[str, ...]


class PackageCheckError(NablaError):
    """Upstream's tests of a package fail in the VM."""


def record_path(recipe: str) -> Path:
    """Return the file that records the tests of a package."""
    return OUT / "check" / f"{recipe}.json"


def check_package(job: Job, name: str) -> None:
    """Step: run upstream's tests of a package in the image with the packages."""
    log = job.log.with_name(f"check:{name}-guest.log")
    result = check(catalog.load(name), IMAGE, job.out(record_path(name)), log)
    for line in result.output:
        job.note(line)


def check(loaded: PackageRecipe, image: Path, record: Path, log: Path) -> CheckResult:
    """Run a recipe's `check`, or restore its result from the cache, and write it to `record`.

    Raises `PackageCheckError` if a test fails, or if the script does not report any tests.
    """
    key = _key(loaded, image)
    title = f"{loaded.name}: upstream's tests"
    return result_cache.outcome(key, title, record, CheckResult, lambda: _run(loaded, key, image, log))


def counts(lines: Sequence[str]) -> tuple[int, int] | None:
    """Return the numbers of tests and of failed tests from the last line that reports them, or None."""
    for line in reversed(lines):
        if match := _COUNTED.fullmatch(line.strip()):
            return int(match[1]), int(match[2])
    return None


def _run(loaded: PackageRecipe, key: str, image: Path, log: Path) -> CheckResult:
    argv: list[str | Path] = [NABLA_RUN, "--ephemeral", "--memory", MEMORY, image]
    log.unlink(missing_ok=True)
    began = time.monotonic()
    try:
        run([*argv, "--", "/bin/sh", "-ec", loaded.package.check], log=log, timeout=TIMEOUT)
        status = 0
    except CommandError as error:
        status = error.returncode
    text = _COLORS.sub("", log.read_text(encoding="utf-8", errors="replace"))
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    tests, failed = counts(lines) or (0, 0)
    name, built = loaded.name, read_build_record(loaded.name)
    if status != 0 or failed or not tests:
        what = f"status {status}, {failed} of {tests}" if tests else f"status {status}, no count of tests"
        raise PackageCheckError(
            f"{name}: upstream's tests fail in the VM ({what})",
            "\n".join([*lines[-_LINES:], f"full output: {relative(log)}"]),
        )
    return CheckResult(
        recipe=name,
        version=built.parts[0].version,
        tree=built.tree,
        key=key,
        seconds=round(time.monotonic() - began),
        tests=tests,
        failed=failed,
        output=tuple(lines[-_LINES:]),
    )


def _key(loaded: PackageRecipe, image: Path) -> str:
    machine = [digest.sha256_file(path) for path in (image, VMLINUX, NABLA_RUN)]
    return result_cache.key("check", loaded.package.check, read_build_record(loaded.name).tree, machine, MEMORY)
