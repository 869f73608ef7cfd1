# SPDX-License-Identifier: Apache-2.0
"""doit that is interrupted or killed, that runs two tasks at a time, or beside another doit in the same checkout."""

from __future__ import annotations

import signal

import pytest

from tests.conftest import Checkout
from tests.unit.engine.pipeline import PIPELINE, ran, wait_for


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 130), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_killed_while_a_task_runs(pipeline: Checkout, number: signal.Signals, status: int) -> None:
    pipeline.doit()
    pipeline.write("input.txt", "two")
    pipeline.write("slow", "")
    with pipeline.popen() as process:
        wait_for(pipeline.root / "begun")
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == status, output
    if number is not signal.SIGKILL:
        assert output.splitlines()[-1] == "interrupted"
    # The finished first step is recorded, and the interrupted second one did not change its previous output.
    assert (pipeline.root / "out/folder/copy").read_text() == "ONETAIL"
    (pipeline.root / "slow").unlink()
    assert ran(pipeline.doit()) == ["chain:folder", "chain:last"]
    assert (pipeline.root / "out/last.txt").read_text() == "last of TWOTAIL"
    leftovers = [path.name for path in (pipeline.root / "out").rglob(".*") if path.suffix in (".partial", ".old")]
    assert leftovers == []


def test_two_tasks_at_a_time(pipeline: Checkout) -> None:
    output = pipeline.doit("-n", "2", "all", "other")
    assert sorted(ran(output)) == ["chain:folder", "chain:last", "chain:upper", "other"]
    assert ran(pipeline.doit("-n", "2", "all", "other")) == []
    assert ran(pipeline.doit("all", "other")) == []


def test_interrupted_while_two_run(pipeline: Checkout) -> None:
    pipeline.write("slow", "")
    with pipeline.popen("-n", "2", "all", "other") as process:
        wait_for(pipeline.root / "begun")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    (pipeline.root / "slow").unlink()
    # The other one may have ended before, depending on the processors.
    assert [name for name in ran(pipeline.doit("-n", "2", "all", "other")) if name != "other"] == [
        "chain:folder",
        "chain:last",
    ]


def test_workers_do_not_outlive_a_killed_doit(pipeline: Checkout) -> None:
    pipeline.write("slow", "")
    begun = pipeline.root / "begun"
    with pipeline.popen("-n", "2", "all", "other") as process:
        wait_for(begun)
        process.kill()
        # The pipe closes when the last process that holds it has ended.
        process.communicate(timeout=30)


def test_a_step_has_processes_of_its_own(checkout: Checkout) -> None:
    """Their parent is a worker, not the doit that was started."""
    checkout.task_module(
        "pool",
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from nabla.engine.task import step\n"
        "def task_pool():\n"
        "    return step('pool', pool, doc='add', always=True)\n"
        "def pool(job):\n"
        "    with ProcessPoolExecutor(2) as workers:\n"
        "        print('the sum is', sum(workers.map(abs, [-1, -2])))\n",
    )
    output = checkout.doit("-n", "2", "pool")
    assert "the sum is 3" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("words", [("all",), ("-n", "2", "all")])
def test_a_second_doit_waits_and_finds_the_results(pipeline: Checkout, words: tuple[str, ...]) -> None:
    """It checks which tasks are out of date after the first one has ended."""
    pipeline.task_module(
        "chain",
        PIPELINE.replace(
            "    job.out(FOLDER).mkdir()",
            "    job.out(FOLDER).mkdir(); open('made', 'a').write('x')\n"
            "    while not (ROOT / 'go').exists(): time.sleep(0.02)",
        ),
    )
    output = pipeline.root / "made"
    first = pipeline.popen(*words)
    wait_for(output)
    second = pipeline.popen(*words)
    assert second.stdout is not None
    assert second.stdout.readline() == "waiting for another doit in this checkout …\n"
    pipeline.write("go", "")
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert ran(outputs[1]) == []
    assert output.read_text() == "x"
    pipeline.doit("--always-execute")
    assert output.read_text() == "xx"


def test_an_interactive_command_lets_others_build(pipeline: Checkout) -> None:
    pipeline.task_module(
        "session",
        "import time\n"
        "from nabla.core.paths import ROOT\n"
        "from nabla.engine.task import command\n"
        "def task_session():\n"
        "    return command('session', session, doc='last long', after=['other'], interactive=True)\n"
        "def session():\n"
        "    (ROOT / 'open').touch()\n"
        "    while not (ROOT / 'done').exists(): time.sleep(0.02)\n",
    )
    with pipeline.popen("session", "chain:upper") as process:
        wait_for(pipeline.root / "open")
        assert ran(pipeline.doit("all")) == ["chain:upper", "chain:folder", "chain:last"]
        pipeline.write("done", "")
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_two_doits_in_one_checkout_wait_for_each_other(pipeline: Checkout) -> None:
    first, second = pipeline.popen("all"), pipeline.popen("all")
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert (pipeline.root / "out/last.txt").read_text() == "last of ONETAIL"
    assert ran(pipeline.doit()) == []
