# SPDX-License-Identifier: Apache-2.0
"""Named VMs as a whole: listing, pausing, stopping and killing them, and valid names."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from .launcher import OWN_ERROR, Ordinary, launch, proc_status, refused
from .named import (
    ANSWER,
    ASK,
    ASK_INFO,
    ASK_STATS,
    ASK_STOP,
    CLIENT,
    CREDIT,
    DATA,
    EXIT,
    OUT_WINDOW,
    STARTED,
    Named,
    frame,
    named,
    start,
    until,
)
from .vm import Vm


@pytest.fixture(scope="module")
def vm(minimal: Vm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    """A VM that sleeps, for tests that do not change it."""
    words = minimal.argv("sleep", "100000", env={"OUTER": "of the VM"})
    with named(words, tmp_path_factory.mktemp("named")) as running:
        yield running


def test_lists(vm: Named) -> None:
    (line,) = vm.nabla("ps").stdout.splitlines()[1:]
    assert line.split()[:3] == ["vm", "running", str(vm.process.pid)]
    assert "minimal.ext3 sleep 100000" in line
    (entry,) = json.loads(vm.nabla("ps", "--json").stdout)
    assert entry["name"] == "vm" and entry["pid"] == vm.process.pid and entry["command"] == ["sleep", "100000"]
    assert (entry["state"], entry["memory"]) == ("running", 64 << 20)
    vm.check("true")
    first = json.loads(vm.nabla("stats", "vm").stdout)
    assert 0 < first["memory_kib"] <= first["memory_limit_kib"] + 65536 and first["cpu_us"] > 0
    assert vm.nabla("port", "vm").stdout == ""


def test_ports(minimal: Vm, tmp_path: Path) -> None:
    with named(minimal.but(options=("--publish", "47113:80")).argv("sleep", "1000"), tmp_path) as vm:
        until(lambda: vm.nabla("port", "vm").returncode == 0)
        assert vm.nabla("port", "vm").stdout == "80/tcp -> 127.0.0.1:47113\n"


def test_what_writes_more_than_its_client_reads(vm: Named) -> None:
    """The output is never empty when the client gives credit: the session ends nevertheless."""
    client = vm.connect()
    client.send(start("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do yes & done; exit 3"))
    assert client.expect(STARTED)
    unread = total = 0
    while (got := client.receive()) and got[0] != EXIT:
        total += len(got[3])
        unread += 8 + len(got[3]) if got[:2] == (DATA, 1) else 0
        assert total < 4 * OUT_WINDOW
        if OUT_WINDOW - unread <= 8:
            vm.check("sleep 0.01")  # the pipe fills up
            client.send(frame(CREDIT, struct.pack("<I", OUT_WINDOW // 4), stream=1))
            unread -= OUT_WINDOW // 4
    assert got and got[3] == struct.pack("<I", 3 << 8)


def test_a_vm_that_is_stopped(vm: Named) -> None:
    """As by ^Z: a session that begins fails, and the next one after that works."""
    assert vm.check("echo 1") == "1\n"
    os.kill(vm.vm(), signal.SIGSTOP)
    result = vm.run("true")
    os.kill(vm.vm(), signal.SIGCONT)
    assert result.returncode == OWN_ERROR and "did not answer in time" in result.stderr
    assert vm.check("echo 2") == "2\n"


def test_pause_outlasts_a_stop(minimal: Vm, tmp_path: Path) -> None:
    """Of nabla-run, by ^Z of a shell."""
    with named(minimal.argv("sleep", "1000"), tmp_path) as vm:
        assert vm.check("echo 1") == "1\n"
        assert vm.nabla("pause", "vm").returncode == 0
        vm.process.send_signal(signal.SIGTSTP)
        until(lambda: proc_status(vm.process.pid)["State"].startswith("T"))
        vm.process.send_signal(signal.SIGCONT)
        until(lambda: vm.nabla("stats", "vm").returncode == 0)
        assert proc_status(vm.vm())["State"].startswith("T")
        assert vm.nabla("resume", "vm").returncode == 0
        assert vm.check("echo 2") == "2\n"


def test_pause_and_resume(minimal: Vm, tmp_path: Path) -> None:
    with named(minimal.argv("sleep", "1000"), tmp_path) as vm:
        assert vm.check("echo 1") == "1\n"
        assert vm.nabla("pause", "vm").returncode == 0
        until(lambda: proc_status(vm.vm())["State"].startswith("T"))
        assert "paused" in vm.nabla("ps").stdout
        result = vm.run("true")
        assert result.returncode == OWN_ERROR and "VM vm is paused (resume it: nabla resume NAME)" in result.stderr
        assert vm.nabla("resume", "vm").returncode == 0
        assert vm.check("echo 2") == "2\n"
        # an earlier session continues
        with vm.started("cat", options=("-i",)) as process:
            assert process.stdin and process.stdout
            process.stdin.write(b"1\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"1\n"
            assert vm.nabla("pause", "vm").returncode == 0
            process.stdin.write(b"2\n")
            process.stdin.close()
            assert vm.nabla("resume", "vm").returncode == 0
            assert process.stdout.read() == b"2\n"
            assert process.wait(60) == 0
        assert vm.nabla("pause", "vm").returncode == 0
        assert vm.nabla("stop", "vm").returncode == 0
        assert vm.process.wait(60) == 128 + signal.SIGTERM


def test_stop(minimal: Vm, tmp_path: Path) -> None:
    """As by a power button: programs have time to end. After `nabla stop` the name is free."""
    script = "trap 'echo stopped; exit' TERM; echo ready; while :; do sleep 0.05; done"
    with named(minimal.argv("sh", "-c", script), tmp_path) as vm:
        assert vm.process.stdout and vm.process.stdout.readline() == b"ready\n"
        with vm.started("sleep", "1000") as session:
            until(lambda: "sleep" in vm.check("ps"))
            assert vm.nabla("stop", "vm").returncode == 0
            assert not vm.path.exists()
            assert session.wait(60) in {128 + signal.SIGTERM, OWN_ERROR}
        assert vm.process.stdout.read() == b"stopped\n"
        assert vm.process.wait(60) == 128 + signal.SIGTERM


def test_kill(minimal: Vm, tmp_path: Path) -> None:
    with named(minimal.argv("sleep", "1000"), tmp_path) as vm:
        with vm.started("sleep", "1000") as session:
            until(lambda: "sleep" in vm.check("ps"))
            assert vm.nabla("kill", "vm").returncode == 0
            assert session.wait(60) == OWN_ERROR
            assert session.stderr and session.stderr.read() == b"nabla: VM vm has ended\n"
        assert vm.process.wait(60) == 128 + signal.SIGKILL


def test_the_end_of_the_command_is_the_end(minimal: Vm, tmp_path: Path) -> None:
    """Sessions do not keep a VM alive, and its status is the command's own."""
    with named(minimal.argv("sh", "-c", "read x; exit 9"), tmp_path) as vm:
        with vm.started("sleep", "1000") as session:
            until(lambda: "sleep" in vm.check("ps"))
            assert vm.process.stdin
            vm.process.stdin.write(b"\n")
            vm.process.stdin.flush()
            assert vm.process.wait(60) == 9
            assert session.wait(60) in {128 + signal.SIGTERM, 128 + signal.SIGHUP, OWN_ERROR}
        assert not vm.path.exists()


def test_names(vm: Named, minimal: Vm) -> None:
    """One VM for each name; a socket that nobody serves does not reserve its name."""
    refused("a VM named vm is running", "--name", "vm", *minimal.argv("true")[1:], env=vm.env)
    assert vm.check("echo still there") == "still there\n"
    for name in ("", "-x", ".x", "a/b", "a b", "x" * 65):
        refused("is not a name", f"--name={name}", "x")
    dead = vm.runtime / "nabla" / "dead"
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(dead))  # as after SIGKILL of nabla-run
        assert [entry["name"] for entry in json.loads(vm.nabla("ps", "--json").stdout)] == ["vm"]
        assert not dead.exists()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    with named(minimal.argv("sleep", "1000"), vm.runtime.parent, "dead") as other:
        until(lambda: other.run("true").returncode == 0)


def test_an_ordinary_user(ordinary: Ordinary) -> None:
    """The socket exists as long as the VM, also in a jail. After SIGKILL it remains until the next look-up."""
    shutil.copy(CLIENT, ordinary.folder / "nabla")
    runtime = ordinary.folder / "run"
    runtime.mkdir(mode=0o700)
    os.chown(runtime, ordinary.uid, ordinary.uid)
    env = {"XDG_RUNTIME_DIR": str(runtime), "HOME": "/nonexistent"}
    words = [
        "--name",
        "own",
        "--memory",
        "64M",
        "--ephemeral",
        str(ordinary.folder / "disk.ext3"),
        "--",
        "sleep",
        "1000",
    ]

    def nabla(*more: str) -> subprocess.CompletedProcess[str]:
        argv = [*ordinary.prefix, str(ordinary.folder / "nabla"), *more]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)

    for options in ([], ["--jail"]):
        argv = [*ordinary.prefix, str(ordinary.nabla_run), *options, *words]
        with subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL) as process:
            until((runtime / "nabla/own").exists)
            result = nabla("exec", "own", "--", "sh", "-c", "echo in; exit 4")
            assert (result.returncode, result.stdout) == (4, "in\n"), result
            assert nabla("stop", "own").returncode == 0
            assert process.wait(60) == 128 + signal.SIGTERM
        assert os.listdir(runtime / "nabla") == []
    argv = [*ordinary.prefix, str(ordinary.nabla_run), *words]
    with subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL) as process:
        until(lambda: nabla("exec", "own", "--", "true").returncode == 0)
        process.kill()
    assert os.listdir(runtime / "nabla") == ["own"]
    until(lambda: nabla("ps").returncode == 0 and os.listdir(runtime / "nabla") == [])


def _waiting(pipe: IO[bytes] | None) -> int:
    """Return how many bytes are in a pipe."""
    assert pipe
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])


def test_a_reader_that_is_stuck(minimal: Vm, tmp_path: Path) -> None:
    """The VM has ended, but not nabla-run, which passes its output on: nabla stop ends it."""
    vm = minimal.but(options=("--max-output", "10M"))
    with named(vm.argv("dd", "if=/dev/zero", "bs=65536", "count=2"), tmp_path) as stuck:
        until(lambda: _waiting(stuck.process.stdout) > 60_000)
        until(lambda: not stuck.children(own=False))
        assert json.loads(stuck.ask(ASK_INFO))["name"] == "vm"
        until(lambda: stuck.ask(ASK_STATS) == b"")  # the broker learns of the end a moment later
        assert stuck.nabla("stop", "vm").returncode == 0
        assert stuck.process.wait(60) == 128 + signal.SIGTERM


def test_without_a_runtime_directory(minimal: Vm, tmp_path: Path) -> None:
    """The sockets are then in the cache folder; the same applies if other users have access to the directory."""
    public = tmp_path / "public"
    public.mkdir(mode=0o755)
    for runtime in ("", "relative", str(public), str(tmp_path / "none")):
        env = {**os.environ, "XDG_RUNTIME_DIR": runtime, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        (tmp_path / "cache").mkdir(exist_ok=True)
        words = minimal.argv("sleep", "1000")
        path = tmp_path / "cache/nabla-run/machines/x"
        with subprocess.Popen([words[0], "--name", "x", *words[1:]], env=env) as process:
            until(path.exists)
            for folder in (path.parent, path.parent.parent):
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            done = subprocess.run([str(CLIENT), "stop", "x"], env=env, check=False, timeout=60)
            assert done.returncode == 0
            assert process.wait(60) == 128 + signal.SIGTERM
        assert list(public.iterdir()) == []


def test_what_a_name_excludes(minimal: Vm, tmp_path: Path) -> None:
    image = minimal.argv("true")[-3]
    refused("--trace-policy cannot be combined with --name", "--name", "x", "--trace-policy", image)
    result = launch("--name", "x", "--dry-run", *minimal.argv("true")[1:], env={"HOME": str(tmp_path)})
    assert "start: cold, the cache folder: No such file or directory\n" in result.stdout
    assert "descriptor 23: control, socket to the broker of name x\n" in result.stdout
    assert "limit RLIMIT_NOFILE: 24\n" in result.stdout
    assert "stream8=fd:23,control" in result.stdout


def test_stop_by_the_protocol(minimal: Vm, tmp_path: Path) -> None:
    """The answer comes at once, the end of the connection with the end of the VM."""
    with named(minimal.argv("sleep", "1000"), tmp_path) as vm:
        assert vm.check("echo 1") == "1\n"
        peer = vm.connect()
        peer.send(frame(ASK, bytes([ASK_STOP])))
        assert peer.expect(ANSWER) == b""
        assert peer.receive() is None
        assert vm.process.wait(60) == 128 + signal.SIGTERM
