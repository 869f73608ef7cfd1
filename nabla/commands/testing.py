# SPDX-License-Identifier: Apache-2.0
"""Run the tests: `doit test [-- WORDS OF PYTEST]`."""

from __future__ import annotations

import sys

from nabla.core import process
from nabla.core.errors import CommandError
from nabla.core.paths import ROOT
from nabla.sandbox import bwrap


def run_tests(words: list[str]) -> None:
    """Run pytest on the caller's terminal, with the environment's own Python."""
    # A file stays together, as its tests share machines. One more than there are processors: the second build is a test
    # that waits for other processes. Files go in the order in which they were collected, the longest first.
    spread = ["-n", str(bwrap.jobs() + 1), "--dist", "loadfile", "--no-loadscope-reorder"] if not words else []
    status = process.interactive([sys.executable, "-m", "pytest", *spread, *words], cwd=ROOT)
    if status != 0:
        raise CommandError("tests failed", "see above; to repeat one: out/venv/bin/python -m pytest -k NAME")
