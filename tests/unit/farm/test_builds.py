# SPDX-License-Identifier: Apache-2.0
"""Builds on real Dask workers on several machines: the same results, logs and errors as in a local build."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.machines import Machine
from tests.unit.farm.conftest import Farm, begun, commit, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def two_workers(farm: Farm) -> tuple[Farm, Machine]:
    """A farm with a scheduler and two workers; and the machine of the scheduler."""
    scheduler = farm.machine("scheduler", "scheduler")
    farm.scheduler(scheduler)
    for name in ("one", "two"):
        farm.worker(farm.machine(name, "worker"), scheduler)
    return farm, scheduler


def places(output: str) -> dict[str, str]:
    """Step -> worker, from the messages of a build."""
    return dict(re.findall(r"^(\S+): runs on (\S+)$", output, re.MULTILINE))


def content(text: str) -> str:
    return "".join(f"{number}: {text}" for number in range(4))


def test_farm(two_workers: tuple[Farm, Machine], gate: Path) -> None:
    """Steps run at the same time on both workers; a client uses the results; a second one needs no worker."""
    farm, scheduler = two_workers
    client = farm.machine("client", "client")
    farm.allow(client)
    root = client.base / "checkout"
    # Changed data travel with the build.
    text = f"{gate} first\n"
    (root / "kernel-config/input").write_text(text)
    build = farm.client(client, scheduler, "own")
    wait_until(lambda: all(begun(gate, number) for number in range(4)) or build.process.poll() is not None)
    (gate / "go").touch()
    output = build.end()
    assert set(places(output)) == {"made:0", "made:1", "made:2", "made:3", "last"}, output
    assert set(places(output).values()) == {"one", "two"}, output
    homes = {path.read_text() for number in range(4) for path in begun(gate, number)}
    assert homes == {str(farm.base / f"machines/{name}/home") for name in ("one", "two")}
    assert (root / "out/own").read_text() == str(client.home) + content(text)
    log = (root / "out/logs/made-2.log").read_text()
    assert log.startswith("on worker ") and "the output of step 2" in log
    assert "warning" not in output
    trace = client.doit(root, "trace")
    assert "on 3 machines" in trace, trace
    events = json.loads((root / "out/trace.json").read_text())["traceEvents"]
    assert {each["name"] for each in events if each["ph"] == "X"} >= {"made:0", "last", "own"}
    assert "one: 2 slots" in client.doit(root, "farm:status", farm.address(scheduler))
    # Another client fetches everything from the store.
    second = farm.machine("client2", "client")
    other = second.base / "checkout"
    (other / "kernel-config/input").write_text(text)
    output = farm.client(second, scheduler, "own").end()
    assert places(output) == {} and "fetched from" in output, output
    assert (other / "out/own").read_text() == str(second.home) + content(text)
    _failing_step(farm, scheduler, client)
    _whole_tasks(farm, scheduler, client)
    _other_code(farm, scheduler, client)


def _failing_step(farm: Farm, scheduler: Machine, client: Machine) -> None:
    """The error, the log and the work folder of a failed step arrive as if it had run here; nothing is stored."""
    root = client.base / "checkout"
    (root / "kernel-config/input").write_text("bad\n")
    before = sorted((farm.base / "served/nabla/ac").iterdir())
    output = farm.client(client, scheduler, "own").end(status=2)
    assert "sh failed with exit status 3" in output and "it ran on worker" in output, output
    assert "the reason" in (root / "out/logs/made-0.log").read_text()
    assert (root / "out/work/0/build/tree").read_text() == "what the step left"
    assert sorted((farm.base / "served/nabla/ac").iterdir()) == before


def _whole_tasks(farm: Farm, scheduler: Machine, client: Machine) -> None:
    """`doit farm:run` runs a task of some groups as a whole, and no other one."""
    root = client.base / "checkout"
    address = farm.address(scheduler)
    assert "check:host: done on " in client.doit(root, "farm:run", address, "check:host")
    output = client.doit(root, "farm:run", address, "own", status=2)
    assert "workers do not run own" in output, output


def _other_code(farm: Farm, scheduler: Machine, client: Machine) -> None:
    """Changed code is refused; so is a commit that no worker has."""
    root = client.base / "checkout"
    path = root / "nabla/testing/made_tasks.py"
    path.write_text(path.read_text() + "\n# changed\n")
    output = farm.client(client, scheduler, "own").end(status=2)
    assert "nabla/testing/made_tasks.py differs from the commit" in output and output.count("error: ") == 1, output
    commit(root)
    output = farm.client(client, scheduler, "own").end(status=2)
    assert "can run steps of commit" in output and "2 workers for other commits" in output, output


def test_worker_whose_key_is_not_allowed(farm: Farm) -> None:
    """A result that an unknown worker signed is refused with a warning, and built here."""
    scheduler = farm.machine("scheduler", "scheduler")
    farm.scheduler(scheduler)
    worker = farm.machine("unknown", "worker")
    client = farm.machine("client", "client")
    farm.allow(client)
    lines = (farm.base / "signers").read_text().splitlines(keepends=True)
    (farm.base / "signers").write_text("".join(line for line in lines if not line.startswith("unknown ")))
    farm.worker(worker, scheduler)
    output = farm.client(client, scheduler, "own").end()
    assert "not by an allowed signer" in output, output
    root = client.base / "checkout"
    assert (root / "out/own").read_text() == str(client.home) + content("nothing\n")
