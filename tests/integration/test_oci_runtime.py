# SPDX-License-Identifier: Apache-2.0
"""nabla-oci under the OCI runtime specification: the life cycle of a container, its signals, its state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla.core.paths import IMAGES, NABLA_OCI
from nabla.fs import ext3, nodes

from .bundles import Bundle, console, eventually, subreaper, wait


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The minimal image as a directory, without nabla's init, as the images of engines are."""
    target = tmp_path_factory.mktemp("rootfs") / "root"
    ext3.stage(nodes.read_ext(IMAGES / "minimal.ext3"), target)
    (target / "sbin" / "nabla-init").unlink()
    return target


@pytest.fixture
def bundle(tmp_path: Path, tree: Path) -> Iterator[Bundle]:
    """A bundle whose container is deleted afterwards."""
    subprocess.run(["cp", "-a", tree, tmp_path / "rootfs"], check=True)
    with subreaper():
        prepared = Bundle(tmp_path)
        yield prepared
        prepared.call("delete", "--force", prepared.name)


def test_a_life(bundle: Bundle) -> None:
    """Nothing runs before start; the status follows."""
    bundle.config["annotations"] = {"some.key": "value"}
    bundle.shell("echo ran >/ran; read line; exit 7")
    reading, writing = os.pipe()
    pid = bundle.create(stdin=reading)
    os.close(reading)
    state = bundle.state()
    assert state["ociVersion"].startswith("1.")
    assert state["id"] == "c1" and state["status"] == "created" and state["pid"] == pid
    assert state["bundle"] == str(bundle.folder)
    assert state["annotations"] == {"some.key": "value"}
    assert Path(f"/proc/{pid}").exists()
    assert not (bundle.folder / "rootfs" / "ran").exists()
    assert bundle.check("start", "c1") == ""
    assert bundle.state()["status"] == "running"
    os.write(writing, b"go on\n")
    os.close(writing)
    assert wait(pid) == 7
    assert bundle.state() == state | {"status": "stopped", "pid": 0}
    assert (bundle.folder / "rootfs" / "ran").read_text() == "ran\n"
    bundle.check("delete", "c1")
    bundle.refused("container c1 does not exist", "state", "c1")
    assert list(bundle.state_folder.iterdir()) == []


def test_what_is_created_is_removed(bundle: Bundle) -> None:
    """No process and no mount is left, and the ID can be used again."""
    mounts = Path("/proc/self/mountinfo").read_text()
    for _ in range(2):
        assert bundle.run("exit 3")[0] == 3
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert list((bundle.folder / "rootfs" / "proc").iterdir()) == []


def test_changes_of_the_configuration_after_create(bundle: Bundle) -> None:
    bundle.shell("echo before")
    pid = bundle.create()
    bundle.shell("echo after")
    bundle.write()
    bundle.check("start", "c1")
    assert wait(pid) == 0
    assert bundle.output.read_text() == "before\n"


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "-x", "a/b", "a b", "ä", "x" * 1025, "a\nb"])
def test_wrong_ids(bundle: Bundle, name: str) -> None:
    bundle.write()
    result = bundle.call("create", "--bundle", bundle.folder, name)
    assert result.returncode == 1, result
    assert result.stderr.count("\n") == 1
    assert not any(bundle.state_folder.glob("*"))


@pytest.mark.parametrize("command", ["create", "start", "state", "kill", "delete"])
def test_without_an_id(bundle: Bundle, command: str) -> None:
    bundle.refused(f"{command}: the container ID is missing", command)


@pytest.mark.parametrize("command", ["start", "state", "kill", "delete"])
def test_an_unknown_container(bundle: Bundle, command: str) -> None:
    bundle.refused("container nobody does not exist", command, "nobody")


def test_an_id_twice(bundle: Bundle) -> None:
    bundle.create()
    before = bundle.state()
    assert "a container with this ID exists" in bundle.refused("cannot create container c1", *bundle.create_words())
    assert bundle.state() == before


def test_without_a_bundle(bundle: Bundle) -> None:
    bundle.refused("bundle /nowhere: No such file or directory", "create", "--bundle", "/nowhere", "c1")
    (bundle.folder / "config.json").unlink(missing_ok=True)
    bundle.refused("config.json: No such file or directory", *bundle.create_words())
    for text, reason in (
        ("{", "it ends too early"),
        ("[]", "is not a JSON object"),
        ("{} x", "is not JSON"),
        ("{}\0x", "is not JSON"),
    ):
        (bundle.folder / "config.json").write_text(text)
        bundle.refused(reason, *bundle.create_words())


def test_start_twice(bundle: Bundle) -> None:
    bundle.shell("sleep 1000")
    bundle.create()
    bundle.check("start", "c1")
    bundle.refused("container c1 is running; only a created one can be started", "start", "c1")
    assert bundle.state()["status"] == "running"


def test_start_after_the_end(bundle: Bundle) -> None:
    pid = bundle.create()
    bundle.check("start", "c1")
    wait(pid)
    bundle.refused("container c1 is stopped", "start", "c1")


def test_a_container_without_a_process(bundle: Bundle) -> None:
    del bundle.config["process"]
    bundle.create()
    assert bundle.state()["status"] == "created"
    bundle.refused("container c1 has no process", "start", "c1")


def test_many_starts_at_once(bundle: Bundle) -> None:
    """The process reaches its FIFO while start waits: exactly one of several calls wins."""
    bundle.shell("exit 0")
    for _ in range(20):
        pid = bundle.create()
        calls = [subprocess.Popen(bundle.words("start", "c1"), stderr=subprocess.DEVNULL) for _ in range(3)]
        assert sorted(call.wait(timeout=60) for call in calls) == [0, 1, 1]
        assert wait(pid) == 0
        bundle.check("delete", "c1")


TRAP = "trap 'echo got {0}; exit 9' {0}; echo up; while :; do sleep 0.05; done"


@pytest.mark.parametrize("name", ["TERM", "INT", "QUIT"])
def test_signals_for_the_command(bundle: Bundle, name: str) -> None:
    """The command itself gets the signal that was sent, and decides when to end."""
    bundle.shell(TRAP.format(name))
    pid = bundle.create()
    bundle.check("start", "c1")
    bundle.wait_for("up\n")
    bundle.check("kill", "c1", str(int(getattr(signal, f"SIG{name}"))))
    assert wait(pid) == 9
    assert bundle.output.read_text() == f"up\ngot {name}\n"
    assert bundle.state()["status"] == "stopped"


def test_kill(bundle: Bundle) -> None:
    bundle.shell("trap '' TERM; echo up; sleep 1000")
    pid = bundle.create()
    bundle.check("start", "c1")
    bundle.wait_for("up\n")
    bundle.check("kill", "c1", "0")
    bundle.check("kill", "--all", "c1", "SIGKILL")
    assert wait(pid) == -signal.SIGKILL
    assert bundle.state()["status"] == "stopped"
    bundle.refused("container c1 is stopped and cannot receive a signal", "kill", "c1", "9")


def states_of_children(pid: int) -> list[str]:
    """Return the states of the VM and its servers, as in /proc/PID/stat."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children]


def test_pause_and_resume(bundle: Bundle) -> None:
    """A paused container does nothing, and accepts no signal except KILL."""
    bundle.shell("read line; echo answer >/answered; read line; exit 7")
    reading, writing = os.pipe()
    pid = bundle.create(stdin=reading)
    os.close(reading)
    bundle.refused("container c1 is created, not running", "pause", "c1")
    bundle.check("start", "c1")
    bundle.refused("container c1 is running, not paused", "resume", "c1")
    answer = bundle.folder / "rootfs" / "answered"
    for _ in range(3):
        bundle.check("pause", "c1")
        assert bundle.state()["status"] == "paused"
        eventually(lambda: "T" in states_of_children(pid))
        bundle.refused("container c1 is paused, not running", "pause", "c1")
        bundle.refused("is paused and cannot receive signal 15", "kill", "c1", "TERM")
        bundle.check("resume", "c1")
        assert bundle.state()["status"] == "running"
    bundle.check("pause", "c1")
    os.write(writing, b"one\n")
    assert not answer.exists()
    bundle.check("resume", "c1")
    eventually(answer.exists)
    os.write(writing, b"two\n")
    os.close(writing)
    assert wait(pid) == 7


def test_kill_what_is_paused(bundle: Bundle) -> None:
    bundle.shell("while :; do :; done")
    pid = bundle.create()
    bundle.check("start", "c1")
    bundle.check("pause", "c1")
    bundle.check("kill", "c1", "KILL")
    assert wait(pid) == -signal.SIGKILL


def test_kill_before_start(bundle: Bundle) -> None:
    pid = bundle.create()
    bundle.check("kill", "c1", "TERM")
    assert wait(pid) == -signal.SIGTERM
    bundle.refused("container c1 is stopped", "start", "c1")


def test_delete_what_runs(bundle: Bundle) -> None:
    bundle.shell("echo up; sleep 1000")
    pid = bundle.create()
    bundle.refused("container c1 is created and cannot be deleted", "delete", "c1")
    bundle.check("start", "c1")
    bundle.wait_for("up\n")
    bundle.refused("container c1 is running and cannot be deleted", "delete", "c1")
    assert bundle.state()["status"] == "running"
    bundle.check("delete", "--force", "c1")
    assert wait(pid) == -signal.SIGKILL
    bundle.check("delete", "--force", "c1")  # engines do so after a create that failed


def test_a_process_id_that_another_process_has(bundle: Bundle) -> None:
    """A process ID does not identify a process: kill must not reach another one."""
    pid = bundle.create()
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    # the times at which processes start are counted in ticks of 10 ms
    later = time.monotonic() + 0.1
    eventually(lambda: time.monotonic() > later)
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        path = bundle.state_folder / "c1" / "state.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": stranger.pid}))
        assert bundle.state()["status"] == "stopped"
        bundle.refused("cannot receive a signal", "kill", "c1", "KILL")
        bundle.check("delete", "--force", "c1")
        assert stranger.poll() is None
        stranger.kill()


def test_a_state_of_others(bundle: Bundle) -> None:
    bundle.state_folder.mkdir(mode=0o777)
    bundle.state_folder.chmod(0o777)
    bundle.refused("others may write to it", "list")


def test_the_command_cannot_be_run(bundle: Bundle) -> None:
    bundle.process["args"] = ["nothing"]
    assert bundle.run() == (127, "nabla-init: nothing: not found\n")
    bundle.process["args"] = ["/etc/passwd"]
    assert bundle.run() == (126, "nabla-init: /etc/passwd: Permission denied\n")


def test_standard_streams(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(bytes(range(256)) * 1000)
    with (tmp_path / "input").open("rb") as stream:
        status, output = bundle.run("md5sum; echo error >&2", stdin=stream.fileno())
    expected = subprocess.run(["md5sum"], input=bytes(range(256)) * 1000, capture_output=True, check=True).stdout
    assert (status, output) == (0, expected.decode() + "error\n")


def test_a_terminal(bundle: Bundle, tmp_path: Path) -> None:
    bundle.process.update(terminal=True, consoleSize={"height": 30, "width": 90})
    bundle.shell("stty size; tty; read line; echo got $line; exit 4")
    with console(tmp_path / "socket") as receive:
        pid = bundle.create("--console-socket", tmp_path / "socket")
        master = receive()
    bundle.check("start", "c1")
    shown = b""
    while b"/dev/" not in shown:
        shown += os.read(master, 1024)
    assert b"30 90" in shown
    os.write(master, b"hello\r")
    while b"got hello" not in shown:
        shown += os.read(master, 1024)
    assert wait(pid) == 4
    os.close(master)


def test_a_terminal_that_nobody_receives(bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    bundle.create_refused("no socket receives the terminal")
    bundle.create_refused("cannot send the terminal to /nowhere", "--console-socket", "/nowhere")
    bundle.process["terminal"] = False
    bundle.create_refused("process.terminal is not set", "--console-socket", "/nowhere")


def test_the_log(bundle: Bundle, tmp_path: Path) -> None:
    """Engines read the last line of the log to show why a call failed."""
    log = tmp_path / "log"
    bundle.options = ("--log", str(log), "--log-format", "json")
    bundle.refused("container c2 does not exist", "start", "c2")
    entry = json.loads(log.read_text().splitlines()[-1])
    assert entry["level"] == "error" and entry["msg"].startswith("container c2 does not exist")
    bundle.options = ("--log", str(log), "--log-format", "text")
    bundle.refused("does not exist", "start", "c2")
    assert 'level=error msg="container c2 does not exist' in log.read_text().splitlines()[-1]
    bundle.options = ("--log-format", "xml")
    bundle.refused("'xml' is unknown", "list")


def test_list(bundle: Bundle) -> None:
    assert json.loads(bundle.check("list", "--format", "json")) == []
    bundle.create()
    assert bundle.check("list", "-q") == "c1\n"
    (row,) = json.loads(bundle.check("list", "--format=json"))
    assert row == bundle.state()
    assert [line.split()[0] for line in bundle.check("list").splitlines()] == ["ID", "c1"]


def test_descriptions(bundle: Bundle, tmp_path: Path) -> None:
    version = bundle.check("--version").splitlines()
    assert version[0].startswith("nabla-oci version ") and version[1].startswith("spec: 1.")
    features = json.loads(bundle.check("features"))
    assert features["ociVersionMin"] == "1.0.0"
    assert "uts" in features["linux"]["namespaces"] and "user" not in features["linux"]["namespaces"]
    for words in (("--help",), ("help",), ("--manual",), ("--rules",)):
        assert "|" in bundle.check(*words)


def test_spec(bundle: Bundle) -> None:
    """The example works."""
    (bundle.folder / "config.json").unlink(missing_ok=True)
    bundle.check("spec", "--bundle", bundle.folder)
    bundle.refused("cannot create config.json: File exists", "spec", "--bundle", bundle.folder)
    bundle.config = json.loads((bundle.folder / "config.json").read_text())
    bundle.process["terminal"] = False
    assert bundle.says("hostname") == "nabla\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "a command is missing"),
        (("checkpoint", "c1"), "the command 'checkpoint' is not supported"),
        (("--nothing", "list"), "unknown option '--nothing'"),
        (("list", "--nothing"), "unknown option '--nothing'"),
        (("state", "a", "b"), "unexpected argument 'b'"),
        (("state", "a", "b", "c"), "unexpected argument 'c'"),
        (("create", "--bundle"), "--bundle needs a value"),
        (("--cgroup-manager", "x", "create", "c"), "'x' is unknown"),
    ],
)
def test_wrong_calls(bundle: Bundle, words: tuple[str, ...], message: str) -> None:
    bundle.refused(message, *words)


def test_without_nabla_run(bundle: Bundle, tmp_path: Path) -> None:
    """nabla-run is found beside nabla-oci, and an error of the waiting process reaches the caller of create."""
    alone = tmp_path / "alone"
    alone.write_bytes(NABLA_OCI.read_bytes())
    alone.chmod(0o755)
    bundle.write()
    words = [alone, "--root", bundle.state_folder, *bundle.create_words()]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"nabla-oci: cannot run {tmp_path}/nabla-run: No such file or directory (")
    assert list(bundle.state_folder.iterdir()) == []


def test_the_engine_dies(bundle: Bundle) -> None:
    """A container lives without the process that started it, as engines expect."""
    bundle.shell("echo up; sleep 1000")
    pid = bundle.create()
    bundle.check("start", "c1")
    bundle.wait_for("up\n")
    assert os.getsid(pid) == pid
    eventually(lambda: bundle.state()["status"] == "running")
