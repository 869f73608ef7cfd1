# SPDX-License-Identifier: Apache-2.0
"""The task with the longest remaining path starts first."""

from __future__ import annotations

import json
import re

import pytest

from nabla.engine import schedule
from nabla.report import benchmarks
from tests.conftest import Checkout

TASKS = """
from nabla.core.paths import OUT
from nabla.engine.task import alias, step

def task_all():
    return alias("all", "everything", [*(f"leaf:{number}" for number in range(9)), "chain:c"])

def task_start():
    return step("start", write, doc="what all wait for", outputs=[OUT / "start"], args=["start"])

def task_leaf():
    for number in range(9):
        name = f"leaf:{number}"
        yield step(name, write, doc="a leaf", outputs=[OUT / name], args=[name], after=["start"])

def task_chain():
    for name, needed in (("chain:a", "start"), ("chain:b", "chain:a"), ("chain:c", "chain:b")):
        yield step(name, write, doc="of a chain", outputs=[OUT / name], args=[name], after=[needed])

def write(job, name):
    job.out(OUT / name).write_text(name)
"""


@pytest.fixture
def tasks(checkout: Checkout) -> Checkout:
    checkout.task_module("tasks", TASKS)
    return checkout


def begun(output: str) -> list[str]:
    return [match[1] for line in output.splitlines() if (match := re.match(r"(\S+): (?:what|a|of)\b.* …", line))]


def test_ways_are_those_to_the_end() -> None:
    graph = {"all": ["leaf", "last"], "leaf": ["start"], "middle": ["start"], "last": ["middle"], "start": []}
    seconds = {"leaf": 2.0, "middle": 10.0, "last": 0.5}
    assert schedule.ways(graph, seconds) == {"all": 1, "leaf": 3, "last": 1.5, "middle": 11.5, "start": 12.5}
    assert schedule.ways({"a": ["b"], "b": ["a"]}, {}) == {}


def test_the_longest_way_first(tasks: Checkout) -> None:
    order = begun(tasks.doit())
    assert order[:3] == ["start", "chain:a", "chain:b"]
    assert len(order) == 13


def test_with_two_at_a_time(tasks: Checkout) -> None:
    """Each task once; the workers' start messages may arrive in any order."""
    order = begun(tasks.doit("-n", "2"))
    assert sorted(order) == sorted({"start", "chain:a", "chain:b", "chain:c", *(f"leaf:{n}" for n in range(9))})
    assert order[0] == "start"
    assert [name for name in order if name.startswith("chain")] == ["chain:a", "chain:b", "chain:c"]


def test_the_order_of_the_command_line_stays(tasks: Checkout) -> None:
    assert begun(tasks.doit("leaf:3", "chain:b", "leaf:1")) == ["start", "leaf:3", "chain:a", "chain:b", "leaf:1"]


def test_measured_times_count(tasks: Checkout) -> None:
    measured = json.loads(benchmarks.BUILD.read_text())
    measured["steps"] = [{"name": "leaf:5", "seconds": 99.0}]
    tasks.write("bench/results/build.json", json.dumps(measured))
    assert begun(tasks.doit())[:2] == ["start", "leaf:5"]
    tasks.write("bench/results/build.json", "damaged")
    (tasks.root / "out" / "start").unlink()
    assert begun(tasks.doit("start")) == ["start"]
