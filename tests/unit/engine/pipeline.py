# SPDX-License-Identifier: Apache-2.0
"""A checkout with a chain of three steps, for the tests that run doit."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import Checkout

PIPELINE = """
import sys
import time
from collections.abc import Iterator
from nabla.core.errors import NablaError
from nabla.core.paths import OUT, ROOT
from nabla.core.artifacts import Tree
from nabla.engine.action import Job
from nabla.engine.task import TaskDict, alias, group, source_files, step

UPPER = OUT / "upper.txt"
FOLDER = Tree(OUT / "folder")
LAST = OUT / "last.txt"

def task_all() -> TaskDict:
    return alias("all", "everything", ["chain"])

def task_chain() -> Iterator[TaskDict]:
    yield group("chain", "three steps")
    yield step("chain:upper", upper, doc="first", inputs=[ROOT / "input.txt"], outputs=[UPPER], config={"tail": "TAIL"})
    yield step("chain:folder", folder, doc="second", inputs=[UPPER], outputs=[FOLDER])
    yield step("chain:last", last, doc="third", inputs=[FOLDER], outputs=[LAST])

def task_other() -> TaskDict:
    return step("other", other, doc="independent", inputs=[ROOT / "input.txt"], outputs=[OUT / "other.txt"])

def upper(job: Job) -> None:
    job.out(UPPER).write_text((ROOT / "input.txt").read_text().upper() + "TAIL")

def folder(job: Job) -> None:
    job.out(FOLDER).mkdir()
    (job.out(FOLDER) / "copy").write_text(UPPER.read_text())
    if (ROOT / "slow").exists():
        while True:
            (ROOT / "begun").write_text(str(time.monotonic()))
            time.sleep(0.05)

def last(job: Job) -> None:
    job.out(LAST).write_text("last of " + (FOLDER.path / "copy").read_text())

def other(job: Job) -> None:
    job.out(OUT / "other.txt").write_text((ROOT / "input.txt").read_text())
"""


@pytest.fixture
def pipeline(checkout: Checkout) -> Checkout:
    checkout.task_module("chain", PIPELINE)
    checkout.write("input.txt", "one")
    return checkout


def ran(output: str) -> list[str]:
    """The names of the tasks that succeeded."""
    return [line.split(": done")[0] for line in output.splitlines() if ": done in" in line]


def wait_for(path: Path, limit: float = 30) -> None:
    """Wait until a file exists."""
    end = time.monotonic() + limit
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)
