# SPDX-License-Identifier: Apache-2.0
"""The package in python/ with a real VM, and the example of docs/python.md."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from nabla.core.paths import NABLA_RUN, ROOT

from .vm import Vm

sys.path.insert(0, str(ROOT / "python"))

from nabla_linux import (
    CommandStartError,
    GuestFileError,
    ProtocolError,
    Sandbox,
    SandboxTimeout,
    StartError,
    wire,
)


@pytest.fixture(scope="module")
def sandbox(minimal: Vm) -> Iterator[Sandbox]:
    with Sandbox.create(minimal.image, memory="64M", env={"OUTER": "of the VM"}, nabla_run=NABLA_RUN) as running:
        yield running


def test_commands(sandbox: Sandbox) -> None:
    seen: list[str] = []
    script = "pwd; id -u; echo $OUTER $INNER; echo err >&2; exit 3"
    result = sandbox.commands.run(script, cwd="/tmp", user="nobody", env={"INNER": "x"}, on_stdout=seen.append)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "/tmp\n65534\nof the VM x\n", "err\n")
    assert "".join(seen) == result.stdout
    assert sandbox.commands.run("kill -9 $$").exit_code == 128 + 9
    with pytest.raises(CommandStartError, match="nothing-such"):
        sandbox.commands.run(["nothing-such"])
    with pytest.raises(CommandStartError, match="user"):
        sandbox.commands.run("true", user="no-such-user")


def test_more_than_every_window(sandbox: Sandbox) -> None:
    """Input and output at the same time are larger than the credit of both."""
    text = "0123456789abcde\n" * 100_000
    assert sandbox.commands.run(["cat"], stdin=text).stdout == text
    assert sandbox.commands.run(["true"], stdin=text).exit_code == 0, "input that nobody reads"


def test_timeout_kills(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxTimeout, match=r"within 0\.2 s"):
        sandbox.commands.run("exec sleep 98765", timeout=0.2)
    script = "while grep -q 98765 /proc/[0-9]*/cmdline; do sleep 0.01; done"
    assert sandbox.commands.run(["/bin/sh", "-c", script.replace("98765", "9876[5]")]).exit_code == 0


def test_background(sandbox: Sandbox) -> None:
    with sandbox.commands.start(["cat"], stdin=True) as handle:
        handle.send_stdin("a")
        handle.send_stdin(b"b")
        assert handle.wait(30).stdout == "ab"
    with sandbox.commands.start("exec sleep 1000") as handle:
        handle.kill()
        assert handle.wait(30).exit_code == 128 + 9


def test_files(sandbox: Sandbox) -> None:
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
        with pytest.raises(GuestFileError, match="/tmp/a"):
            call("/tmp/a")
    with pytest.raises(ValueError, match="absolute"):
        files.read("tmp")


def test_pause_and_metrics(sandbox: Sandbox) -> None:
    assert sandbox.metrics()["memory_limit_kib"] == 65536
    sandbox.pause()
    with pytest.raises(ProtocolError, match="paused"):
        sandbox.commands.run("true")
    sandbox.resume()
    assert sandbox.commands.run("true").exit_code == 0


def test_bad_start_and_end(minimal: Vm) -> None:
    with pytest.raises(StartError, match="no-such-image"):
        Sandbox.create("/no-such-image", nabla_run=NABLA_RUN)
    sandbox = Sandbox.create(minimal.image, memory="64M", nabla_run=NABLA_RUN)
    sandbox.kill()
    sandbox.kill()
    assert not sandbox.is_running()
    with pytest.raises(ProtocolError, match="has ended"):
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
        with pytest.raises(ProtocolError):
            wire.Connection(ours).receive()


def test_short_frame() -> None:
    with pytest.raises(ProtocolError, match="too short"):
        wire.number(b"abc")


def test_example_of_the_documentation() -> None:
    text = (ROOT / "docs/python.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello, world\n", "")


def test_it_imports_the_standard_library_only() -> None:
    for path in sorted((ROOT / "python").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names, f"{path}: {name}"
