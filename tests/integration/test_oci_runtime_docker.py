# SPDX-License-Identifier: Apache-2.0
"""Debian's containerd and docker with nabla-oci as a runtime. The packages are unpacked in a folder, not installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nabla.core.paths import NABLA_OCI

from .bundles import eventually
from .test_oci_runtime import tree

__all__ = ["tree"]

pytestmark = pytest.mark.online

SET_UP = """
mount -t cgroup2 none /sys/fs/cgroup && mount -t tmpfs none /dev/shm && mount -t tmpfs none /run && echo &&
    exec sleep 3600
"""
DAEMON = (
    "dockerd", "--host", "unix:///run/d.sock", "--exec-root", "/run/docker", "--pidfile", "/run/d.pid",
    "--storage-driver", "vfs", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
    "--exec-opt", "native.cgroupdriver=cgroupfs", "--add-runtime", f"nabla={NABLA_OCI}",
)  # fmt: skip
CONTAINERD = "/run/docker/containerd/containerd.sock"


@dataclass(frozen=True)
class Docker:
    """A dockerd, and the containerd that it starts, in namespaces of their own."""

    folder: Path
    holder: int

    def words(self, *words: str | Path) -> list[str]:
        """Return a command line."""
        programs = self.folder / "root" / "usr"
        path = f"{programs}/bin:{programs}/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        env = ["env", f"PATH={path}", f"HOME={self.folder}", "DOCKER_HOST=unix:///run/d.sock"]
        enter = ["nsenter", "--mount", "--cgroup", "--target", str(self.holder), "--"]
        return [*env, *enter, *map(str, words)]

    def call(self, *words: str | Path, data: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        stdin = {"stdin": subprocess.DEVNULL} if data is None else {}
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            self.words(*words), check=False, capture_output=True, text=True, timeout=120, input=data, **stdin
        )

    def check(self, *words: str | Path) -> str:
        """Run a program, and expect success."""
        result = self.call(*words)
        assert result.returncode == 0, result
        return result.stdout

    def ctr(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run containerd's client."""
        return self.call("ctr", "--address", CONTAINERD, *words)


@pytest.fixture(scope="module")
def docker(tree: Path) -> Iterator[Docker]:
    """A daemon with the image `minimal`."""
    if os.geteuid():
        pytest.fail("the daemons of docker and containerd need root", pytrace=False)
    folder = Path(tempfile.mkdtemp(prefix="nabla-docker-"))
    subprocess.run(["apt-get", "download", "-q", "containerd", "docker.io", "runc"], cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, folder / "root"], check=True)
    words = ["unshare", "--mount", "--cgroup", "--propagation", "private", "sh", "-c", SET_UP]
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        holder = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE))
        stack.callback(holder.kill)
        assert holder.stdout is not None and holder.stdout.readline()
        engine = Docker(folder, holder.pid)
        log = stack.enter_context((folder / "log").open("wb"))
        command = engine.words(*DAEMON, "--data-root", folder / "data")
        daemon = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
        stack.callback(daemon.terminate)
        eventually(lambda: engine.call("docker", "version").returncode == 0, 60)
        subprocess.run(["tar", "-C", tree, "-cf", folder / "image.tar", "."], check=True)
        engine.check("docker", "import", folder / "image.tar", "minimal")
        yield engine


def run(docker: Docker, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a container of docker."""
    return docker.call("docker", "run", "--runtime", "nabla", "--network", "none", *words)


def test_docker_run(docker: Docker) -> None:
    result = run(docker, "--rm", "minimal", "sh", "-c", "cat /proc/version; echo err >&2; exit 42")
    assert (result.returncode, result.stderr) == (42, "err\n"), result
    assert result.stdout != Path("/proc/version").read_text()
    assert run(docker, "--rm", "minimal", "nothing").returncode == 127
    refused = docker.call("docker", "run", "--runtime", "nabla", "--rm", "--network", "host", "minimal", "true")
    assert refused.returncode == 125 and "a VM cannot use" in refused.stderr


def test_a_container_of_docker(docker: Docker) -> None:
    """Exec, top, pause, logs, kill, stop."""
    script = "trap 'echo bye; exit 7' TERM; trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done"
    assert run(docker, "--detach", "--name", "here", "minimal", "sh", "-c", script).returncode == 0
    eventually(lambda: docker.check("docker", "logs", "here") == "up\n")
    result = docker.call("docker", "exec", "here", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n"), result
    result = docker.call("docker", "exec", "--interactive", "here", "wc", "-c", data="x" * 100_000)
    assert result.stdout.strip() == "100000", result
    result = docker.call("docker", "exec", "here", "nothing")
    assert result.returncode != 0 and "No such file or directory" in result.stdout + result.stderr, result
    assert "nabla-run" in docker.check("docker", "top", "here")
    (docker.folder / "file").write_text("copied\n")
    docker.check("docker", "cp", docker.folder / "file", "here:/file")
    assert docker.check("docker", "exec", "here", "cat", "/file") == "copied\n"
    docker.check("docker", "pause", "here")
    docker.check("docker", "unpause", "here")
    docker.check("docker", "kill", "--signal", "HUP", "here")
    eventually(lambda: docker.check("docker", "logs", "here") == "up\nhup\n")
    docker.check("docker", "stop", "--time", "20", "here")
    assert docker.check("docker", "logs", "here") == "up\nhup\nbye\n"
    assert docker.check("docker", "inspect", "--format", "{{.State.ExitCode}}", "here") == "7\n"
    docker.check("docker", "rm", "here")


def test_containerd(docker: Docker) -> None:
    """By its own client, without docker: the shim of runc calls nabla-oci."""
    (docker.folder / "save").mkdir()
    runtime = ("--env", "PATH=/usr/bin:/bin", "--runc-binary", NABLA_OCI)
    rootfs = docker.folder / "save" / "rootfs"
    subprocess.run(["mkdir", rootfs], check=True)
    subprocess.run(["tar", "-C", rootfs, "-xf", docker.folder / "image.tar"], check=True)
    result = docker.ctr("run", "--rm", *runtime, "--rootfs", rootfs, "one", "sh", "-c", "cat /proc/version; exit 5")
    assert result.returncode == 5 and "Linux version" in result.stdout, result
    assert docker.ctr("run", "--detach", *runtime, "--rootfs", rootfs, "two", "sleep", "1000").returncode == 0
    result = docker.ctr("task", "exec", "--exec-id", "e", "two", "sh", "-c", "echo exec; exit 3")
    assert (result.returncode, result.stdout) == (3, "exec\n"), result
    assert "RUNNING" in docker.ctr("task", "ls").stdout
    assert docker.ctr("task", "ps", "two").returncode == 0
    assert docker.ctr("task", "kill", "--signal", "TERM", "two").returncode == 0
    eventually(lambda: "STOPPED" in docker.ctr("task", "ls").stdout)
    for words in (("task", "rm", "--force", "two"), ("container", "rm", "two")):
        result = docker.ctr(*words)
        assert result.returncode == 0, result
