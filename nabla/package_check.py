# SPDX-License-Identifier: Apache-2.0
"""Run the tests that upstream made for a package, in the machine, and record what came out.

A recipe says by `check` what to run: shell, in an image that holds the package and its tests. The record names the
package's version and files, so that it is told which build was tested:

    out/check/<recipe>.json     recipe, version, tree, seconds, status, and the last lines of output
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from nabla import recipe
from nabla.errors import CommandError, NablaError
from nabla.package import read_record
from nabla.paths import NABLA_RUN, relative
from nabla.run import run

MEMORY = "1536M"
TIMEOUT = 1200.0  # seconds
_LINES = 12


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a package's tests. `tree`: digest of its files, as in out/packages; `seconds`: of the clock."""

    recipe: str
    version: str
    tree: str
    status: int
    seconds: int
    output: tuple[str, ...]


class PackageCheckError(NablaError):
    """A package's own tests fail in the machine."""


def check(name: str, image: Path, result: Path, log: Path) -> CheckResult:
    """Run a recipe's `check` and write `result`. Raises `PackageCheckError` when the tests fail."""
    loaded = recipe.load(name)
    assert loaded.package is not None
    built = read_record(name)
    words: list[str | Path] = [
        NABLA_RUN,
        "--ephemeral",
        "--memory",
        MEMORY,
        image,
        "--",
        "/bin/sh",
        "-ec",
        loaded.package.check,
    ]
    log.unlink(missing_ok=True)
    began = time.monotonic()
    try:
        run(words, log=log, timeout=TIMEOUT)
        status = 0
    except CommandError as error:
        status = error.returncode
    lines = [line.rstrip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    found = CheckResult(
        recipe=name,
        version=built.parts[0].version,
        tree=built.tree,
        status=status,
        seconds=round(time.monotonic() - began),
        output=tuple(lines[-_LINES:]),
    )
    if status != 0:
        raise PackageCheckError(
            f"{name}: its own tests fail in the machine (status {status})",
            "\n".join([*found.output, f"the whole output: {relative(log)}"]),
        )
    result.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    return found
