# SPDX-License-Identifier: Apache-2.0
"""Tasks for people: everything at once, and the tests.

all   <- kernel, musl, busybox, launcher, init, rootfs:alpine, rootfs:minimal
ready <- all, fetch, rootfs, packages, what a release holds
test  <- ready
"""

from __future__ import annotations

import sys

from nabla import run, sandbox
from nabla.errors import CommandError
from nabla.paths import ROOT
from nabla.tasklib import TaskDict, alias, guard

ARTIFACTS = ("kernel", "musl", "busybox", "launcher", "init", "rootfs:alpine", "rootfs:minimal")


def task_all() -> TaskDict:
    """Build all artifacts."""
    return alias("all", "build all artifacts: kernel, libc, busybox, launcher, init, images", ARTIFACTS)


def task_ready() -> TaskDict:
    """Build what the tests look at."""
    return alias(
        "ready", "build everything that the tests look at", ("all", "fetch", "rootfs", "packages", "oci", "release")
    )


def task_test() -> TaskDict:
    """Run tests and linters."""
    return {
        "basename": "test",
        "doc": "run all tests and linters on what was built; words after it go to pytest (doit test -- -k fetch)",
        "actions": [guard(run_tests)],
        "pos_arg": "words",
        "task_dep": ["ready"],
        "uptodate": [False],
        "verbosity": 2,
    }


def run_tests(words: list[str]) -> None:
    """Run pytest on the caller's terminal, with the environment's own Python."""
    # A file stays together, as its tests share machines. One more than there are processors: the second build is a test
    # that waits for other processes. Files go in the order in which they were collected, the longest first.
    spread = ["-n", str(sandbox.jobs() + 1), "--dist", "loadfile", "--no-loadscope-reorder"] if not words else []
    status = run.interactive([sys.executable, "-m", "pytest", *spread, *words], cwd=ROOT)
    if status != 0:
        raise CommandError("tests failed", "see above; to repeat one: out/venv/bin/python -m pytest -k NAME")
