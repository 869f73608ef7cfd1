# SPDX-License-Identifier: Apache-2.0
"""The engine as a whole: real doit processes in a small checkout, stopped, damaged and repeated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Checkout
from tests.unit.engine.pipeline import PIPELINE, ran


def test_builds_then_has_nothing_to_do(pipeline: Checkout) -> None:
    assert ran(pipeline.doit()) == ["chain:upper", "chain:folder", "chain:last"]
    assert (pipeline.root / "out/last.txt").read_text() == "last of ONETAIL"
    second = pipeline.doit()
    assert ran(second) == []
    assert "3 up to date" in second
    assert (pipeline.root / "out/CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_changed_input_is_noticed_even_with_the_same_size_and_mtime(pipeline: Checkout) -> None:
    pipeline.doit()
    path = pipeline.root / "input.txt"
    times = path.stat()
    path.write_text("two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert ran(pipeline.doit()) == ["chain:upper", "chain:folder", "chain:last"]
    assert (pipeline.root / "out/last.txt").read_text() == "last of TWOTAIL"


def test_equal_output_stops_the_chain(pipeline: Checkout) -> None:
    pipeline.doit()
    pipeline.write("input.txt", "ONE")
    assert ran(pipeline.doit()) == ["chain:upper"]


def test_changed_configuration_and_code_are_noticed(pipeline: Checkout) -> None:
    pipeline.doit()
    pipeline.task_module("chain", PIPELINE.replace('{"tail": "TAIL"}', '{"tail": "another"}'))
    assert 'tail changed from "TAIL" to "another"' in pipeline.doit("explain", "chain:upper")
    assert "chain:upper" in ran(pipeline.doit())
    pipeline.task_module("chain", PIPELINE.replace('"last of "', '"end of "'))
    assert "the code of the task changed" in pipeline.doit("explain", "chain:last")
    assert "chain:last" in ran(pipeline.doit())
    assert (pipeline.root / "out/last.txt").read_text() == "end of ONETAIL"


def test_modes_do_not_depend_on_the_umask(pipeline: Checkout) -> None:
    before = os.umask(0o077)
    try:
        pipeline.doit()
    finally:
        os.umask(before)
    assert (pipeline.root / "out/upper.txt").stat().st_mode & 0o777 == 0o644
    pipeline.task_module("chain", PIPELINE.replace('"TAIL")', '"TAIL"); job.out(UPPER).chmod(0o700)'))
    pipeline.doit()
    assert (pipeline.root / "out/upper.txt").stat().st_mode & 0o777 == 0o755


def test_comments_do_not_count_as_code(pipeline: Checkout) -> None:
    pipeline.doit()
    pipeline.task_module(
        "chain",
        "# a comment\n"
        + PIPELINE.replace("def upper(job: Job) -> None:", "def upper(\n    job: Job) -> None:\n    'doc'"),
    )
    assert ran(pipeline.doit()) == []


@pytest.mark.parametrize("name", ["out/upper.txt", "out/folder/copy"])
def test_damaged_output_is_made_again(pipeline: Checkout, name: str) -> None:
    pipeline.doit()
    path = pipeline.root / name
    good = path.read_text()
    path.write_text(good.replace("ONE", "XXX"))
    assert f"damaged or missing: {'/'.join(name.split('/')[:2])}" in pipeline.doit("explain", "chain")
    assert len(ran(pipeline.doit())) == 1
    assert path.read_text() == good


def test_stray_file_in_an_output_folder_is_noticed(pipeline: Checkout) -> None:
    pipeline.doit()
    pipeline.write("out/folder/stray", "")
    assert ran(pipeline.doit()) == ["chain:folder"]
    assert not (pipeline.root / "out/folder/stray").exists()


def test_exit_status_and_text_of_failures(checkout: Checkout) -> None:
    checkout.task_module(
        "bad",
        """
from nabla.core.errors import NablaError
from nabla.core.paths import OUT
from nabla.engine.task import step

def task_user():
    return step("user", user, doc="a mistake of the user", always=True)

def task_bug():
    return step("bug", bug, doc="a bug", always=True)

def task_command():
    return step("command", command, doc="a program that fails", outputs=[OUT / "never"])

def user(job):
    raise NablaError("the cause", "what to do")

def bug(job):
    raise ZeroDivisionError("oops")

def command(job):
    job.out(OUT / "never").write_text("half")
    job.run(["sh", "-c", "echo first; echo last words >&2; exit 3"])
""",
    )
    user = checkout.doit("user", status=2)
    assert "error: the cause\nhint: what to do\n" in user
    assert "Traceback" not in user
    bug = checkout.doit("bug", status=1)
    assert "please report it" in bug
    assert "ZeroDivisionError" in bug
    command = checkout.doit("command", status=2)
    assert "sh failed with exit status 3" in command
    assert "last words" in command
    assert "out/logs/command.log" in command
    assert "to repeat: sh -c 'echo first; echo last words >&2; exit 3'" in command
    assert not (checkout.root / "out/never").exists()
    log = (checkout.root / "out/logs/command.log").read_text()
    assert log.splitlines()[1:] == ["first", "last words"]


def test_broken_recipe_is_told_in_one_line(checkout: Checkout) -> None:
    checkout.write("recipes/broken/recipe.toml", 'name = "broken"\nversion = 1\n')
    checkout.task_module(
        "recipes",
        "from nabla.sources import recipe\n"
        "def task_recipes():\n"
        "    return {'actions': None, 'doc': recipe.load('broken').name}\n",
    )
    output = checkout.doit("list", status=2)
    assert output.splitlines() == ["error: recipes/broken/recipe.toml:2: version: expected str, got int"]


def test_failed_task_keeps_previous_outputs(pipeline: Checkout) -> None:
    pipeline.doit()
    pipeline.task_module(
        "chain",
        PIPELINE.replace("job.out(LAST).write_text(", "job.out(LAST).write_text('half')\n    raise NablaError("),
    )
    pipeline.doit(status=2)
    assert (pipeline.root / "out/last.txt").read_text() == "last of ONETAIL"


def test_input_that_changes_while_the_task_runs(pipeline: Checkout) -> None:
    text = PIPELINE.replace(
        "def other(job: Job) -> None:", "def other(job: Job) -> None:\n    (ROOT / 'input.txt').write_text('new')"
    )
    pipeline.task_module("chain", text)
    assert "an input changed while the task ran" in pipeline.doit("other", status=2)
    assert not (pipeline.root / "out/other.txt").exists()


def test_damaged_state_database_is_put_aside(pipeline: Checkout) -> None:
    pipeline.doit()
    path = pipeline.root / "out/state/doit.sqlite"
    for extra in ("-journal",):
        Path(f"{path}{extra}").unlink(missing_ok=True)
    path.write_bytes(b"not a database" * 1000)
    output = pipeline.doit()
    assert "is damaged (file is not a database) and was renamed" in output
    assert len(ran(output)) == 3
    assert ran(pipeline.doit()) == []


def test_full_disk(pipeline: Checkout) -> None:
    text = PIPELINE.replace(
        "def other(job: Job) -> None:",
        "def other(job: Job) -> None:\n    job.out(OUT / 'other.txt').write_bytes(bytes(4000000))",
    )
    pipeline.task_module("chain", text)
    out = pipeline.root / "out"
    out.mkdir()
    sandbox = [
        "bwrap",
        "--die-with-parent",
        "--bind",
        "/",
        "/",
        "--dev",
        "/dev",
        "--size",
        "2000000",
        "--tmpfs",
        str(out),
    ]
    with pipeline.popen("chain:upper", "other", prefix=sandbox) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert "error: no room left while writing" in output
    assert "Traceback" not in output


def test_clean(pipeline: Checkout) -> None:
    pipeline.doit("all", "other")
    assert "removed out/last.txt" in pipeline.doit("clean", "chain:last")
    assert ran(pipeline.doit("all", "other")) == ["chain:last"]
    pipeline.doit("clean")
    assert sorted(path.name for path in (pipeline.root / "out").iterdir()) == ["CACHEDIR.TAG", "state"]
    assert len(ran(pipeline.doit("all", "other"))) == 4


def test_explain_of_a_task_that_is_up_to_date(pipeline: Checkout) -> None:
    pipeline.doit()
    output = pipeline.doit("explain", "chain:last")
    assert "up to date" in output
    assert "input  out/state/trees/out+folder.sha256  (by chain:folder)" in output
    assert "output out/last.txt  sha256 " in output


def test_nothing_to_do_is_fast(pipeline: Checkout) -> None:
    big = pipeline.root / "out/big"
    text = (
        PIPELINE
        + """
def task_big() -> TaskDict:
    return step("big", big, doc="512 MB", outputs=[OUT / "big"])

def big(job: Job) -> None:
    with job.out(OUT / "big").open("wb") as stream:
        stream.truncate(512 << 20)
"""
    )
    pipeline.task_module("chain", text)
    pipeline.doit("all", "big")
    assert big.stat().st_size == 512 << 20
    pipeline.doit("all", "big")
    before = os.times()
    pipeline.doit("all", "big")
    after = os.times()
    # Processor time of the children: a wall clock would measure the load of the machine.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["chain:uper"], "error: there is no task or command 'chain:uper'\nhint: similar names: chain:upper"),
        (["run", "nothing"], "error: there is no task or command 'nothing'\nhint: list all tasks:"),
        (["clean", "chain:lost"], "error: there is no task or command 'chain:lost'\nhint: similar names: chain:last"),
        (["explain", "nothing"], "error: there is no task or command 'nothing'"),
        (["-x"], "error: option -x not recognized\nhint: list the options: ./doit.sh help run"),
        (["-n", "x"], "error: Error parsing parameter 'num_process'"),
    ],
)
def test_wrong_argument_is_one_error(pipeline: Checkout, words: list[str], expected: str) -> None:
    output = pipeline.doit(*words, status=2)
    assert output.startswith(expected)
    assert not (pipeline.root / "out/last.txt").exists()
