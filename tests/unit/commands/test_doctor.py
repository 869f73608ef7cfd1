# SPDX-License-Identifier: Apache-2.0
"""The checks of the host, on this host and on hosts made odd by namespaces and mounts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nabla.commands import doctor
from nabla.commands.doctor import Level
from tests.conftest import ROOT


def test_every_check_has_a_name_and_tells_something() -> None:
    findings = doctor.examine()
    assert len({finding.name for finding in findings}) == len(findings) == 11
    for finding in findings:
        assert finding.text
        assert finding.level is Level.GOOD or finding.hint


def test_this_host_can_build() -> None:
    needed = {"machine", "seccomp", "sandbox", "Debian archive", "gpgv"}
    assert {f.name for f in doctor.examine() if f.name in needed and f.level is Level.MISSING} == set()


def test_fsgsbase_agrees_with_the_processor() -> None:
    """The instruction itself works, or raises SIGILL."""
    code = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("f3480faec0 c3"))  # rdfsbase %rax; ret
ctypes.CFUNCTYPE(ctypes.c_ulong)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
    status = subprocess.run([sys.executable, "-c", code], check=False).returncode
    assert status in (0, -signal.SIGILL)
    assert (doctor.fsgsbase().level is Level.GOOD) == (status == 0)


def in_odd_host(setup: str, check: str) -> str:
    """Run one check after `setup` in separate user and mount namespaces; return `level: text | hint`."""
    code = (
        f"from nabla.commands import doctor; f = doctor.{check}(); print(f'{{f.level.value}}: {{f.text}} | {{f.hint}}')"
    )
    script = f'{setup}\nexec "$0" -c "$1"'
    result = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", script, sys.executable, code],
        cwd=ROOT,
        env=dict(os.environ),
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_temporary_folder_without_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert in_odd_host(":", "temporary_folder").startswith("ok: ")
    said = in_odd_host(f"mount -t tmpfs -o noexec none '{tmp_path}'", "temporary_folder")
    assert (
        said
        == f"unusual: {tmp_path}: programs cannot run from it | set TMPDIR to a folder on a file system without noexec"
    )


def test_small_shared_memory() -> None:
    said = in_odd_host("mount -t tmpfs -o size=1m none /dev/shm", "shared_memory")
    assert said.startswith("unusual: 1 MiB free | give it at least 64 MiB")


def test_no_tun() -> None:
    assert in_odd_host("mount -t tmpfs none /dev", "tun").startswith("unusual: no /dev/net/tun")


def test_no_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.sandbox() == doctor.Finding(
        "sandbox", Level.MISSING, "bubblewrap is not installed", "apt-get install bubblewrap"
    )
    assert doctor.gpgv().level is Level.MISSING
    assert doctor.debian_archive().level is Level.MISSING


def test_passt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a network without privileges needs it."""
    assert doctor.passt().level is Level.GOOD
    broken = tmp_path / "passt"
    broken.write_text("#!/bin/sh\nexit 3\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.passt() == doctor.Finding(
        "passt", Level.UNUSUAL, "not installed: no --net user, no --publish", "apt-get install passt"
    )
    broken.chmod(0o755)
    assert "passt does not run" in doctor.passt().text


def test_task_ends_with_2_when_something_is_missing(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path)}
    env.pop("PYTEST_CURRENT_TEST", None)
    argv = [sys.executable, "-m", "doit", "doctor"]
    result = subprocess.run(argv, cwd=ROOT, env=env, text=True, capture_output=True, check=False)
    assert result.returncode == 2
    assert "error: this host lacks: sandbox, Debian archive, gpgv" in result.stderr
    assert "missing   gpgv: not installed" in result.stderr
