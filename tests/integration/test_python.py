# SPDX-License-Identifier: Apache-2.0
"""An unmodified prebuilt CPython 3.13 for musl, with tornado, uvloop, zmq and numpy."""

from __future__ import annotations

import ast

import pytest

from nabla.core.paths import TESTS

from .vm import Vm, tap_failures

FOLDER = "/usr/lib/nabla-tests"


def checks() -> list[str]:
    """Return the names of the checks, read from the script that runs in the guest."""
    tree = ast.parse((TESTS / "guest" / "python_checks.py").read_text())
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id == "check" for mark in node.decorator_list)
    ]


def test_version(testing: Vm) -> None:
    assert testing.check("python3 -V").startswith("Python 3.13.")


@pytest.mark.parametrize("name", checks())
def test_check(testing: Vm, name: str) -> None:
    result = testing.run("/usr/bin/python3", f"{FOLDER}/python_checks.py", name)
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


def test_all_in_one_process(testing: Vm) -> None:
    result = testing.run("/usr/bin/python3", f"{FOLDER}/python_checks.py", timeout=200)
    assert not tap_failures(result.output), result.describe()


def test_shared_mappings(testing: Vm) -> None:
    """SQLite's WAL, mmap, shelve, numpy.memmap, shared_memory."""
    result = testing.run("/usr/bin/python3", f"{FOLDER}/python_mapped.py")
    assert result.status == 0, result.describe()
    assert len(result.lines()) == 10, result.describe()


def test_ten_thousand_requests(testing: Vm) -> None:
    """A tornado server and Alpine's curl, both in the guest."""
    script = f"""
        python3 {FOLDER}/serve_tornado.py 8888 >/tmp/log 2>&1 &
        curl -sf --retry 60 --retry-delay 0 --retry-connrefused http://127.0.0.1:8888/5 || exit
        curl -sf 'http://127.0.0.1:8888/[1-10000]' >/tmp/answers || exit
        wc -l </tmp/answers
        awk '{{ if ($1 != NR * NR) wrong++ }} END {{ print "wrong", wrong + 0 }}' /tmp/answers
    """
    assert testing.check(script, timeout=200).split() == ["25", "10000", "wrong", "0"]


def test_interactive(testing: Vm) -> None:
    with testing.interactive("/usr/bin/python3", "-q") as console:
        console.expect_exact(">>> ")
        console.sendline("6 * 7")
        console.expect_exact("42")
        console.expect_exact(">>> ")
        console.sendline("while True: pass")
        console.sendline("")
        console.expect(r"\.\.\. ")
        console.sendcontrol("c")
        console.expect_exact("KeyboardInterrupt")
        console.expect_exact(">>> ")


def test_compiles_its_library(testing: Vm) -> None:
    """Many files read, much memory allocated and freed."""
    script = """
        cd /opt/backend.ai/lib/python3.13 && cp -r json email /tmp && cd /tmp || exit
        rm -rf json/__pycache__ email/__pycache__
        python3 -m compileall -q json email && ls email/__pycache__ | wc -l
    """
    assert int(testing.check(script)) > 15
