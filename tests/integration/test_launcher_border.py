# SPDX-License-Identifier: Apache-2.0
"""What a VM can access, seen from the host: its user, descriptors, mappings and limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nabla.core.paths import NABLA_RUN

from .launcher import NOBODY, child_of, launch, proc_status, refused
from .vm import Vm

NO_CAPABILITY = "0" * 16
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapAmb")
MIB = 1 << 20
INSPECT = Path(__file__).with_name("inspect_vm.py")
NAMESPACE = ("bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL", "--dev-bind", "/", "/")


def inspect(*words: str | Path, as_root: bool, namespace: bool = False) -> dict[str, Any]:
    """Start a VM and return the output of inspect_vm.py about it; `words` are options and image.

    An ordinary user runs as root of a user namespace, as does root with `namespace`; the VM then is that root as well.
    """
    inside = namespace or not as_root
    prefix = NAMESPACE if inside else ()
    own = ["--run-as", "0"] if inside else []
    argv = [*prefix, sys.executable, INSPECT, NABLA_RUN, *own, *words, "--", "/bin/sh", "-c", "echo up; sleep 100"]
    result = subprocess.run(
        list(map(str, argv)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, f"{result.stderr}\nhint: bubblewrap must be able to make a user namespace here"
    seen: dict[str, Any] = json.loads(result.stdout)
    return seen


@dataclass(frozen=True)
class Disks:
    """Three further disks: one writable, two read-only or private."""

    written: Path
    read: Path
    mapped: Path

    def options(self) -> list[str]:
        """The launcher's options for them."""
        return ["--disk", f"{self.written}", "--disk", f"{self.read},ro", "--disk", f"{self.mapped},cow"]


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    paths = [tmp_path / name for name in ("written", "read", "mapped")]
    for path in paths:
        path.write_bytes(bytes(3 * MIB))
    return Disks(*paths)


# Who it is


def test_privileges(minimal: Vm, as_root: bool) -> None:
    """World-readable: the status of a running VM and that of its launcher."""
    words = minimal.argv("/bin/sh", "-c", "echo up; sleep 100")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        machine, nabla_run = proc_status(child_of(process.pid)), proc_status(process.pid)
        process.terminate()
    uid = NOBODY if as_root else os.geteuid()
    for status in (machine, nabla_run):
        assert uid != 0
        assert status["Uid"].split() == [str(uid)] * 4
        assert [status[key] for key in CAPABILITIES] == [NO_CAPABILITY] * 4
        assert status["NoNewPrivs"] == "1"
        assert status["Threads"] == "1"
        if as_root:
            assert status["CapBnd"] == NO_CAPABILITY
            assert status["Gid"].split() == [str(NOBODY)] * 4
            assert status["Groups"] == ""
    assert machine["Seccomp"] == "2"
    assert machine["SigBlk"] == NO_CAPABILITY


def test_nobody_looks_into_it(minimal: Vm, as_root: bool) -> None:
    """Nor can a debugger attach, even of the same user: the process is not dumpable."""
    words = minimal.argv("/bin/sh", "-c", "echo up; sleep 100")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        machine = child_of(process.pid)
        try:
            if as_root:  # which may read everything
                assert Path(f"/proc/{machine}/environ").stat().st_uid == 0
            else:
                with pytest.raises(PermissionError):
                    os.readlink(f"/proc/{machine}/exe")
        finally:
            process.terminate()


def test_another_user(image: Path, as_root: bool) -> None:
    """Root selects the user by option; an ordinary user cannot. The image belongs to neither."""
    image.chmod(0o600)
    if not as_root:
        refused("only root can select another user", "--run-as", "4711", image)
        assert launch("--run-as", f"{os.geteuid()}:{os.getegid()}", image, "--", "/bin/true").returncode == 0
        return
    status = inspect("--run-as", "4711:42", image, as_root=True)["machine"]["status"]
    assert status["Uid"].split() == ["4711"] * 4
    assert status["Gid"].split() == ["42"] * 4
    assert status["Groups"] == ""


def test_root_only_if_told(image: Path, as_root: bool) -> None:
    """Where no other user exists, the error names the option; with it the VM is root without capabilities."""
    refused(
        "user namespace does not map it, see /proc/self/uid_map; --run-as",
        "--ephemeral",
        image,
        prefix=NAMESPACE,
    )
    machine = inspect("--ephemeral", image, as_root=as_root, namespace=True)["machine"]
    assert machine["status"]["Uid"].split() == ["0"] * 4
    for key in (*CAPABILITIES, "CapBnd"):
        assert machine["status"][key] == NO_CAPABILITY
    assert machine["status"]["NoNewPrivs"] == "1"


def test_root_without_the_privilege_to_change(image: Path, as_root: bool) -> None:
    """As in a container that was started with --cap-drop ALL."""
    prefix = (*NAMESPACE, "--cap-drop", "ALL")
    if as_root:
        bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
        refused("--run-as 0 runs the VM as root", "--ephemeral", image, prefix=bare)
    refused("cannot become user", "--ephemeral", image, prefix=prefix)
    result = launch("--run-as", "0", "--ephemeral", image, "--", "/bin/echo", "fine", prefix=prefix)
    assert (result.returncode, result.stdout) == (0, "fine\n"), result.stderr


# What it has


def test_descriptors(image: Path, disks: Disks, as_root: bool) -> None:
    """Exactly those of the policy; only one of the files is writable."""
    machine = inspect(*disks.options(), "--ephemeral", image, as_root=as_root)["machine"]
    wanted = {"3": image, "4": disks.written, "5": disks.read, "6": disks.mapped}
    descriptors = machine["descriptors"]
    assert set(descriptors) == {"0", "1", "2", *wanted}
    assert {key: descriptors[key] for key in wanted} == {key: str(path) for key, path in wanted.items()}
    writable = [key for key in wanted if machine["flags"][key] & os.O_ACCMODE != os.O_RDONLY]
    assert writable == ["4"]


def test_descriptors_of_a_written_root(image: Path, as_root: bool) -> None:
    machine = inspect(image, as_root=as_root)["machine"]
    assert set(machine["descriptors"]) == {"0", "1", "2", "3"}
    assert machine["flags"]["3"] & os.O_ACCMODE == os.O_RDWR


def test_launcher_keeps_nothing_of_the_machine(image: Path, disks: Disks, as_root: bool) -> None:
    """The launcher only waits; its descriptors are the console and one for signals; the status page is mapped."""
    launcher = inspect(*disks.options(), image, as_root=as_root)["launcher"]
    files = [target for number, target in launcher["descriptors"].items() if int(number) > 2]
    assert files == ["anon_inode:[signalfd]"]
    assert launcher["status"]["NoNewPrivs"] == "1"
    assert launcher["status"]["CapEff"] == NO_CAPABILITY


def test_mappings(image: Path, disks: Disks, as_root: bool) -> None:
    """The status page is the only shared writable mapping."""
    machine = inspect(*disks.options(), "--ephemeral", image, as_root=as_root)["machine"]
    shared = [line.split() for line in machine["maps"] if line.split()[1][3] == "s" and "w" in line.split()[1]]
    assert len(shared) == 1, shared
    assert "nabla-status" in shared[0][5]
    begin, end = (int(number, 16) for number in shared[0][0].split("-"))
    assert end - begin == 4096
    assert machine["environment"] == ""


def test_limits(image: Path, disks: Disks, as_root: bool) -> None:
    seen = inspect("--memory", "64M", *disks.options(), "--ephemeral", image, as_root=as_root)
    limits = seen["machine"]["limits"]
    assert limits["Max processes"] == "1"
    assert limits["Max open files"] == "13"
    assert limits["Max core file size"] == "0"
    needed = 64 * MIB + image.stat().st_size + disks.mapped.stat().st_size + 66 * 1024 * MIB
    assert needed < int(limits["Max address space"]) < needed + 8 * MIB


def test_address_space_has_room_to_spare(image: Path, as_root: bool) -> None:
    """Also with the longest command line, which occupies the process's stack."""
    words = ["--memory", "64M", "--ephemeral", *(["--env", "A=" + "x" * 100_000] * 15), str(image)]
    machine = inspect(*words, as_root=as_root)["machine"]
    peak = int(machine["status"]["VmPeak"].split()[0]) << 10
    assert peak < int(machine["limits"]["Max address space"]) - MIB


def test_file_size_limit_is_the_largest_disk(image: Path, disks: Disks, as_root: bool) -> None:
    limits = inspect(*disks.options(), "--ephemeral", image, as_root=as_root)["machine"]["limits"]
    assert limits["Max file size"] == str(disks.written.stat().st_size)
    limits = inspect("--ephemeral", image, as_root=as_root)["machine"]["limits"]
    assert limits["Max file size"] == "0"
