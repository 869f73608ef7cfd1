# SPDX-License-Identifier: Apache-2.0
"""Run the tests that upstream made for a package, in the machine, and record what came out.

A recipe says by `check` what to run: shell, in an image that holds the package and its tests. Its last word is a line
"<number> tests, <number> failed". The record names the package's version and files, so that it is told which build was
tested:

    out/check/<recipe>.json     recipe, version, tree, key, seconds, tests, failed, and the last lines of output

A check that passed is kept in the user's cache under a digest of all that decides it: the script, the package, the
image, kernel and launcher. Nothing is run twice on the same bytes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from nabla.core import digest, files
from nabla.core.errors import CommandError, NablaError
from nabla.core.paths import NABLA_RUN, VMLINUX, cache_dir, relative
from nabla.core.process import run
from nabla.packages.catalog import read_record
from nabla.sources import recipe, store

MEMORY = "1536M"
TIMEOUT = 1200.0  # seconds
# To be raised by whoever changes what is recorded, or how the machine is started.
FORM = 1
_LINES = 12
_COUNTED = re.compile(r"(\d+) tests, (\d+) failed")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a package's tests. `tree`: digest of its files, as in out/packages; `key`: of all that decided this;
    `seconds`: of the clock."""

    recipe: str
    version: str
    tree: str
    key: str
    seconds: int
    tests: int
    failed: int
    output: tuple[str, ...]


class PackageCheckError(NablaError):
    """A package's own tests fail in the machine."""


def check(name: str, image: Path, result: Path, log: Path) -> CheckResult:
    """Run a recipe's `check`, or take what the cache knows, and write `result`.

    Raises `PackageCheckError` when a test fails, or when the script does not say that any was run.
    """
    key = _key(name, image)
    found = _known(key)
    if found is None:
        found = _run(name, key, image, log)
        _keep(found)
    result.write_bytes(_encoded(found))
    return found


def counted(lines: Sequence[str]) -> tuple[int, int] | None:
    """Return how many tests were run and how many failed, as the last line that says so has it; None without one."""
    for line in reversed(lines):
        if match := _COUNTED.fullmatch(line.strip()):
            return int(match[1]), int(match[2])
    return None


def entry(key: str) -> Path:
    """Return where the cache has, or would have, the outcome of that key."""
    return cache_dir() / "checks" / key[:2] / f"{key}.json"


def _run(name: str, key: str, image: Path, log: Path) -> CheckResult:
    words: list[str | Path] = [NABLA_RUN, "--ephemeral", "--memory", MEMORY, image]
    log.unlink(missing_ok=True)
    began = time.monotonic()
    try:
        run([*words, "--", "/bin/sh", "-ec", _script(name)], log=log, timeout=TIMEOUT)
        status = 0
    except CommandError as error:
        status = error.returncode
    text = _COLORS.sub("", log.read_text(encoding="utf-8", errors="replace"))
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    tests, failed = counted(lines) or (0, 0)
    built = read_record(name)
    if status != 0 or failed or not tests:
        what = f"status {status}, {failed} of {tests}" if tests else f"status {status}, no count of tests"
        raise PackageCheckError(
            f"{name}: its own tests fail in the machine ({what})",
            "\n".join([*lines[-_LINES:], f"the whole output: {relative(log)}"]),
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


def _key(name: str, image: Path) -> str:
    facts = {
        "check": _script(name),
        "package": read_record(name).tree,
        "machine": [digest.sha256_file(path) for path in (image, VMLINUX, NABLA_RUN)],
        "form": [FORM, MEMORY],
    }
    return digest.config_digest(facts)


def _script(name: str) -> str:
    loaded = recipe.load(name)
    assert loaded.package is not None
    return loaded.package.check


def _known(key: str) -> CheckResult | None:
    """Return what the cache has; None where it has nothing, or something damaged."""
    try:
        found = msgspec.json.decode(entry(key).read_bytes(), type=CheckResult)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return found if found.key == key and found.tests and not found.failed else None


def _keep(found: CheckResult) -> None:
    place = entry(found.key)
    files.make_folder(place.parent)
    with store.cache().scratch() as scratch:
        (scratch / "result").write_bytes(_encoded(found))
        (scratch / "result").rename(place)


def _encoded(found: CheckResult) -> bytes:
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"
