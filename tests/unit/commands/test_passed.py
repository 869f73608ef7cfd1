# SPDX-License-Identifier: Apache-2.0
"""A test file runs again exactly if one of its inputs has changed, or if it has not passed."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, Checkout

SHARED = "VALUE = 1\n"
GOOD = "from tests.shared import VALUE\n\n\ndef test_one():\n    assert VALUE\n\n\ndef test_two():\n    assert VALUE\n"
USER = "from tests.test_good import VALUE\n\n\ndef test_value():\n    assert VALUE == 1\n"
WRITER = """
import time
from pathlib import Path


def test_writes():
    Path("README.md").write_text(str(time.time()))
"""
BAD = "def test_fine():\n    pass\n\n\ndef test_bad():\n    assert False\n"


@pytest.fixture
def tested(checkout: Checkout) -> Checkout:
    """A checkout with the plugin and three test files, the last of which fails."""
    for name in ("passed.py", "repository.py"):
        checkout.write(f"tests/{name}", (ROOT / "tests" / name).read_text())
    for name, text in (
        ("__init__", ""),
        ("shared", SHARED),
        ("test_good", GOOD),
        ("test_user", USER),
        ("test_bad", BAD),
    ):
        checkout.write(f"tests/{name}.py", text)
    checkout.write(".gitignore", "/out/\n__pycache__/\n.pytest_cache/\n")
    subprocess.run(["git", "init", "--quiet"], cwd=checkout.root, check=True)
    return checkout


def run(tested: Checkout, *, status: int, **variables: str) -> tuple[str, int]:
    """Run the tests as `doit test` does; return the summary of pytest and the number of tests that did not run."""
    argv = [sys.executable, "-m", "pytest", "-p", "tests.passed", "-n", "2", "--dist", "loadfile"]
    result = subprocess.run(
        argv, cwd=tested.root, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert result.returncode == status, result.stdout + result.stderr
    before = re.search(r"(\d+) tests in \d+ files have passed before", result.stdout)
    return result.stdout.splitlines()[-1].strip("= "), int(before[1]) if before else 0


def test_what_has_passed_does_not_run_again(tested: Checkout) -> None:
    summary, before = run(tested, status=1)
    assert summary.startswith("1 failed, 4 passed")
    assert before == 0
    # The whole file runs again, not only the test that has failed.
    summary, before = run(tested, status=1)
    assert summary.startswith("1 failed, 1 passed")
    assert before == 3
    tested.write("tests/test_bad.py", BAD.replace("False", "True"))
    assert run(tested, status=0)[1] == 3
    # Nothing is left to run, and that is a success.
    assert run(tested, status=0)[1] == 5
    assert run(tested, status=0, NABLA_FRESH="1")[1] == 0


def test_dependencies(tested: Checkout) -> None:
    tested.write("tests/test_bad.py", BAD.replace("False", "True"))
    assert run(tested, status=0)[1] == 0
    assert run(tested, status=0)[1] == 5
    # An imported test file, and the file that imports it.
    tested.write("tests/test_good.py", f"{GOOD}\n\ndef test_three():\n    assert VALUE\n")
    assert run(tested, status=0)[1] == 2
    # Any other file: a test may read it.
    tested.write("README.md", "changed\n")
    assert run(tested, status=0)[1] == 0
    # An artifact.
    tested.write("out/kernel/vmlinux", "changed")
    assert run(tested, status=0)[1] == 0
    assert run(tested, status=0)[1] == 6


def test_a_change_during_the_run(tested: Checkout) -> None:
    """A file that changes after the keys were made invalidates the results of this run."""
    tested.write("tests/test_bad.py", WRITER)
    assert run(tested, status=0)[1] == 0
    assert run(tested, status=0)[1] == 0
