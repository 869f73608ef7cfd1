# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: a clean environment for every test, and a small checkout of the build system to run doit in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nabla.core import paths

ROOT = Path(__file__).resolve().parent.parent

# Before the fixtures clear the environment.
_USER_CACHE = paths.cache_dir()

# Variables for clients of package archives and for a terminal; all others of the caller's environment are removed.
_KEPT = ("PATH", "HOME", "TERM", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NABLA_COLD")
_KEPT_PREFIXES = ("PIP_", "PYTEST_", "http", "HTTP", "no_proxy", "NO_PROXY")


def pytest_configure() -> None:
    """Restore signals that nohup or a shell's background job made this process ignore. Have all VMs boot.

    With an empty NABLA_COLD in the environment, they start instantly if they can.
    """
    os.environ.setdefault("NABLA_COLD", "1")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that none of them runs alone at the end. Mark tests by their fixtures."""
    for item in items:
        if "user_cache" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.buildroot)
        if "checkout" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.doit)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def wait_for_lock(pids: Sequence[int], limit: float = 60) -> int:
    """Wait until one of these processes waits for a lock that another process holds; returns it."""
    deadline = time.monotonic() + limit
    while True:
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "->" and int(words[5]) in pids:
                return int(words[5])
        assert time.monotonic() < deadline, f"none of the processes {pids} waits for a lock"
        time.sleep(0.01)


def has_ended(pid: int, limit: float = 20) -> bool:
    """Wait until a process has ended; a zombie has."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="session")
def user_cache() -> Path:
    """The user's own cache, with the build roots, downloads and results of a build. Other tests see an empty one."""
    return _USER_CACHE


@pytest.fixture(autouse=True)
def clean_environment(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Remove every variable that could change a result; hide the user's cache from tests that do not name it."""
    for name in list(os.environ):
        if name not in _KEPT and not name.startswith(_KEPT_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NABLA_STORE", "off")
    if not any(request.node.get_closest_marker(name) for name in ("vm", "buildroot", "online")):
        monkeypatch.setenv("NABLA_CACHE", str(tmp_path_factory.getbasetemp() / "empty cache"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty download cache."""
    folder = tmp_path / "download cache"
    monkeypatch.setenv("NABLA_CACHE", str(folder))
    return folder


@dataclass
class Checkout:
    """A copy of the build system without the project's recipes and tasks, for tests that run doit."""

    root: Path

    def task_module(self, name: str, text: str) -> None:
        """Write nabla/testing/<name>_tasks.py."""
        (self.root / "nabla" / "testing" / f"{name}_tasks.py").write_text(text)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the checkout."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def popen(self, *words: str, prefix: Sequence[str] = (), **variables: str) -> subprocess.Popen[str]:
        """Start doit as a user would, not quietly as in tests; `prefix` is a command that starts commands."""
        inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "doit", *words],
            cwd=self.root,
            env={**inherited, **variables},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def doit(self, *words: str, status: int = 0, **variables: str) -> str:
        """Run doit to its end, check its exit status, return its output."""
        with self.popen(*words, **variables) as process:
            output, _ = process.communicate(timeout=1200)
        assert process.returncode == status, output
        return output


@pytest.fixture
def checkout(tmp_path: Path, cache: Path) -> Iterator[Checkout]:
    """A checkout in a path with a space, with an empty cache."""
    root = tmp_path / "a checkout"
    root.mkdir()
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    # With the compiled modules: they are valid as long as a module has the same time and size.
    shutil.copytree(ROOT / "nabla", root / "nabla", ignore=shutil.ignore_patterns("*tasks.py"))
    for name in ("demo", "nabla/testing"):
        (root / name).mkdir()
        (root / name / "__init__.py").touch()
    (root / "recipes").mkdir()
    yield Checkout(root)
