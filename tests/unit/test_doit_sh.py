# SPDX-License-Identifier: Apache-2.0
"""The bootstrap script, run for real in copies of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nabla.core.paths import cache_dir
from tests.conftest import ROOT

# The programs that the script calls, all part of every Debian.
_BASIC = ("sh", "dirname", "id", "cat", "stat", "sha256sum", "mkdir", "rm", "tail", "flock", "env", "ls")

_CORE = ("doit==", "msgspec==", "ptyprocess==", "tqdm==")


def copy(tmp_path: Path) -> Path:
    """A checkout in a path with a space."""
    root = tmp_path / "a check out"
    root.mkdir()
    for name in ("doit.sh", "dodo.py", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / "nabla", root / "nabla", ignore=shutil.ignore_patterns("__pycache__", "*tasks.py"))
    shutil.copytree(ROOT / "verify", root / "verify", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("demo", "nabla/testing"):
        (root / name).mkdir()
        (root / name / "__init__.py").touch()
    (root / "nabla/testing/tasks.py").write_text(
        "from nabla.engine.task import step\n"
        "def task_hello():\n"
        "    return step('hello', hello, doc='say it', always=True)\n"
        "def hello(job):\n"
        "    print('hello from', job.name)\n"
    )
    return root


def doit_sh(root: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "doit.sh", *words],
        cwd="/",
        env={**os.environ, **variables},
        text=True,
        capture_output=True,
        check=False,
    )


# The interpreter itself, not a wrapper script of a version manager.
PYTHON = str(Path(sys.base_prefix) / "bin" / "python3")


def tools(tmp_path: Path, *names: str) -> str:
    """A PATH with some programs only."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in (*_BASIC, *names):
        path = shutil.which(name)
        assert path is not None
        (folder / name).symlink_to(path)
    return str(folder)


@pytest.mark.parametrize(("absent", "package"), [("bwrap", "bubblewrap"), ("gpgv", "gpgv")])
def test_missing_program_without_apt(tmp_path: Path, absent: str, package: str) -> None:
    path = tools(tmp_path, *{"bwrap", "gpgv"} - {absent})
    result = doit_sh(copy(tmp_path), "hello", PATH=path, PYTHON=PYTHON)
    assert result.returncode == 2
    assert f"error: this host lacks: {package}\n" in result.stderr
    assert "hint:" in result.stderr


def test_what_only_tests_need(tmp_path: Path) -> None:
    path = tools(tmp_path, "bwrap", "gpgv")
    result = doit_sh(copy(tmp_path), "test", PATH=path, PYTHON=PYTHON)
    assert result.returncode == 2
    lacking = result.stderr.partition("error: this host lacks: ")[2].splitlines()[0].split()
    assert {"strace", "passt", "chromium", "umoci", "openssh-client"} <= set(lacking)
    assert not {"bubblewrap", "gpgv"} & set(lacking)


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="this host has no apt")
def test_missing_program_for_an_ordinary_user(tmp_path: Path) -> None:
    path = tools(tmp_path, "gpgv", "apt-get")
    ordinary = tmp_path / "tools" / "id"
    ordinary.unlink()
    ordinary.write_text("#!/bin/sh\necho 1000\n")
    ordinary.chmod(0o755)
    result = doit_sh(copy(tmp_path), "hello", PATH=path, PYTHON=PYTHON)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: this host lacks: bubblewrap",
        "hint: run: sudo apt-get install -y --no-install-recommends bubblewrap",
    ]


def test_python_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\ncase $* in *version_info*) exit 1 ;; -V) echo Python 3.9.2 ;; esac\n")
    old.chmod(0o755)
    result = doit_sh(copy(tmp_path), "hello", PYTHON=str(old))
    assert result.returncode == 2
    assert "Python 3.11 or later is needed" in result.stderr
    assert "Python 3.9.2" in result.stderr


def test_offline_with_an_empty_cache(tmp_path: Path) -> None:
    result = doit_sh(copy(tmp_path), "--offline", "hello", NABLA_CACHE=str(tmp_path / "cache"))
    assert result.returncode == 2
    assert "error: the Python packages of requirements.txt are not in" in result.stderr


def shorten(lock: Path) -> None:
    """Reduce the lock to the packages that doit and nabla's core need: installing all of them takes a minute."""
    entries = re.split(r"^(?=[a-z])", lock.read_text(), flags=re.MULTILINE)
    lock.write_text("".join(entry for entry in entries if entry.startswith(_CORE)))
    assert lock.read_text().count("==") == len(_CORE)


@pytest.mark.usefixtures("user_cache")
def test_makes_its_environment_once_and_again_when_moved(tmp_path: Path) -> None:
    assert (cache_dir() / "wheels").is_dir(), "the wheels are not in the cache; hint: ./doit.sh puts them there"
    root = copy(tmp_path)
    shorten(root / "requirements.txt")
    first = doit_sh(root, "--offline", "hello", NABLA_CACHE=str(cache_dir()))
    assert first.returncode == 0, first.stderr
    assert "creating the virtual environment" in first.stderr
    assert "hello from hello" in first.stdout
    second = doit_sh(root, "hello", NABLA_CACHE=str(cache_dir()))
    assert "making" not in second.stderr
    # The environment's own doit works too, from another shell.
    inside = subprocess.run(
        [root / "out/venv/bin/doit", "hello"], cwd=root, text=True, capture_output=True, check=False
    )
    assert "hello from hello" in inside.stdout
    moved = root.rename(tmp_path / "moved")
    third = doit_sh(moved, "--offline", "hello", NABLA_CACHE=str(cache_dir()))
    assert "creating the virtual environment" in third.stderr
    assert third.returncode == 0
