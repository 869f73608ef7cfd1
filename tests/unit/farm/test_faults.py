# SPDX-License-Identifier: Apache-2.0
"""Lost workers, schedulers and clients, cut cables, full disks: each build ends with the right result."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.machines import Machine
from tests.unit.farm.conftest import Farm, Role, begun, wait_until

ROUNDS = 2  # of random kills; bench.farm runs more

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def started(gate: Path, number: int = 0) -> None:
    """Wait until a step has begun."""
    wait_until(lambda: bool(begun(gate, number)), 120)


def prepare(farm: Farm, gate: Path, workers: int) -> tuple[Machine, Machine, list[Machine]]:
    """A scheduler, and machines for a client and workers, which run."""
    scheduler = farm.machine("scheduler", "scheduler")
    client = farm.machine("client", "client")
    farm.allow(client)
    (client.base / "checkout/kernel-config/input").write_text(f"{gate} text\n")
    farm.scheduler(scheduler)
    return scheduler, client, [farm.machine(f"worker{number}", "worker") for number in range(workers)]


def check(client: Machine, gate: Path) -> None:
    """The result is right."""
    text = "".join(f"{number}: {gate} text\n" for number in range(4))
    assert (client.base / "checkout/out/last").read_text() == text


def test_lost_worker(farm: Farm, gate: Path) -> None:
    """The steps of a killed worker run on another one, which registers itself later."""
    scheduler, client, (first, second) = prepare(farm, gate, 2)
    lost = farm.worker(first, scheduler, slots=4)
    build = farm.client(client, scheduler, "last")
    started(gate, 0)
    lost.kill()
    farm.worker(second, scheduler, slots=4)
    wait_until(lambda: len(begun(gate, 0)) > 1, 120)
    (gate / "go").touch()
    output = build.end()
    assert "runs on worker1" in output and "warning" not in output, output
    check(client, gate)


def test_lost_scheduler_and_lost_workers(farm: Farm, gate: Path) -> None:
    """Without a scheduler, steps are built on the client; a worker finds a new scheduler by itself."""
    scheduler, client, (first,) = prepare(farm, gate, 1)
    worker = farm.worker(first, scheduler, slots=4)
    build = farm.client(client, scheduler, "last")
    started(gate, 0)
    farm.roles[0].kill()
    build.says("is lost: steps are built here until it returns")
    (gate / "go").touch()
    build.end()
    check(client, gate)
    worker.says("the connection to")
    farm.scheduler(scheduler)
    wait_until(lambda: worker.log.read_text().count("worker worker0 of") == 2)
    # No worker at all: the build continues without them.
    (gate / "go").unlink()
    for path in gate.iterdir():
        path.unlink()
    (client.base / "checkout/kernel-config/input").write_text(f"{gate} text\nmore\n")
    build = farm.client(client, scheduler, "last")
    started(gate, 0)
    worker.kill()
    build.says("is left: steps are built here", 120)
    (gate / "go").touch()
    build.end()
    assert (client.base / "checkout/out/last").read_text().count("more") == 4


def test_lost_client(farm: Farm, gate: Path) -> None:
    """The steps of a killed client end on the workers; finished results count for the next build."""
    scheduler, client, (first,) = prepare(farm, gate, 1)
    worker = farm.worker(first, scheduler, slots=4)
    build = farm.client(client, scheduler, "last")
    started(gate, 3)
    build.kill()
    wait_until(lambda: worker.log.read_text().count("ended early") + worker.log.read_text().count("interrupted") >= 4)
    (gate / "go").touch()
    farm.client(client, scheduler, "last").end()
    check(client, gate)


def test_cut_cable(farm: Farm, gate: Path) -> None:
    """An unreachable worker is replaced; it returns by itself."""
    scheduler, client, (first, second) = prepare(farm, gate, 2)
    cut = farm.worker(first, scheduler, slots=4)
    build = farm.client(client, scheduler, "last")
    started(gate, 0)
    first.cut()
    farm.worker(second, scheduler, slots=4)
    wait_until(lambda: len(begun(gate, 0)) > 1, 120)
    (gate / "go").touch()
    build.end()
    check(client, gate)
    first.join()
    wait_until(lambda: cut.log.read_text().count("worker worker0 of") == 2, 120)


def test_full_disk(farm: Farm, gate: Path) -> None:
    """A worker without room for a result is unfit: another one gets the step."""
    scheduler, client, (first, second) = prepare(farm, gate, 2)
    (gate / "go").touch()
    first.variables["NABLA_CACHE"] = str(first.base / "small")
    first.small_disk(first.base / "small")
    farm.worker(first, scheduler, slots=4)
    build = farm.client(client, scheduler, "last")
    build.says("the worker's disk is full")
    farm.worker(second, scheduler, slots=4)
    build.end()
    check(client, gate)


def test_random_kills(farm: Farm, gate: Path) -> None:
    """SIGKILL of any role at any moment: the next build, or the same one, ends with the right result."""
    random_kills(farm, gate, ROUNDS, random.Random(16))


def random_kills(farm: Farm, gate: Path, rounds: int, generator: random.Random) -> list[str]:
    """Kill roles in turn while a build runs; return what was killed."""
    scheduler, client, machines = prepare(farm, gate, 3)
    (gate / "go").touch()
    roles = {"scheduler": farm.roles[0], **{each.name: farm.worker(each, scheduler) for each in machines}}
    history = []
    for turn in range(rounds):
        text = f"{gate} text\n{turn}\n"
        (client.base / "checkout/kernel-config/input").write_text(text)
        build = farm.client(client, scheduler, "last")
        victim = generator.choice(["client", *roles])
        try:
            build.process.wait(generator.random() * 6)
        except subprocess.TimeoutExpired:
            (build if victim == "client" else roles[victim]).kill()
        history.append(victim)
        if victim == "client":
            build.process.wait(timeout=60)
            # Finished results count.
            build = farm.client(client, scheduler, "last")
        elif victim == "scheduler" and build.process.wait(timeout=120) == 2:
            # It had not connected yet, and says so in one line.
            output = build.log.read_text()
            assert output.count("error: ") == 1 and "is the scheduler running?" in output, output
            replace(farm, roles, victim, scheduler, machines)
            build = farm.client(client, scheduler, "last")
        build.end()
        expected = "".join(f"{number}: {text}" for number in range(4))
        assert (client.base / "checkout/out/last").read_text() == expected
        if victim in roles and roles[victim].process.poll() is not None:
            replace(farm, roles, victim, scheduler, machines)
    return history


def replace(farm: Farm, roles: dict[str, Role], victim: str, scheduler: Machine, machines: list[Machine]) -> None:
    """Start a killed role again; wait until all workers have found a new scheduler."""
    if victim != "scheduler":
        roles[victim] = farm.worker(roles[victim].machine, scheduler)
        return
    before = {each.name: registrations(roles[each.name]) for each in machines}
    roles[victim] = farm.scheduler(scheduler)
    for each in machines:
        wait_for_registration(roles[each.name], before[each.name])


def wait_for_registration(worker: Role, before: int) -> None:
    """Wait until a worker has registered itself again."""
    wait_until(lambda: registrations(worker) > before, 120)


def registrations(worker: Role) -> int:
    """Return how often a worker has registered itself."""
    return worker.log.read_text().count(f"worker {worker.machine.name} of")
