# SPDX-License-Identifier: Apache-2.0
"""The package in python/ with a real VM, and the example of docs/python.md."""

from __future__ import annotations

import ast
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla.core.paths import NABLA_RUN, ROOT

from .instant import Cache
from .instant import cache as cache
from .named import until
from .sandboxes import PACKAGE, connection, nabla_linux, session, wire
from .vm import Vm

Sandbox = nabla_linux.Sandbox


@pytest.fixture(scope="module")
def sandbox(minimal: Vm) -> Iterator[nabla_linux.Sandbox]:
    with Sandbox.create(minimal.image, memory="64M", env={"OUTER": "of the VM"}, nabla_run=NABLA_RUN) as running:
        yield running


def test_commands(sandbox: nabla_linux.Sandbox) -> None:
    seen: list[str] = []
    script = "pwd; id -u; echo $OUTER $INNER; echo err >&2; exit 3"
    result = sandbox.commands.run(script, cwd="/tmp", user="nobody", env={"INNER": "x"}, on_stdout=seen.append)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "/tmp\n65534\nof the VM x\n", "err\n")
    assert "".join(seen) == result.stdout
    assert sandbox.commands.run("kill -9 $$").exit_code == 128 + 9
    with pytest.raises(nabla_linux.CommandStartError, match="nothing-such"):
        sandbox.commands.run(["nothing-such"])
    with pytest.raises(nabla_linux.CommandStartError, match="user"):
        sandbox.commands.run("true", user="no-such-user")


def test_more_than_every_window(sandbox: nabla_linux.Sandbox) -> None:
    """Input and output at the same time are larger than the credit of both."""
    text = "0123456789abcde\n" * 100_000
    assert sandbox.commands.run(["cat"], stdin=text).stdout == text
    assert sandbox.commands.run(["true"], stdin=text).exit_code == 0, "input that nobody reads"


def test_timeout_kills(sandbox: nabla_linux.Sandbox) -> None:
    with pytest.raises(nabla_linux.SandboxTimeout, match=r"within 0\.2 s"):
        sandbox.commands.run("exec sleep 98765", timeout=0.2)
    script = "while grep -q 98765 /proc/[0-9]*/cmdline; do sleep 0.01; done"
    assert sandbox.commands.run(["/bin/sh", "-c", script.replace("98765", "9876[5]")]).exit_code == 0


def test_background(sandbox: nabla_linux.Sandbox) -> None:
    with sandbox.commands.start(["cat"], stdin=True) as handle:
        handle.send_stdin("a")
        handle.send_stdin(b"b")
        assert handle.wait(30).stdout == "ab"
    with sandbox.commands.start("exec sleep 1000") as handle:
        handle.kill()
        assert handle.wait(30).exit_code == 128 + 9


def test_files(sandbox: nabla_linux.Sandbox) -> None:
    files = sandbox.files
    files.make_dir("/tmp/a/b")
    content = os.urandom(700_000)
    files.write("/tmp/a/x\ny", content, 0o600)
    files.write("/tmp/a/.hidden", "")
    assert files.read("/tmp/a/x\ny") == content
    assert files.list("/tmp/a") == [".hidden", "b", "x\ny"]
    files.rename("/tmp/a/x\ny", "/tmp/a/-z")
    assert files.exists("/tmp/a/-z") and not files.exists("/tmp/a/x\ny")
    files.remove("/tmp/a")
    assert not files.exists("/tmp/a")
    for call in (files.read, files.list, files.remove):
        with pytest.raises(nabla_linux.GuestFileError, match="/tmp/a"):
            call("/tmp/a")
    with pytest.raises(ValueError, match="absolute"):
        files.read("tmp")


def test_pause_and_metrics(sandbox: nabla_linux.Sandbox) -> None:
    assert sandbox.metrics()["memory_limit_kib"] == 65536
    sandbox.pause()
    with pytest.raises(nabla_linux.ProtocolError, match="paused"):
        sandbox.commands.run("true")
    sandbox.resume()
    assert sandbox.commands.run("true").exit_code == 0


def test_bad_start_and_end(minimal: Vm) -> None:
    with pytest.raises(nabla_linux.StartError, match="no-such-image"):
        Sandbox.create("/no-such-image", nabla_run=NABLA_RUN)
    sandbox = Sandbox.create(minimal.image, memory="64M", nabla_run=NABLA_RUN)
    sandbox.kill()
    sandbox.kill()
    assert not sandbox.is_running()
    with pytest.raises(nabla_linux.ProtocolError, match="has ended"):
        sandbox.commands.run("true")


@pytest.mark.parametrize(
    "sent",
    [b"", b"\1", wire.HEADER.pack(1 << 31, wire.DATA, 1, 0), wire.HEADER.pack(0, wire.ERROR, 0, 0)],
    ids=["nothing", "half a header", "too long", "error without a number"],
)
def test_hostile_peer(sent: bytes) -> None:
    """Anything that a compromised broker may send is one clear error."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(nabla_linux.ProtocolError):
            connection.Connection(ours).receive()


@pytest.mark.parametrize("answer", [b"[" * 60_000, b"\xff", b"", b"[]", b"{"])
def test_hostile_numbers(answer: bytes) -> None:
    with pytest.raises(nabla_linux.ProtocolError, match="JSON"):
        session.numbers_of(answer)


@pytest.mark.parametrize("status", [0x10000, 0xFFFFFFFF, 0x7F, 0x0109])
def test_hostile_status(status: int) -> None:
    with pytest.raises(nabla_linux.ProtocolError, match="wait status"):
        wire.exit_code(status)


def test_short_frame() -> None:
    with pytest.raises(nabla_linux.ProtocolError, match="too short"):
        wire.number(b"abc")


def test_output_is_bounded(sandbox: nabla_linux.Sandbox) -> None:
    """A guest cannot fill the host's memory."""
    for call in (
        lambda: sandbox.commands.run("yes", max_output=100_000),
        lambda: sandbox.files.read("/bin/busybox", max_size=100_000),
    ):
        with pytest.raises(nabla_linux.OutputLimit, match="100000"):
            call()
    assert sandbox.commands.run("yes | head -c 100000", max_output=100_000).exit_code == 0


def test_options_of_the_vm(minimal: Vm, tmp_path: Path) -> None:
    """A directory of the host and none of its neighbors; what nabla-run refuses is its message."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)  # root's VMs run as another user
    (tmp_path / "shared" / "in").write_text("from the host")
    (tmp_path / "secret").write_text("x")
    mounts = [f"{tmp_path}/shared:/work", f"{PACKAGE}:/package:ro"]
    with Sandbox.create(minimal.image, memory="64M", mounts=mounts, nabla_run=NABLA_RUN) as sandbox:
        assert sandbox.files.read("/work/in") == b"from the host"
        sandbox.files.write("/work/out", "from the guest")
        assert not sandbox.files.exists("/work/../secret")
        with pytest.raises(nabla_linux.GuestFileError, match="Read-only"):
            sandbox.files.write("/package/new", "")
        with pytest.raises(nabla_linux.SnapshotError, match="directory"):
            sandbox.snapshot(tmp_path / "s")
    assert (tmp_path / "shared" / "out").read_text() == "from the guest"
    for options, message in (
        ({"mounts": ["/nowhere:/x"]}, "/nowhere"),
        ({"network": "no-such"}, "no-such"),
        ({"ports": ["80"], "network": "none"}, "publish"),
        ({"memory": "1K"}, "memory"),
        ({"snapshot": tmp_path / "nothing"}, "nothing"),
    ):
        with pytest.raises(nabla_linux.StartError, match=message):
            Sandbox.create(minimal.image, nabla_run=NABLA_RUN, **options)


def test_ports(minimal: Vm) -> None:
    """A server of the guest answers on a port of the host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ports = [f"127.0.0.1:{port}:80"]
    with Sandbox.create(minimal.image, memory="64M", network="user", ports=ports, nabla_run=NABLA_RUN) as sandbox:
        sandbox.files.make_dir("/tmp/pages")
        sandbox.files.write("/tmp/pages/index.html", "answer")
        sandbox.commands.run("httpd -p 80 -h /tmp/pages")
        until(lambda: answer_of(port).endswith(b"answer"))


def answer_of(port: int) -> bytes:
    """Return what a web server sends; nothing if there is none."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with peer.makefile("rb") as answer:
            return answer.read()
    return b""


def test_timeout_of_the_vm(minimal: Vm) -> None:
    sandbox = Sandbox.create(minimal.image, memory="64M", timeout=0.3, nabla_run=NABLA_RUN)
    with sandbox, pytest.raises(nabla_linux.ProtocolError, match="has ended"):
        sandbox.commands.run("exec sleep 1000")


def examples() -> list[str]:
    """Return the examples of the page."""
    parts = (ROOT / "docs/python.md").read_text().split("```python\n")
    return [part.split("```")[0] for part in parts[1:]]


@pytest.mark.parametrize("number", range(len(examples())))
def test_examples_of_the_documentation(number: int, cache: Cache) -> None:
    """Each prints what its comments say."""
    example = examples()[number]
    expected = [line.split("# ")[1] for line in example.splitlines() if "print(" in line]
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, expected, "")


def test_it_imports_the_standard_library_only() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names, f"{path}: {name}"
