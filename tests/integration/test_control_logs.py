# SPDX-License-Identifier: Apache-2.0
"""`nabla logs`: what nabla-run keeps of a named VM's output, also if the guest or the reader is hostile."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from .launcher import OWN_ERROR
from .named import ANSWER, ASK, ASK_LOGS, CLIENT, frame, named, until
from .vm import Vm

BAD_INPUT = 2
KEPT = 256 << 10


def logs(vm_env: dict[str, str]) -> bytes:
    return subprocess.run([CLIENT, "logs", "vm"], env=vm_env, capture_output=True, check=True, timeout=60).stdout


def test_both_streams(minimal: Vm, tmp_path: Path) -> None:
    """They go to their readers, too; programs that clients run are not in them."""
    script = "echo out; sleep 0.1; echo err >&2; sleep 100000"
    with named(minimal.argv("sh", "-c", script), tmp_path) as vm:
        until(lambda: b"err\n" in logs(vm.env))
        vm.check("echo from a client")
        assert logs(vm.env) == b"out\nerr\n"
        vm.nabla("kill", "vm")
        assert vm.process.stdout is not None
        assert vm.process.stdout.read() == b"out\n"


def test_the_last_part_is_kept(minimal: Vm, tmp_path: Path) -> None:
    script = "i=100000; while [ $i -lt 160000 ]; do echo $i; i=$((i + 1)); done; echo end; sleep 100000"
    with named(minimal.argv("sh", "-c", script), tmp_path) as vm:
        assert vm.process.stdout is not None
        while vm.process.stdout.readline() != b"end\n":
            pass
        everything = b"".join(b"%d\n" % number for number in range(100000, 160000)) + b"end\n"
        assert logs(vm.env) == everything[-KEPT:]


def test_while_the_guest_floods(minimal: Vm, tmp_path: Path) -> None:
    """A log is a piece of what was written, however fast that changes; nobody waits."""
    line = b"0123456789abcdef0123456789abcde\n"
    words = minimal.argv("sh", "-c", f"yes {line.decode().strip()}")
    with open(os.devnull, "wb") as null, named(words, tmp_path, stdout=null) as vm:
        until(lambda: len(logs(vm.env)) > KEPT // 2)
        for _ in range(20):
            tail = logs(vm.env)
            assert len(tail) <= KEPT
            whole, _, rest = tail[tail.find(b"\n") + 1 :].rpartition(b"\n")
            assert set(whole.split(b"\n")) <= {line.strip(), b""}
            assert line.startswith(rest)
        assert vm.nabla("stats", "vm").returncode == 0


def test_a_reader_that_does_not_read(minimal: Vm, tmp_path: Path) -> None:
    """It neither stops the VM nor other clients."""
    script = "head -c 400000 /dev/zero; echo; while :; do echo more; sleep 0.05; done"
    with (tmp_path / "out").open("wb") as out, named(minimal.argv("sh", "-c", script), tmp_path, stdout=out) as vm:
        until(lambda: len(logs(vm.env)) > KEPT - 1000)
        stuck = [vm.connect() for _ in range(20)]
        for each in stuck:
            each.send(frame(ASK, bytes([ASK_LOGS])))
        before = len(logs(vm.env))
        assert before <= KEPT
        size = (tmp_path / "out").stat().st_size
        until(lambda: (tmp_path / "out").stat().st_size > size + 20)
        assert vm.check("echo answer") == "answer\n"
        assert stuck[0].expect(ANSWER) == b"\1"


def test_a_terminal_is_not_kept(minimal: Vm, tmp_path: Path) -> None:
    own, other = pty.openpty()
    with named(minimal.argv("sleep", "100000"), tmp_path, stdout=other, stderr=other) as vm:
        result = vm.nabla("logs", "vm")
        assert result.returncode == OWN_ERROR
        assert result.stderr == (
            "nabla: VM vm writes to a terminal, and nothing is kept (start it with its output to a file or a pipe)\n"
        )
    os.close(own)
    os.close(other)


def test_control_characters_on_a_terminal(minimal: Vm, tmp_path: Path) -> None:
    script = r"printf 'a\033]0;title\007b\tc\n'; sleep 100000"
    with named(minimal.argv("sh", "-c", script), tmp_path) as vm:
        until(lambda: logs(vm.env).endswith(b"c\n"))
        assert logs(vm.env) == b"a\x1b]0;title\x07b\tc\n"
        own, other = pty.openpty()
        subprocess.run([CLIENT, "logs", "vm"], env=vm.env, stdout=other, check=True, timeout=60)
        os.close(other)
        assert os.read(own, 1000) == b"a?]0;title?b?c\r\n"
        os.close(own)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no VM given (nabla ps lists them)"),
        (["a", "b"], "unexpected argument 'b' (nabla logs NAME)"),
        (["../a"], "'../a' is not the name of a VM (nabla ps lists the names)"),
    ],
)
def test_errors_in_words(words: list[str], message: str, tmp_path: Path) -> None:
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    result = subprocess.run([CLIENT, "logs", *words], env=env, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (BAD_INPUT, f"nabla: {message}\n")
