# SPDX-License-Identifier: Apache-2.0
"""Creation of tasks; test_doit.py tests their execution."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from doit.exceptions import TaskError, TaskFailed

from nabla.core import files
from nabla.core.artifacts import Tree
from nabla.core.errors import NablaError
from nabla.core.paths import OUT, STATE
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.task import step


def act(job: Job, word: str = "") -> None:
    """An action."""


def test_dictionary_of_a_step() -> None:
    inputs: list[Path | Tree] = [OUT / "file", Tree(OUT / "folder")]
    outputs: list[Path | Tree] = [OUT / "result", Tree(OUT / "results")]
    task = step("area:step", act, doc="what it does", inputs=inputs, outputs=outputs, after=["other"], args=["word"])
    assert (task["basename"], task["name"], task["doc"]) == ("area", "step", "what it does")
    assert task["file_dep"] == [str(OUT / "file"), str(STATE / "trees/out+folder.sha256")]
    assert task["targets"] == [str(OUT / "result"), str(OUT / "results"), str(STATE / "trees/out+results.sha256")]
    assert task["task_dep"] == ["other"]
    # `doit -n 2` sends tasks to other processes.
    assert pickle.loads(pickle.dumps(task["actions"])) == task["actions"]
    assert "name" not in step("area", act, doc="no steps")
    assert step("area", act, doc="each time", always=True)["uptodate"] == [False]


def test_only_declared_outputs_have_a_place(tmp_path: Path) -> None:
    job = Job("area:step", tmp_path / "log", (tmp_path / "result",))
    assert job.out(tmp_path / "result") == tmp_path / ".result.partial"
    with pytest.raises(ValueError, match="is not among the outputs"):
        job.out(tmp_path / "another")


def test_source_files(tmp_path: Path) -> None:
    for name in ("b.c", "a.h", "deep/c.c", ".hidden/d.c", "__pycache__/e.c", "f.c~", "deep/.g.c"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")

    def names(*patterns: str) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in task.source_files(tmp_path, *patterns)]

    assert names() == ["a.h", "b.c", "deep/c.c"]
    assert names("*.c") == ["b.c", "deep/c.c"]


def test_guard_keeps_the_signature_and_maps_errors() -> None:
    def user(words: list[str]) -> None:
        raise NablaError("cause", "hint")

    def bug(words: list[str]) -> None:
        raise KeyError("x")

    def good(words: list[str]) -> None:
        return

    failure = task.guard(user)(["x"])
    assert isinstance(failure, TaskError)
    assert failure.message == "error: cause\nhint: hint"
    failure = task.guard(bug)(["x"])
    assert isinstance(failure, TaskFailed)
    assert "please report it" in failure.message
    assert task.guard(good)(["x"]) is None


def test_remove(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("")
    (folder / "deep").chmod(0o000)
    (tmp_path / "link").symlink_to(folder)
    files.remove(tmp_path / "link")
    assert folder.exists()
    files.remove(folder)
    files.remove(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []
