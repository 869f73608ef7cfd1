# SPDX-License-Identifier: Apache-2.0
"""VMs in containers: under the default seccomp profiles of docker and podman, as root and as an ordinary user; for
a user who may not create namespaces; and in a container that podman itself started.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest

from nabla.core.paths import NABLA_RUN, VMLINUX
from nabla.images import podman_run

from . import container
from .conftest import image_of
from .container import Container
from .launcher import OWN_ERROR
from .vm import status_of

IMAGE = "disk.ext3"
NEEDS_NAMESPACES = "user networking needs passt and user namespaces"
Start = Callable[..., list[str]]


@pytest.fixture(scope="module")
def installation(stand_in: Path) -> Iterator[Path]:
    """A folder with launcher, kernel, a world-writable image, and the stand-in."""
    folder = Path(tempfile.mkdtemp(prefix="nabla-container-"))  # other users cannot enter pytest's own folder
    try:
        for source, name in ((NABLA_RUN, "nabla-run"), (VMLINUX, "vmlinux"), (stand_in, "stand-in")):
            shutil.copyfile(source, folder / name)
            (folder / name).chmod(0o755)
        subprocess.run(["cp", "--sparse=always", image_of("minimal"), folder / IMAGE], check=True)
        (folder / IMAGE).chmod(0o666)
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Inside:
    """An environment for nabla-run: the command line that starts it there, and the options that it needs there."""

    words: Start
    options: tuple[str, ...] = ()

    def command(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return subprocess.run(
            self.words(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def argv(self, *words: str) -> list[str]:
        """Return the command line that starts nabla-run there."""
        return self.words("./nabla-run", "--memory", "64M", *self.options, *words)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run nabla-run there."""
        return self.command("./nabla-run", "--memory", "64M", *self.options, *words)

    def refused(self, message: str, *words: str) -> None:
        """Assert that nabla-run exits with its own status and one line that contains `message`."""
        result = self.run(*words)
        assert result.returncode == OWN_ERROR, result
        assert result.stderr.startswith("nabla-run: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert message in result.stderr
        assert result.stdout == ""


def inside(box: Container) -> Inside:
    # Root of a namespace with a single user cannot become another one.
    alone = box.root and os.geteuid() != 0
    return Inside(box.argv, ("--run-as", "0") if alone else ())


@pytest.fixture(params=[(engine, root) for engine in container.ENGINES for root in (True, False)], ids=str)
def box(request: pytest.FixtureRequest, installation: Path) -> Iterator[Container]:
    """A container of each engine, whose command is root or an ordinary user."""
    engine, root = request.param
    with container.container(engine, installation, root=root) as started:
        yield started


def machines_work(here: Inside) -> None:
    """Everything except namespaces and terminals: output, status, report, disks, persistent changes, time."""
    result = here.run("--json", "--ephemeral", IMAGE, "--", "sh", "-c", "uname -s; echo err >&2; exit 7")
    assert result.returncode == 7, result
    assert result.stdout == "Linux\n"
    *errors, report = result.stderr.splitlines()
    assert errors == ["err"]
    assert json.loads(report)["host_calls"]["exit_group"] == 1
    assert json.loads(report)["boot_us"] > 0

    assert here.run(IMAGE, "--", "sh", "-c", "echo kept >/kept; sync").returncode == 0
    assert here.run("--read-only", IMAGE, "--", "cat", "/kept").stdout == "kept\n"
    assert here.run(IMAGE, "--", "rm", "/kept").returncode == 0
    assert here.run("--ephemeral", "--disk", f"{IMAGE},ro", IMAGE, "--", "wc", "-c", "/dev/ubdb").returncode == 0

    assert here.run("--ephemeral", "--timeout", "0.5", IMAGE, "--", "sleep", "100").returncode == 124


def a_session(console: pexpect.spawn[str]) -> None:
    """A prompt, ^C, the shell's status."""
    console.expect_exact("# ")
    console.sendline("sh -c 'echo job $((1)) runs; exec sleep 1000'")
    console.expect_exact("job 1 runs")
    console.sendcontrol("c")
    console.expect_exact("# ")
    console.sendline("exit 3")
    assert status_of(console) == 3


def test_the_container_is_one(box: Container) -> None:
    """Profile loaded, /proc masked, the engine's capabilities: otherwise the tests below would prove nothing."""
    here = inside(box)
    status = here.command("grep", "-E", "^(Seccomp|CapBnd|CapEff)", "/proc/self/status").stdout
    fields = dict(line.split(":\t") for line in status.splitlines())
    assert fields["Seccomp"] == "2"
    assert fields["Seccomp_filters"] == "1"
    assert fields["CapBnd"].strip("0") != ""
    wanted = {name.lower() for name in container.CAPABILITIES[box.engine]}
    decoded = subprocess.run(["capsh", f"--decode={fields['CapBnd']}"], capture_output=True, text=True, check=False)
    if decoded.returncode == 0:
        assert set(decoded.stdout.strip().split("=")[1].split(",")) == wanted
    assert (int(fields["CapEff"], 16) != 0) == box.root
    denied = here.command("unshare", "--user", "true")
    assert (denied.returncode == 0) == (box.engine == "podman"), denied  # docker forbids namespaces
    masked = here.command("cat", "/proc/interrupts")
    assert (masked.returncode, masked.stdout) == (0, ""), masked
    assert here.command("sh", "-c", "echo 1 >/proc/sys/kernel/panic").returncode != 0


def test_machines_work(box: Container) -> None:
    machines_work(inside(box))


def test_a_terminal(box: Container) -> None:
    words = inside(box).argv("--ephemeral", IMAGE)
    a_session(pexpect.spawn(words[0], words[1:], encoding="utf-8", timeout=30))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_end(box: Container, number: signal.Signals) -> None:
    """The launcher as a container's first process, for which signals without a handler do nothing."""
    words = inside(box).argv("--ephemeral", IMAGE, "--", "sh", "-c", "echo up; sleep 1000")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.kill(launcher_below(process.pid), number)
        assert process.wait(timeout=20) == 128 + number


def launcher_below(pid: int) -> int:
    """Return the process among the descendants that runs nabla-run and has a child, the VM."""
    waiting = [pid]
    while waiting:
        pid = waiting.pop()
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        if children and Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"./nabla-run\0"):
            return pid
        waiting += children
    raise AssertionError("no nabla-run runs")


def works_or_refuses(here: Inside, message: str, *words: str) -> bool:
    """Assert that a VM works, or that the launcher reports in one line that this place does not permit it."""
    result = here.run("--ephemeral", *words, IMAGE, "--", "sh", "-c", "ls /sys/class/net")
    if result.returncode == 0:
        assert ("eth0" in result.stdout) == ("--net" in words)
        return True
    here.refused(message, "--ephemeral", *words, IMAGE, "--", "true")
    return False


def test_user_networking(box: Container) -> None:
    """It needs user namespaces, which docker's profile forbids."""
    works = works_or_refuses(inside(box), NEEDS_NAMESPACES, "--net", "user")
    assert works == (box.engine == "podman")


def test_jail(box: Container) -> None:
    works = works_or_refuses(inside(box), "--jail: this host does not allow nabla-run to", "--jail")
    assert not (works and box.engine == "docker")


# A user without namespaces


@pytest.fixture
def confined(installation: Path) -> Inside:
    """An ordinary user who may not create user namespaces, as on hosts where an administrator forbids it."""
    bwrap = ["bwrap", "--unshare-user", "--uid", "1000", "--gid", "1000", "--disable-userns", "--die-with-parent"]
    bwrap += ["--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--chdir", str(installation), "--"]
    return Inside(lambda *command: [*bwrap, *command])


def test_without_user_namespaces(confined: Inside) -> None:
    """Only the options that need them fail, with one line of error."""
    assert confined.command("unshare", "--user", "true").returncode != 0
    assert confined.command("id", "-u").stdout == "1000\n"
    machines_work(confined)
    confined.refused(NEEDS_NAMESPACES, "--net", "user", "--ephemeral", IMAGE, "--", "true")
    confined.refused(NEEDS_NAMESPACES, "--publish", "18080:80", "--ephemeral", IMAGE, "--", "true")
    message = "--jail: this host does not allow nabla-run to create user namespaces"
    confined.refused(message, "--jail", "--ephemeral", IMAGE)


# Podman itself


@pytest.fixture(scope="module")
def podman(installation: Path) -> Iterator[Path]:
    """A folder with everything that a VM needs, including an empty root directory, for podman's containers."""
    if shutil.which("podman") is None:
        pytest.fail("podman is missing; hint: ./doit.sh test installs it", pytrace=False)
    with tempfile.TemporaryDirectory(prefix="nabla-podman-") as name:
        folder = Path(name)
        for source in installation.iterdir():
            subprocess.run(["cp", "--sparse=always", "--preserve=mode", source, folder], check=True)
        for inner in ("proc", "sys", "dev", "etc", "run", "tmp", "nabla"):
            (folder / "root" / inner).mkdir(parents=True)
        folder.chmod(0o755)
        yield folder


def in_podman(folder: Path, *options: str) -> Inside:
    """Return the inside of a container that podman creates with these options and its default profile."""
    podman = podman_run.restricted(folder)
    words = podman.argv("run", "--rm", *podman.run_options, *options)
    words += ["--volume", f"{folder}:/nabla", "--workdir", "/nabla", "--rootfs", folder / "root"]
    start = ["env", *(f"{name}={value}" for name, value in podman.env.items()), *map(str, words)]
    return Inside(lambda *command: [*start, *command], ("--run-as", "0") if podman.one_id else ())


def test_podman(podman: Path) -> None:
    """In an unprivileged container with podman's default settings."""
    here = in_podman(podman)
    shown = here.run("--kernel", "./stand-in", "--ephemeral", IMAGE, "--", "show=/proc/self/status")
    fields = dict(line.split(":\t") for line in shown.stdout.splitlines())
    assert fields["Seccomp_filters"] == "1", shown  # podman's: the stand-in loads none
    assert fields["NoNewPrivs"] == "1"
    assert {fields[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {""}
    machines_work(here)
    works_or_refuses(here, "--jail: this host does not allow nabla-run to", "--jail")
    here.refused(NEEDS_NAMESPACES, "--net", "user", "--ephemeral", IMAGE, "--", "true")


def test_podman_on_a_terminal(podman: Path) -> None:
    here = in_podman(podman, "--interactive", "--tty")
    console = pexpect.spawn("/usr/bin/env", here.argv("--ephemeral", IMAGE)[1:], encoding="utf-8", timeout=30)
    a_session(console)
