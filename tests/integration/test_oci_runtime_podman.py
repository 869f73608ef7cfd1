# SPDX-License-Identifier: Apache-2.0
"""Debian's podman with nabla-oci as its runtime; its image is made here, from the minimal disk image."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest

from nabla.core.paths import NABLA_OCI
from nabla.images import podman_run

from .bundles import eventually
from .test_oci_runtime import tree
from .vm import status_of

__all__ = ["tree"]

# Podman and conmon need a cgroup hierarchy, and folders for locks and state, as in nabla.images.podman_run.
SET_UP = """
mount -t cgroup2 none /sys/fs/cgroup && mount -t tmpfs none /dev/shm && mount -t tmpfs none /run && echo &&
    exec sleep 3600
"""


@dataclass(frozen=True)
class Podman:
    """Podman in namespaces that persist from one call to the next."""

    folder: Path
    holder: int

    def words(self, *words: str | Path) -> list[str]:
        """Return a command line."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        env = [f"{name}={value}" for name, value in podman_run.restricted(self.folder).env.items()]
        enter = ["env", *env, "nsenter", *user, "--mount", "--cgroup", "--target", str(self.holder), "--"]
        storage = ["--root", self.folder / "storage", "--runroot", "/run/podman", "--tmpdir", "/run/libpod"]
        settings = ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        return [*enter, "podman", *map(str, storage), *settings, "--runtime", str(NABLA_OCI), *map(str, words)]

    def call(self, *words: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
        """Run podman to its end."""
        options: dict[str, object] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 120}
        return subprocess.run(self.words(*words), check=False, **options | settings)  # type: ignore[call-overload,no-any-return]

    def check(self, *words: str | Path, **settings: object) -> str:
        """Run podman, and expect success."""
        result = self.call(*words, **settings)
        assert result.returncode == 0, result
        return result.stdout

    def run(self, *words: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
        """Run a container without a network to its end."""
        return self.call("run", "--rm", "--network", "none", *words, **settings)

    def start(self, name: str, script: str) -> None:
        """Start a container in the background, which writes `up`."""
        self.check("run", "--detach", "--name", name, "--network", "none", "minimal", "sh", "-c", f"echo up; {script}")
        eventually(lambda: "up\n" in self.check("logs", name))

    def inspect(self, name: str, what: str) -> str:
        """Return a property of a container."""
        return self.check("inspect", "--format", f"{{{{.State.{what}}}}}", name).strip()


@pytest.fixture(scope="module")
def podman(tree: Path) -> Iterator[Podman]:
    """Podman with the image `minimal`."""
    if shutil.which("podman") is None:
        pytest.fail("podman is missing; hint: ./doit.sh test installs it", pytrace=False)
    folder = Path(tempfile.mkdtemp(prefix="nabla-podman-"))
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    words = ["unshare", *user, "--mount", "--cgroup", "--propagation", "private", "sh", "-c", SET_UP]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline()
            engine = Podman(folder, holder.pid)
            subprocess.run(["tar", "-C", tree, "-cf", folder / "image.tar", "."], check=True)
            engine.check("import", folder / "image.tar", "minimal")
            yield engine
            engine.call("rm", "--all", "--force", "--time", "0")
        finally:
            holder.kill()
            shutil.rmtree(folder, ignore_errors=True)


def test_it_is_a_virtual_machine(podman: Podman) -> None:
    """The kernel that the command sees is not the host's."""
    result = podman.run("minimal", "cat", "/proc/version")
    assert result.returncode == 0, result
    assert result.stdout != Path("/proc/version").read_text()


def test_output_and_status(podman: Podman) -> None:
    result = podman.run("minimal", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (result.returncode, result.stdout, result.stderr) == (42, "out\n", "err\n")
    assert podman.run("minimal", "true").returncode == 0
    assert podman.run("minimal", "nothing").returncode == 127
    assert podman.run("minimal", "/etc/passwd").returncode == 126


def test_settings(podman: Podman) -> None:
    options = ("--env", "A=b c", "--workdir", "/usr", "--hostname", "name", "--user", "7:8", "--ulimit", "nofile=77:88")
    result = podman.run(*options, "minimal", "sh", "-c", "echo $A; pwd; hostname; id -u; id -g; ulimit -n; umask")
    assert result.stdout.splitlines() == ["b c", "/usr", "name", "7", "8", "77", "0022"], result


def test_files_of_podman(podman: Podman) -> None:
    """It mounts single files, also below directories that the guest usually replaces."""
    result = podman.run("--hostname", "name", "minimal", "sh", "-c", "hostname; ls /run/.containerenv; cat /etc/hosts")
    assert result.stdout.startswith("name\n/run/.containerenv\n"), result
    assert "name" in result.stdout.splitlines()[-1]


def test_volumes(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data\n")
    result = podman.run(
        "--volume", f"{tmp_path}:/tmp/a", "minimal", "sh", "-c", "cat /tmp/a/file; echo new >/tmp/a/new"
    )
    assert result.stdout == "data\n", result
    assert (tmp_path / "new").read_text() == "new\n"
    result = podman.run("--volume", f"{tmp_path}:/a:ro", "minimal", "sh", "-c", "echo x >/a/x")
    assert result.returncode == 1 and "Read-only file system" in result.stderr
    podman.check("volume", "create", "named")
    assert podman.run("--volume", "named:/v", "minimal", "sh", "-c", "echo kept >/v/file").returncode == 0
    assert podman.run("--volume", "named:/v", "minimal", "cat", "/v/file").stdout == "kept\n"


def test_read_only(podman: Podman) -> None:
    script = "echo x >/tmp/x && cat /tmp/x; echo x >/x"
    result = podman.run("--read-only", "--tmpfs", "/small:size=1m", "minimal", "sh", "-c", script)
    assert result.stdout == "x\n" and "Read-only file system" in result.stderr, result


def test_interactive(podman: Podman) -> None:
    data = "line\n" * 10_000
    result = podman.run("--interactive", "minimal", "wc", "-l", input=data, stdin=None)
    assert result.stdout.strip() == "10000", result


def test_a_terminal(podman: Podman) -> None:
    words = podman.words("run", "--rm", "--interactive", "--tty", "--network", "none", "minimal", "sh")
    terminal = pexpect.spawn(words[0], words[1:], encoding="utf-8", timeout=60, dimensions=(33, 99))
    terminal.expect_exact("# ")
    terminal.sendline("stty size")
    terminal.expect_exact("33 99")
    terminal.expect_exact("# ")
    terminal.sendline("exit 5")
    assert status_of(terminal) == 5


def test_stop(podman: Podman) -> None:
    """The command gets the signal and may clean up."""
    podman.start("stopped", "trap 'echo cleaned; exit 0' TERM; while :; do sleep 0.05; done")
    assert podman.inspect("stopped", "Status") == "running"
    podman.check("stop", "--time", "8", "stopped")
    assert podman.check("logs", "stopped") == "up\ncleaned\n"
    assert (podman.inspect("stopped", "Status"), podman.inspect("stopped", "ExitCode")) == ("exited", "0")
    podman.check("rm", "stopped")
    assert podman.call("inspect", "stopped").returncode != 0


def test_kill_wait_and_start_again(podman: Podman) -> None:
    podman.start("again", "exec sleep 1000")
    podman.check("kill", "--signal", "WINCH", "again")
    assert podman.inspect("again", "Status") == "running"
    podman.check("kill", "again")
    assert podman.check("wait", "again") == "137\n"
    podman.check("start", "again")
    assert podman.inspect("again", "Status") == "running"
    podman.check("rm", "--force", "--time", "0", "again")


def test_what_it_cannot_do_yet(podman: Podman) -> None:
    """Each is an error that podman shows."""
    for options, message in (
        (("--device", "/dev/full:/dev/other"), "the VM cannot have the host's device /dev/other"),
        (("--pid", "host"), "cannot see the host's processes"),
    ):
        result = podman.run(*options, "minimal", "true")
        assert result.returncode != 0 and message in result.stderr, result
    for network, message in (
        ("host", "a VM cannot use the host's network"),
        ("ns:/proc/1/ns/net", "network namespace"),
    ):
        result = podman.call("run", "--rm", "--network", network, "minimal", "true")
        assert result.returncode != 0 and message in result.stderr, result


def test_exec(podman: Podman) -> None:
    """Programs in a running container: streams, status, user, environment, in the background."""
    podman.start("here", "exec sleep 1000")
    result = podman.call("exec", "here", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (result.returncode, result.stdout, result.stderr.splitlines()[0]) == (42, "out\n", "err"), result
    options = ("--env", "A=b c", "--workdir", "/usr", "--user", "7:8")
    result = podman.call("exec", *options, "here", "sh", "-c", "echo $A; pwd; id -u; id -g")
    assert result.stdout.splitlines() == ["b c", "/usr", "7", "8"], result
    data = "line\n" * 20_000
    assert podman.call("exec", "--interactive", "here", "wc", "-l", input=data, stdin=None).stdout.strip() == "20000"
    assert podman.call("exec", "here", "nothing").returncode == 127
    assert podman.call("exec", "here", "/etc/passwd").returncode == 126
    assert podman.call("exec", "here", "sh", "-c", "kill -KILL $$").returncode == 137
    podman.check("exec", "--detach", "here", "sh", "-c", "echo yes >/detached")
    eventually(lambda: podman.check("exec", "here", "cat", "/detached") == "yes\n")
    podman.check("rm", "--force", "--time", "0", "here")


def test_exec_on_a_terminal(podman: Podman) -> None:
    podman.start("typed", "exec sleep 1000")
    words = podman.words("exec", "--interactive", "--tty", "typed", "sh")
    terminal = pexpect.spawn(words[0], words[1:], encoding="utf-8", timeout=60, dimensions=(33, 99))
    terminal.expect_exact("# ")
    terminal.sendline("stty size")
    terminal.expect_exact("33 99")
    terminal.setwinsize(44, 111)
    terminal.expect_exact("# ")
    terminal.sendline("while ! stty size | grep 111; do :; done")
    terminal.expect_exact("44 111")
    terminal.expect_exact("# ")
    terminal.sendline("sh -c 'echo up; exec sleep 1000'")
    terminal.expect_exact("up\r\n")
    terminal.sendintr()
    terminal.expect_exact("# ")
    terminal.sendline("exit 5")
    assert status_of(terminal) == 5
    podman.check("rm", "--force", "--time", "0", "typed")


def test_pause_copy_and_statistics(podman: Podman) -> None:
    """What podman does by itself with a running container works on a VM, too."""
    podman.start("busy", "exec sleep 1000")
    podman.check("pause", "busy")
    assert podman.inspect("busy", "Status") == "paused"
    assert podman.call("exec", "busy", "true").returncode != 0
    podman.check("unpause", "busy")
    podman.check("exec", "busy", "sh", "-c", "echo inside >/inside")
    row = json.loads(podman.check("stats", "--no-stream", "--format", "json", "busy"))[0]
    assert row["name"] == "busy" and row["cpu_time"] != "0s", row
    podman.check("stop", "--time", "0", "busy")
    (podman.folder / "file").write_text("outside\n")
    podman.check("cp", podman.folder / "file", "busy:/outside")
    podman.check("cp", "busy:/outside", podman.folder / "again")
    assert (podman.folder / "again").read_text() == "outside\n"
    podman.check("cp", "busy:/inside", podman.folder / "copied")
    assert (podman.folder / "copied").read_text() == "inside\n"
    podman.check("rm", "--force", "--time", "0", "busy")


def test_memory_by_annotation(podman: Podman) -> None:
    options = ("--annotation", "org.nabla-linux.memory=64M")
    result = podman.run(*options, "minimal", "sh", "-c", "grep MemTotal /proc/meminfo")
    assert int(result.stdout.split()[1]) < 64 << 10, result


def test_nothing_is_left(podman: Podman) -> None:
    """No container of podman, no state, no VM."""
    assert podman.run("minimal", "true").returncode == 0
    rows = json.loads(podman.check("ps", "--all", "--format", "json"))
    assert rows == []
    listed = subprocess.run(
        ["nsenter", "--mount", "--target", str(podman.holder), "--", "ls", "/run/nabla-oci"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.stdout == ""
