# SPDX-License-Identifier: Apache-2.0
"""Sandboxes that are saved, restored and forked, and Python code in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla.core.paths import IMAGES, NABLA_RUN

from .conftest import image_of
from .instant import Cache
from .instant import cache as cache
from .sandboxes import interpreter, nabla_linux
from .vm import Vm

Sandbox = nabla_linux.Sandbox
MEMORY = "128M"


@pytest.fixture(scope="module")
def python_image() -> Path:
    """The smallest image with Python."""
    return image_of("python")


@pytest.fixture(scope="module")
def sandbox(python_image: Path) -> Iterator[nabla_linux.Sandbox]:
    with Sandbox.create(python_image, memory=MEMORY, nabla_run=NABLA_RUN) as running:
        yield running


def test_snapshot(minimal: Vm, tmp_path: Path) -> None:
    """Any number of sandboxes start from a file, which only its owner can read; each has its own settings."""
    with Sandbox.create(minimal.image, memory="64M", env={"A": "1"}, nabla_run=NABLA_RUN) as first:
        first.files.write("/root/file", "before")
        first.commands.run("echo disk >/etc/new; (while :; do sleep 0.01; done) >/dev/null 2>&1 &")
        file = first.snapshot(tmp_path / "s.snap")
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.stat().st_blocks * 512 < 32 << 20, "free memory is a hole"
        first.files.write("/root/file", "after")
        with pytest.raises(nabla_linux.SnapshotError, match="once"):
            first.snapshot(tmp_path / "again")
    assert not first._machine.folder.exists() and not first._machine.saved.exists()
    for _ in range(2):
        with Sandbox.create(minimal.image, snapshot=file, env={"B": "2"}, nabla_run=NABLA_RUN) as other:
            assert other.files.read("/root/file") == b"before"
            assert other.commands.run("cat /etc/new; echo $A$B; pidof sh").stdout.startswith("disk\n2\n")
            assert other.metrics()["memory_limit_kib"] == 65536
    with pytest.raises(nabla_linux.StartError, match="is not the one of snapshot"):
        Sandbox.create(IMAGES / "python.ext3", snapshot=file, nabla_run=NABLA_RUN)


def test_refused_snapshots(minimal: Vm, tmp_path: Path) -> None:
    """An existing file is not replaced, and nothing is left of one that could not be completed."""
    (tmp_path / "mine").write_text("mine")
    with Sandbox.create(minimal.image, memory="64M", nabla_run=NABLA_RUN) as sandbox:
        with pytest.raises(nabla_linux.SnapshotError, match="mine"):
            sandbox.snapshot(tmp_path / "mine")
        assert (tmp_path / "mine").read_text() == "mine"
    with Sandbox.create(minimal.image, memory="64M", nabla_run=NABLA_RUN) as sandbox:
        sandbox.commands.run("mount -t tmpfs x /sbin")
        with pytest.raises(nabla_linux.SandboxError, match="nabla-snapshot"):
            sandbox.snapshot(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_guest_cannot_change_a_snapshot_later(testing: Vm, tmp_path: Path) -> None:
    """It has the file in which it saved itself for as long as it runs, but not the copy."""
    with Sandbox.create(testing.image, memory="128M", nabla_run=NABLA_RUN) as sandbox:
        sandbox.files.write("/tmp/x", "good")
        file = sandbox.snapshot(tmp_path / "s.snap")
        before = file.read_bytes()
        saved = sandbox._machine.saved
        with saved.open("r+b") as stream:  # what a hostile guest does by its descriptor
            stream.write(b"\xff" * 8192)
        assert file.read_bytes() == before
        assert file.stat().st_ino != saved.stat().st_ino


def test_fork(sandbox: nabla_linux.Sandbox) -> None:
    """Forks have all variables and programs, and diverge. The original continues."""
    sandbox.run_code("x = [1]")
    forks = sandbox.fork(3)
    try:
        for number, each in enumerate(forks):
            each.run_code(f"x.append({number})")
        sandbox.run_code("x.append('parent')")
        assert [each.run_code("x").text for each in forks] == ["[1, 0]", "[1, 1]", "[1, 2]"]
        assert sandbox.run_code("x").text == "[1, 'parent']"
        assert len({each.run_code("import os; os.urandom(8)").text for each in forks}) == 3
        (again,) = forks[0].fork()
        with again:
            assert again.run_code("x").text == "[1, 0]"
    finally:
        for each in forks:
            each.kill()


CODE = {
    "value": ("1 + 1", ("2", "", "", None)),
    "none": ("print('a'); None", ("", "a\n", "", None)),
    "statements": ("def f(n):\n    return n * 2\nf(3)", ("6", "", "", None)),
    "children": ("import os\nos.system('echo out; echo err >&2')\n", ("0", "out\n", "err\n", None)),
    "exception": ("print('a')\n1 / 0", ("", "a\n", "", 'File "<code>", line 2, in <module>')),
    "syntax": ("def", ("", "", "", "SyntaxError")),
    "exit": ("import sys\nsys.exit(3)", ("", "", "", "SystemExit: 3")),
    "no text": ("import os; os.write(1, b'\\xff'); '\\udc80'", ("'\\udc80'", "�", "", None)),
    "input": ("input()", ("", "", "", "EOFError")),
    "empty": ("", ("", "", "", None)),
    "not the value of an assignment": ("y = 5", ("", "", "", None)),
}


@pytest.mark.parametrize("name", CODE)
def test_code(name: str, sandbox: nabla_linux.Sandbox) -> None:
    code, (text, stdout, stderr, error) = CODE[name]
    result = sandbox.run_code(code)
    assert (result.text, result.stdout, result.stderr) == (text, stdout, stderr)
    assert error in result.error if error else not result.error


def test_large_code_and_output(sandbox: nabla_linux.Sandbox) -> None:
    result = sandbox.run_code(f"text = {'x' * 300_000!r}\nprint(text * 3)\nlen(text)")
    assert (result.text, len(result.stdout)) == ("300000", 900_001)


def test_code_that_does_not_end(python_image: Path) -> None:
    """Its interpreter ends; the next code has a new one."""
    with Sandbox.create(python_image, memory=MEMORY, nabla_run=NABLA_RUN) as sandbox:
        sandbox.run_code("x = 1")
        with pytest.raises(nabla_linux.SandboxTimeout, match="code did not end"):
            sandbox.run_code("while True: pass", timeout=0.3)
        assert "NameError" in sandbox.run_code("x").error
        with pytest.raises(nabla_linux.ProtocolError, match="interpreter in the guest has ended"):
            sandbox.run_code("import os\nos._exit(0)")
        sandbox.commands.run(interpreter.STOP)
        assert sandbox.run_code("2").text == "2"


def test_an_image_without_python(minimal: Vm) -> None:
    with (
        Sandbox.create(minimal.image, memory="64M", nabla_run=NABLA_RUN) as sandbox,
        pytest.raises(nabla_linux.CommandStartError, match="python3"),
    ):
        sandbox.run_code("1")


def test_warm_python(python_image: Path, cache: Cache) -> None:
    """The first call makes the file; one that does not fit any more is made again."""
    file = nabla_linux.warm_python(python_image, memory=MEMORY, modules=["json", "asyncio"], nabla_run=NABLA_RUN)
    assert file.parent == cache.base / "nabla-linux"
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert nabla_linux.warm_python(python_image, memory=MEMORY, nabla_run=NABLA_RUN) != file, "other modules"
    inode = file.stat().st_ino
    with Sandbox.create(python_image, snapshot=file, nabla_run=NABLA_RUN) as sandbox:
        assert sandbox.run_code("import sys; 'asyncio' in sys.modules").text == "True"
        assert sandbox.commands.run("sed -n 1p /proc/nabla/snapshot").stdout == "state restored\n"
    again = {"memory": MEMORY, "modules": ["json", "asyncio"], "nabla_run": NABLA_RUN}
    assert nabla_linux.warm_python(python_image, **again).stat().st_ino == inode  # type: ignore[arg-type]
    os.truncate(file, 100_000)
    assert nabla_linux.warm_python(python_image, **again).stat().st_ino != inode  # type: ignore[arg-type]
    file.parent.chmod(0o755)
    with pytest.raises(nabla_linux.SandboxError, match="other users"):
        nabla_linux.warm_python(python_image, nabla_run=NABLA_RUN)


ANSWERS = {
    "nothing": "",
    "no line": "1 1 1 1",
    "too few": "1 1 1\nabc",
    "negative": "-1 1 1 1\nab",
    "too long": "9999999999 0 0 0\nabc",
    "too short": "0 0 0 0\nabc",
    "a number without end": "9" * 100_000 + " 0 0 0\n",
    "other digits": "\u0661 0 0 0\na",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_hostile_interpreter(name: str) -> None:
    """A guest may answer anything."""
    with pytest.raises(nabla_linux.ProtocolError, match="interpreter in the guest"):
        interpreter.decode(nabla_linux.CommandResult(0, ANSWERS[name], ""))
