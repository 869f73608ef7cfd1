# SPDX-License-Identifier: Apache-2.0
"""The task with the longest remaining path is started first."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from nabla.engine import order
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
        yield step(name, write, doc="a leaf", outputs=[OUT / name], args=[name], inputs=[OUT / "start"])

def task_chain():
    for name, needed in (("chain:a", "start"), ("chain:b", "chain:a"), ("chain:c", "chain:b")):
        yield step(name, write, doc="of a chain", outputs=[OUT / name], args=[name], inputs=[OUT / needed])

def write(job, name):
    job.out(OUT / name).write_text(name)
"""


@pytest.fixture
def tasks(checkout: Checkout) -> Checkout:
    checkout.task_module("tasks", TASKS)
    return checkout


def begun(output: str) -> list[str]:
    return [match[1] for line in output.splitlines() if (match := re.match(r"(\S+): (?:what|a|of)\b.* …", line))]


def test_paths_reach_to_the_end() -> None:
    graph = {"all": ["leaf", "last"], "leaf": ["start"], "middle": ["start"], "last": ["middle"], "start": []}
    seconds = {"leaf": 2.0, "middle": 10.0, "last": 0.5}
    assert order.remaining_paths(graph, seconds) == {"all": 1, "leaf": 3, "last": 1.5, "middle": 11.5, "start": 12.5}
    assert order.remaining_paths({"a": ["b"], "b": ["a"]}, {}) == {}


def task(name: str, *needed: str, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> SimpleNamespace:
    return SimpleNamespace(name=name, task_dep=list(needed), file_dep=set(inputs), targets=list(outputs))


TASKS_OF_DOIT = [
    task("all", "leaf", "last"),
    task("start", outputs=["out/start"]),
    task("leaf", inputs=["out/start"]),
    task("middle", inputs=["out/start", "input"]),
    task("last", "middle"),
    task("other"),
]


def test_the_longest_path_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(order, "_MEASURED", tmp_path / "build.json")
    assert order.ordered(TASKS_OF_DOIT, ["all"]) == ["start", "middle", "last", "leaf", "all"]
    measured = json.loads(benchmarks.BUILD.read_text())
    measured["steps"] = [{"name": "leaf", "seconds": 99.0}]
    (tmp_path / "build.json").write_text(json.dumps(measured))
    assert order.ordered(TASKS_OF_DOIT, ["all"])[:2] == ["start", "leaf"]
    (tmp_path / "build.json").write_text("damaged")
    assert order.ordered(TASKS_OF_DOIT, ["last"]) == ["start", "middle", "last"]


def test_two_workers_run_each_task_once(tasks: Checkout) -> None:
    started = begun(tasks.doit("-n", "2"))
    assert sorted(started) == sorted({"start", "chain:a", "chain:b", "chain:c", *(f"leaf:{n}" for n in range(9))})
    assert started[0] == "start"
    assert [name for name in started if name.startswith("chain")] == ["chain:a", "chain:b", "chain:c"]


def test_one_worker_keeps_the_order_of_the_command_line(tasks: Checkout) -> None:
    assert begun(tasks.doit("leaf:3", "chain:b", "leaf:1")) == ["start", "leaf:3", "chain:a", "chain:b", "leaf:1"]
