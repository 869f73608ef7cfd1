# SPDX-License-Identifier: Apache-2.0
"""Run the tests: `doit test [-- ARGUMENTS OF PYTEST]`, `doit test:quick`."""

from __future__ import annotations

import sys

from nabla.core import process
from nabla.core.errors import CommandError
from nabla.core.paths import ROOT
from nabla.sandbox import bwrap

# Tests that need no build, no build root and no connection, and take seconds.
QUICK = "not (vm or buildroot or doit or slow or online)"


def run_tests(words: list[str]) -> None:
    """Run pytest on the caller's terminal, by the Python of the virtual environment."""
    # One worker more than processors, since some tests wait for other programs.
    _pytest([] if words else ["-p", "tests.passed", *_parallel(bwrap.jobs() + 1)], words)


def run_quick_tests(words: list[str]) -> None:
    """Run the linters and the tests that need no build."""
    # All integration tests need a build; importing them takes seconds.
    # These tests wait for nothing: additional workers would only collect them once more.
    _pytest(_parallel(bwrap.jobs()), ["-m", QUICK, "--ignore", "tests/integration", *words])


def _parallel(workers: int) -> list[str]:
    # The tests of a file share VMs and run in one worker. Files start in the order of their collection, the longest
    # first.
    return ["-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder", "--durations", "20"]


def _pytest(options: list[str], words: list[str]) -> None:
    status = process.interactive([sys.executable, "-m", "pytest", *options, *words], cwd=ROOT)
    if status != 0:
        raise CommandError("tests failed", "see above; to repeat one: out/venv/bin/python -m pytest -k NAME")
