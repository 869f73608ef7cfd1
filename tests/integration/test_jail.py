# SPDX-License-Identifier: Apache-2.0
"""nabla-run --jail: empty namespaces, or one clear line where the host forbids them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from .launcher import TIMED_OUT, Launcher, Ordinary, child_of, launch, proc_status, refused, wait_until_gone
from .networked import free_port, page, until
from .test_launcher_border import NO_CAPABILITY, inspect
from .vm import Vm, status_of

OWN = ("mnt", "pid", "net", "ipc", "uts")
HINT = "hint: this host must allow namespaces; `unshare --user --map-root-user --net true` shows whether it does"

# A host that, seen from inside, permits no namespaces.
FORBIDDEN = ("bwrap", "--dev-bind", "/", "/", "--unshare-user", "--disable-userns", "--uid", "1000", "--gid", "1000")


def test_namespaces_are_its_own(image: Path, as_root: bool) -> None:
    """The namespaces are not the caller's; the root directory is empty and read-only."""
    seen = inspect("--jail", "--ephemeral", image, as_root=as_root)
    machine = seen["machine"]
    for name in OWN:
        assert machine["namespaces"][name] != seen["namespaces"][name], name
    assert machine["root"] == []
    assert "ro" in machine["root_flags"].split(",")
    assert machine["status"]["NSpid"].split()[1:] == ["1"]
    assert set(machine["descriptors"]) == {"0", "1", "2", "3"}


def test_without_it_there_are_none(image: Path, as_root: bool) -> None:
    seen = inspect("--ephemeral", image, as_root=as_root)
    assert seen["machine"]["namespaces"] == seen["namespaces"]


def test_as_an_ordinary_user(ordinary: Ordinary) -> None:
    """Through an outer user namespace, in which the VM has the same user and no capability."""
    image = ordinary.folder / "disk.ext3"
    command = ["/bin/sh", "-c", "echo up; sleep 1000"]
    words = [*ordinary.prefix, ordinary.nabla_run, "--jail", "--ephemeral", image, "--", *command]
    with subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n", HINT
        status = proc_status(child_of(process.pid))
        process.terminate()
    assert status["Uid"].split() == [str(ordinary.uid)] * 4
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert status[key] == NO_CAPABILITY
    assert status["NSpid"].split()[1:] == ["1"]


def test_host_forbids_it(image: Path) -> None:
    """One line of error and no VM; without --jail it works there."""
    refused("--jail: this host does not allow nabla-run to", "--jail", "--ephemeral", image, prefix=FORBIDDEN)
    assert launch("--ephemeral", image, "--", "/bin/true", prefix=FORBIDDEN).returncode == 0


def jailed(minimal: Vm) -> Vm:
    return minimal.but(options=("--jail",))


def test_machine_works_in_it(minimal: Vm, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    machine = minimal.but(options=("--jail", "--disk", str(disk)))
    result = machine.shell("cat; echo errors >&2; echo written >/dev/ubdb; sync; exit 7", timeout=60)
    assert (result.status, result.output, result.errors) == (7, "", "errors\n")
    assert disk.read_bytes().startswith(b"written\n")
    with jailed(minimal).interactive("/bin/sh", "-c", "stty size; exit 6", size=(31, 97)) as console:
        console.expect_exact("31 97")
        assert status_of(console) == 6


def test_its_end(launcher: Launcher) -> None:
    """The VM is process 1 of its namespace, for which signals differ; it still ends as without --jail."""
    options = ("--jail",)
    with launcher.running("stay", *options) as process:
        os.kill(child_of(process.pid), signal.SIGKILL)
        assert process.wait(timeout=10) == 128 + signal.SIGKILL
    with launcher.running(f"ignore={int(signal.SIGTERM)} stay", *options) as process:
        process.terminate()
        assert process.wait(timeout=10) == 128 + signal.SIGTERM
    assert launcher.run("stay", *options, "--timeout", "0.1").returncode == TIMED_OUT
    assert launcher.run("exit=9", *options).returncode == 9


def test_it_dies_with_the_launcher(launcher: Launcher) -> None:
    with launcher.running("stay", "--jail") as process:
        child = child_of(process.pid)
        process.kill()
        process.wait()
        wait_until_gone(child)


def test_real_machine_told_to_end_in_it(minimal: Vm) -> None:
    words = jailed(minimal).argv("/bin/sh", "-c", "echo up; sleep 100")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.wait(timeout=10) == 128 + signal.SIGTERM


def test_network_in_it(minimal: Vm) -> None:
    """The network was opened before; passt runs outside."""
    port = free_port()
    serve = "mkdir /tmp/www && echo page >/tmp/www/index.html && httpd -f -p 80 -h /tmp/www"
    words = minimal.but(options=("--jail", "--publish", f"{port}:80")).argv("/bin/sh", "-c", serve)
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
        assert until(lambda: page(port), "the page") == b"page\n"
        process.terminate()
        assert process.wait(timeout=10) == 128 + signal.SIGTERM
