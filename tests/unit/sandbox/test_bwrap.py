# SPDX-License-Identifier: Apache-2.0
"""The sandbox as a build sees it: no host environment, no network, and only its own folder is writable."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nabla.core.errors import CommandError, HostError
from nabla.sandbox import bwrap
from nabla.sandbox.bwrap import Bind, Sandbox
from tests.conftest import ROOT


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> Sandbox:
    """A sandbox with a writable /build and a read-only /src."""
    monkeypatch.setenv("NABLA_CACHE", str(user_cache))
    (tmp_path / "b ü").mkdir()
    (tmp_path / "s").mkdir()
    binds = (Bind(tmp_path / "b ü", "/build", writable=True), Bind(tmp_path / "s", "/src"))
    return Sandbox(binds, {"EXTRA": "1 2"})


def output(sandbox: Sandbox, script: str) -> str:
    return sandbox.run(script, title="test").stdout.strip()


def test_environment_is_fixed(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    before = output(sandbox, "env | sort; id -u; id -gn; umask; pwd; cat /proc/sys/kernel/hostname")
    for name in ("TZ", "CFLAGS", "LD_PRELOAD", "MAKEFLAGS", "SOURCE_DATE_EPOCH", "LANG"):
        monkeypatch.setenv(name, "strange")
    old = os.umask(0o077)
    try:
        after = output(sandbox, "env | sort; id -u; id -gn; umask; pwd; cat /proc/sys/kernel/hostname")
    finally:
        os.umask(old)
    assert after == before
    assert "strange" not in after
    assert after.splitlines()[-5:] == ["1000", "build", "0022", "/build", "build"]
    assert "EXTRA=1 2" in after.splitlines()


def test_only_its_place_is_writable(sandbox: Sandbox, tmp_path: Path) -> None:
    output(sandbox, "echo x > file")
    assert (tmp_path / "b ü" / "file").read_text() == "x\n"
    for path in ("/usr/x", "/src/x", "/etc/x", "/tools/x", "/x"):
        assert output(sandbox, f"touch {path} 2>/dev/null && echo written || echo refused") == "refused"


def test_no_network(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo reached || echo alone"
        assert output(sandbox, f"bash -c '{script}'") == "alone"
    assert output(sandbox, "grep -c : /proc/net/dev") == "1"


def test_no_process_of_the_host_is_seen(sandbox: Sandbox) -> None:
    assert not output(sandbox, f"test -e /proc/{os.getpid()}/stat && grep -l pytest /proc/[0-9]*/cmdline || true")


def test_failure_has_our_title_and_the_programs_words(sandbox: Sandbox, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(CommandError, match=r"^musl: configure failed with exit status 3$") as caught:
        sandbox.run("echo some reason; exit 3", title="musl: configure", log=log)
    assert "some reason" in caught.value.hint
    assert "bwrap" not in caught.value.hint


def test_first_failing_line_ends_the_script(sandbox: Sandbox) -> None:
    with pytest.raises(CommandError):
        sandbox.run("false\ntrue", title="x")
    with pytest.raises(CommandError):
        sandbox.run("echo $UNSET_NAME", title="x")


def test_host_without_bubblewrap(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bwrap._usable.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="bubblewrap is missing") as caught:
        output(sandbox, "true")
    assert "install" in caught.value.hint


def test_host_that_refuses_namespaces(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bwrap._usable.cache_clear()
    program = tmp_path / "bwrap"
    # The message of bubblewrap 0.8 where unprivileged user namespaces are disabled.
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(HostError, match="does not permit the build sandbox: bwrap: No permissions") as caught:
        output(sandbox, "true")
    assert "user namespaces" in caught.value.hint
    bwrap._usable.cache_clear()


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("0", None), ("x", None), ("", None)])
def test_jobs(monkeypatch: pytest.MonkeyPatch, value: str, expected: int | None) -> None:
    monkeypatch.setenv("NABLA_JOBS", value)
    assert bwrap.jobs() == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("asked", [True, False])
def test_shell_where_a_step_fails(sandbox: Sandbox, tmp_path: Path, asked: bool) -> None:
    """On a terminal, and only on request: the state of the failure is available, and the error follows."""
    program = """
import sys
from pathlib import Path
from nabla.core.errors import CommandError
from nabla.sandbox.bwrap import Bind, Sandbox
from tests.conftest import ROOT
sandbox = Sandbox((Bind(Path(sys.argv[1]), "/build", writable=True),), {"EXTRA": "thing"}, shell_command="doit shell x")
try:
    sandbox.run("echo made >file\\nfalse", title="step", log=Path(sys.argv[2]))
except CommandError as error:
    print("ended with", error.returncode, len(error.hint.splitlines()))
"""
    controller, terminal = os.openpty()
    environment = {**os.environ, "TERM": "dumb", **({"NABLA_SHELL": "1"} if asked else {})}
    argv = [sys.executable, "-c", program, str(tmp_path / "b ü"), str(tmp_path / "log")]
    with subprocess.Popen(
        argv, cwd=ROOT, env=environment, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    ):
        os.close(terminal)
        os.write(controller, b"echo $(cat file) $EXTRA > answer; exit 5\n")
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(controller, 4096):
                shown += data
    os.close(controller)
    text = shown.decode(errors="replace")
    assert "ended with 1 " in text
    assert ("error: step failed with exit status 1" in text) == asked
    assert ("the build ends when it does" in text) == asked
    answer = tmp_path / "b ü" / "answer"
    assert (answer.read_text() if answer.exists() else "") == ("made thing\n" if asked else "")
