# SPDX-License-Identifier: Apache-2.0
"""nabla-oci's work on the host: network namespaces, hooks, cgroups."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .bundles import Bundle, eventually, namespaces, subreaper, wait
from .test_oci_runtime import bundle, tree

__all__ = ["bundle", "tree"]


@contextmanager
def network_namespace() -> Iterator[int]:
    """A process in a separate network namespace."""
    words = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec sleep 1000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline()
            yield holder.pid
        finally:
            holder.kill()


def test_a_network_namespace(bundle: Bundle) -> None:
    """The engine's interfaces would be missing: an error, unless the bundle accepts it."""
    with network_namespace() as pid:
        bundle.linux["namespaces"] = namespaces(("network", f"/proc/{pid}/ns/net"))
        assert "lo" in bundle.says("ls /sys/class/net")
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c"]
        subprocess.run([*inside, "ip link add d0 type veth peer name d1 && ip link set d0 up"], check=True)
        bundle.create_refused("the network namespace has the interface d0, which a VM cannot use yet")
        bundle.config["annotations"] = {"org.nabla-linux.network": "none"}
        status, output = bundle.run("echo ran")
        assert status == 0 and output.endswith("ran\n")
        assert "warning: the VM has no network: the interface d0" in output


ORDINARY = 47110


def test_an_ordinary_user(tree: Path) -> None:
    """Without an engine's user namespace, nabla-oci creates one; files belong to the user."""
    folder = Path(tempfile.mkdtemp(prefix="nabla-bundle-"))  # other users cannot enter pytest's own folder
    try:
        subprocess.run(["cp", "-a", tree, folder / "rootfs"], check=True)
        prefix: tuple[str, ...] = ()
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{ORDINARY}:{ORDINARY}", folder], check=True)
            prefix = ("setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups")
        with subreaper():
            bundle = Bundle(folder, prefix=prefix)
            bundle.mount("/outside", "/etc", "bind", "bind", "ro")
            (folder / "pid").touch()
            assert bundle.says("id -u; echo x >/file; ls /outside/passwd; cat /file") == "0\n/outside/passwd\nx\n"
        assert (folder / "rootfs" / "file").stat().st_uid == (folder / "rootfs").stat().st_uid != 0
    finally:
        shutil.rmtree(folder)


def hook(tmp_path: Path, name: str, script: str, **more: Any) -> dict[str, Any]:
    """Return a hook that runs a script with its name as an argument."""
    return {"path": "/bin/sh", "args": ["sh", "-c", script, str(tmp_path / name)], **more}


KEEP = 'cat >"$0"; echo "$X" >>"$0"'


def test_hooks(bundle: Bundle, tmp_path: Path) -> None:
    """Each kind at its time, with the state on standard input."""
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    bundle.config["hooks"] = {kind: [hook(tmp_path, kind, KEEP, env=["X=1", "PATH=/bin:/usr/bin"])] for kind in kinds}
    bundle.shell("echo up; sleep 1000")
    pid = bundle.create()

    def written(kind: str) -> dict[str, Any]:
        text, variable = (tmp_path / kind).read_text().rsplit("}", 1)
        assert variable == "1\n"
        state: dict[str, Any] = json.loads(text + "}")
        assert state["id"] == "c1" and state["bundle"] == str(bundle.folder)
        return state

    for kind in kinds[:3]:
        assert written(kind)["status"] == "creating" and written(kind)["pid"] == pid
    assert not (tmp_path / "poststart").exists()
    bundle.check("start", "c1")
    assert written("poststart")["status"] == "running"
    bundle.check("kill", "c1", "KILL")
    wait(pid)
    assert not (tmp_path / "poststop").exists()
    bundle.check("delete", "c1")
    assert written("poststop")["status"] == "stopped"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
@pytest.mark.parametrize(
    ("script", "more", "reason"),
    [
        ("exit 3", {}, "its exit status is 3"),
        ("kill -9 $$", {}, "signal 9 ended it"),
        ("sleep 1000", {"timeout": 1}, "it did not end in time"),
    ],
)
def test_hooks_that_fail(
    bundle: Bundle, tmp_path: Path, kind: str, script: str, more: dict[str, Any], reason: str
) -> None:
    """The container is not created, and all preparations are undone."""
    bundle.config["hooks"] = {kind: [hook(tmp_path, "x", script, **more), hook(tmp_path, "second", KEEP)]}
    bundle.create_refused(f"hook {kind}[0] /bin/sh: {reason}")
    assert not (tmp_path / "second").exists()


def test_late_hooks_that_fail(bundle: Bundle, tmp_path: Path) -> None:
    """They are reported, and the container continues."""
    late = ("poststart", "poststop")
    bundle.config["hooks"] = {kind: [hook(tmp_path, "x", "exit 3"), hook(tmp_path, kind, KEEP)] for kind in late}
    pid = bundle.create()
    for kind, command in zip(late, ("start", "delete"), strict=True):
        result = bundle.call(command, "c1")
        assert result.returncode == 0
        assert f"warning: hook {kind}[0] /bin/sh: its exit status is 3" in result.stderr
        assert (tmp_path / kind).exists()
        if command == "start":
            wait(pid)


IN_A_CGROUP_NAMESPACE = "mount -t cgroup2 none /sys/fs/cgroup && echo && exec sleep 1000"


@contextmanager
def cgroup_namespace() -> Iterator[tuple[str, ...]]:
    """A mount namespace with cgroup version 2; the words enter it."""
    words = ["unshare", "--mount", "--cgroup", "--propagation", "private", "sh", "-c", IN_A_CGROUP_NAMESPACE]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline()
            yield ("nsenter", "--mount", "--cgroup", "--target", str(holder.pid), "--")
        finally:
            holder.kill()


def test_a_cgroup(bundle: Bundle) -> None:
    """The VM's processes are in it, and it goes with the container. The same name is always the same place."""
    with cgroup_namespace() as enter:
        bundle.prefix = enter
        bundle.linux["cgroupsPath"] = f"/nabla-test-{os.getpid()}/c1"
        bundle.shell("echo up; sleep 1000")
        pid = bundle.create()
        (line,) = [line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
        assert line.endswith(f"/nabla-test-{os.getpid()}/c1")
        bundle.check("start", "c1")
        bundle.wait_for("up\n")
        path = f"/sys/fs/cgroup{bundle.linux['cgroupsPath']}"
        listed = subprocess.run([*enter, "cat", f"{path}/cgroup.procs"], capture_output=True, text=True, check=True)
        names = {Path(f"/proc/{each}/comm").read_text().strip() for each in listed.stdout.split() if each != "0"}
        assert {"nabla-run", "vmlinux"} <= names
        bundle.check("delete", "--force", "c1")
        wait(pid)
        gone = [*enter, "test", "!", "-e", path]
        eventually(lambda: subprocess.run(gone, check=False).returncode == 0)
        subprocess.run([*enter, "rmdir", str(Path(path).parent)], check=True)


def test_limits_that_the_host_does_not_have(bundle: Bundle) -> None:
    with cgroup_namespace() as enter:
        bundle.prefix = enter
        bundle.linux["cgroupsPath"] = f"/nabla-test-{os.getpid()}"
        bundle.linux["resources"] = {"unified": {"nothing.max": "1"}}
        bundle.create_refused("linux.resources: cannot set nothing.max to 1: No such file or directory")
        assert subprocess.run(
            [*enter, "test", "-e", f"/sys/fs/cgroup/nabla-test-{os.getpid()}"], check=False
        ).returncode
    bundle.prefix = ()
    del bundle.linux["cgroupsPath"]
    bundle.create_refused("linux.resources: nothing.max cannot be set: the bundle names no cgroup")
    bundle.linux["cgroupsPath"] = "/x"
    bundle.options = ("--cgroup-manager", "disabled")
    bundle.create_refused("linux.resources: nothing.max cannot be set: cgroups are disabled")
    bundle.options = ("--systemd-cgroup",)
    bundle.create_refused("cgroups of systemd (/x) are not supported")
