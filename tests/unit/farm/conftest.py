# SPDX-License-Identifier: Apache-2.0
"""A farm of machines in network namespaces: a store (nginx), a scheduler, workers, clients, a checkout with steps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import ROOT, has_ended
from tests.machines import Machine, Network, reachable_folder
from tests.unit.engine.remote.servers import nginx_process

TASKS = """
import os
import time
from collections.abc import Iterator
from pathlib import Path
from nabla.core.paths import OUT, ROOT
from nabla.engine.action import Job
from nabla.engine.task import TaskDict, group, step

INPUT = ROOT / "kernel-config" / "input"
COUNT = 4

def task_made() -> Iterator[TaskDict]:
    yield group("made", "four steps")
    for number in range(COUNT):
        yield step(f"made:{number}", make, doc="waits", inputs=[INPUT], outputs=[OUT / f"made{number}"],
                   args=[str(number)], cacheable=True)

def task_last() -> TaskDict:
    files = [OUT / f"made{number}" for number in range(COUNT)]
    return step("last", last, doc="all of them", inputs=files, outputs=[OUT / "last"], cacheable=True)

def task_own() -> TaskDict:
    return step("own", own, doc="runs here", inputs=[OUT / "last"], outputs=[OUT / "own"])

def task_check() -> Iterator[TaskDict]:
    yield step("check:host", host, doc="a whole task")

def make(job: Job, number: str) -> None:
    text = INPUT.read_text()
    job.run(["sh", "-c", f"echo the output of step {number}"])
    folder = Path(text.split()[0])
    mark = folder / f"begun-{number}-{os.getpid()}"
    if folder.is_dir():
        mark.write_text(os.environ["HOME"])
        while not (folder / "go").exists():
            time.sleep(0.02)
    if "bad" in text:
        (job.scratch().parent / number / "build").mkdir(parents=True)
        (job.scratch().parent / number / "build" / "tree").write_text("what the step left")
        job.run(["sh", "-c", "echo the reason; exit 3"])
    job.out(OUT / f"made{number}").write_text(f"{number}: {text}")

def last(job: Job) -> None:
    job.out(OUT / "last").write_text("".join((OUT / f"made{n}").read_text() for n in range(COUNT)))

def own(job: Job) -> None:
    job.out(OUT / "own").write_text(os.environ["HOME"] + (OUT / "last").read_text())

def host(job: Job) -> None:
    job.note(os.environ["HOME"])
"""


@dataclass
class Role:
    """A running process of a farm."""

    machine: Machine
    process: subprocess.Popen[str]
    log: Path

    @property
    def pid(self) -> int:
        """The process itself, a child of the programs that set up its machine."""
        pid = self.process.pid
        while Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0] != sys.executable:
            (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            pid = int(child)
        return pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process; wait for its end after SIGKILL."""
        pid = self.pid
        os.kill(pid, number)
        assert has_ended(pid)

    def says(self, text: str, limit: float = 60) -> str:
        """Wait until the process has printed a text; return its output."""
        wait_until(lambda: text in self.log.read_text() or self.process.poll() is not None, limit)
        output = self.log.read_text()
        assert text in output, output
        return output

    def end(self, status: int = 0, limit: float = 120) -> str:
        """Wait for the end of the process; return its output."""
        self.process.wait(timeout=limit)
        output = self.log.read_text()
        assert self.process.returncode == status, output
        return output


def wait_until(condition: Callable[[], bool], limit: float = 60) -> None:
    """Wait for an event."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@dataclass
class Farm:
    """All machines of a farm."""

    base: Path
    network: Network
    store: str
    origin: Path
    keys: Path
    port: int = 8786
    roles: list[Role] = field(default_factory=list)
    number: int = 0

    def machine(self, name: str, role: str, keys: Path | None = None) -> Machine:
        """A machine with a checkout, the keys of one role, and the addresses of the store."""
        machine = self.network.machine(name)
        self.clone(machine)
        config = machine.home / ".config" / "nabla"
        (config / "farm").mkdir(parents=True)
        for file in ("ca.pem", f"{role}.pem", f"{role}.key"):
            shutil.copy((keys or self.keys) / file, config / "farm")
        signers = self.base / "signers"
        machine.own(machine.home)
        machine.variables = {
            "NABLA_STORE": self.store,
            "NABLA_STORE_PUSH": "1",
            "NABLA_STORE_SIGNERS": str(signers),
            "NO_PROXY": "*",
            "PYTHONDONTWRITEBYTECODE": "1",
            # A lost worker is noticed soon.
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "4s",
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
        }
        if role == "worker":
            self.allow(machine)
        return machine

    def clone(self, machine: Machine) -> Path:
        """Clone the repository of the test on a machine."""
        root = machine.base / "checkout"
        git = ["git", "-c", "safe.directory=*", "clone", "--quiet"]
        subprocess.run([*git, self.origin, root], check=True)
        machine.own(root)
        return root

    def allow(self, machine: Machine) -> None:
        """Let the key of this machine's user sign results."""
        keys = machine.home / ".config/nabla/keys"
        machine.run("mkdir", "-p", keys)
        key = keys / "nabla.ed25519"
        machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", machine.name, "-f", key)
        line = f'{machine.name} namespaces="nabla-store" {key.with_name("nabla.ed25519.pub").read_text()}'
        with (self.base / "signers").open("a") as signers:
            signers.write(line)

    def start(self, machine: Machine, *words: str, root: str = "checkout") -> Role:
        """Start doit on a machine."""
        self.number += 1
        log = self.base / f"{machine.name}-{self.number}.log"
        folder = machine.base / root
        process = machine.popen(*machine.doit_words(folder, *words), cwd=folder, output=log)
        role = Role(machine, process, log)
        self.roles.append(role)
        return role

    def scheduler(self, machine: Machine) -> Role:
        """Start a scheduler."""
        role = self.start(machine, "farm:scheduler", "--host", machine.address, "--port", str(self.port))
        role.says("scheduler at tls://")
        return role

    def worker(self, machine: Machine, scheduler: Machine, slots: int = 2) -> Role:
        """Start a worker."""
        words = ["farm:worker", "--slots", str(slots), "--name", machine.name, self.address(scheduler)]
        role = self.start(machine, *words)
        role.says(f"worker {machine.name} of")
        return role

    def client(self, machine: Machine, scheduler: Machine, *tasks: str, tasks_at_a_time: int = 4) -> Role:
        """Start a build on the farm."""
        return self.start(machine, "-n", str(tasks_at_a_time), "--farm", self.address(scheduler), *tasks)

    def address(self, scheduler: Machine) -> str:
        """The address of a scheduler."""
        return f"tls://{scheduler.address}:{self.port}"

    def stop(self) -> None:
        """End all processes."""
        for role in self.roles:
            if role.process.poll() is None:
                os.kill(role.pid, signal.SIGKILL)
                role.process.wait(timeout=60)


def repository(root: Path) -> Path:
    """A repository with the build system, the farm and the steps of the test."""
    root.mkdir(parents=True)
    for name in ("dodo.py", "pyproject.toml", ".gitignore", "requirements-farm.txt"):
        shutil.copy(ROOT / name, root)
    caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "nabla", root / "nabla", ignore=caches)
    for path in (root / "nabla").rglob("*tasks.py"):
        if path.parent.name != "farm":
            path.unlink()
    shutil.copytree(ROOT / "verify", root / "verify", ignore=caches)
    for name in ("demo", "nabla/testing"):
        (root / name).mkdir()
        (root / name / "__init__.py").touch()
    (root / "nabla/testing/made_tasks.py").write_text(TASKS)
    for name in ("recipes", "kernel-config"):
        (root / name).mkdir()
    (root / "kernel-config/input").write_text("nothing\n")
    (root / "recipes/.keep").touch()
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    commit(root)
    return root


def commit(root: Path) -> None:
    """Commit everything."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@nabla.invalid", "-c", "safe.directory=*"]
    subprocess.run(["git", *identity, "add", "--all"], cwd=root, check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "-m", "a commit"], cwd=root, check=True)


@contextmanager
def running(base: Path) -> Iterator[Farm]:
    """A network with a store and the keys of a farm, without roles yet."""
    from nabla.farm import certificates

    with ExitStack() as stack:
        network = stack.enter_context(Network(base / "machines"))
        keeper = network.machine("store")
        served = base / "served"
        stack.enter_context(nginx_process(base / "nginx", served, f"{keeper.address}:80", keeper.prefix))
        certificates.create(base / "keys")
        origin = repository(base / "repository")
        (base / "signers").touch()
        farm = Farm(base, network, f"http://{keeper.address}/nabla", origin, base / "keys")
        stack.callback(farm.stop)
        yield farm


@pytest.fixture
def farm() -> Iterator[Farm]:
    """A network with a store, without roles."""
    with reachable_folder() as base, running(base) as ready:
        yield ready


@pytest.fixture
def gate() -> Iterator[Path]:
    """A folder in which steps report their start, and wait until the file `go` is there."""
    with reachable_folder() as folder:
        folder.chmod(0o777)
        yield folder


def begun(gate: Path, number: int) -> list[Path]:
    """The reports of the starts of a step."""
    return sorted(gate.glob(f"begun-{number}-*"))
