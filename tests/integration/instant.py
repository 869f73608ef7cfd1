# SPDX-License-Identifier: Apache-2.0
"""VMs that start instantly, with a separate cache."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from .vm import Result, Vm

RESTORED = ("restored", None)


@dataclass(frozen=True)
class Cache:
    """The folder that nabla-run creates in XDG_CACHE_HOME."""

    base: Path

    @property
    def folder(self) -> Path:
        return self.base / "nabla-run"

    def files(self) -> list[Path]:
        """Return the snapshots."""
        return sorted(self.folder.glob("*.snap")) if self.folder.exists() else []

    def only(self) -> Path:
        """Return the only file."""
        (file,) = self.folder.iterdir()
        return file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache, and no variable that forces VMs to boot."""
    base = tmp_path / "caches"
    base.mkdir()
    monkeypatch.delenv("NABLA_COLD", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))
    return Cache(base)


def start_of(result: Result) -> tuple[str, str | None]:
    """Return how a VM with --json has started, and the reason if it booted."""
    report = json.loads(result.errors.splitlines()[-1])
    return report["start"], report["start_reason"]


def start(vm: Vm, *command: str) -> tuple[str, str | None]:
    """Start a VM, assert that it ends well, and return how it has started."""
    result = vm.but(options=(*vm.options, "--json")).run(*(command or ("/bin/true",)))
    assert result.status == 0, result.describe()
    return start_of(result)


def until_instant(vm: Vm, limit: float = 60) -> None:
    """Start VMs until one is restored: an image that was changed a moment ago gets no snapshot."""
    until(lambda: start(vm) == RESTORED, limit)


def until(done: Callable[[], bool], limit: float = 60) -> None:
    deadline = time.monotonic() + limit
    while not done():
        assert time.monotonic() < deadline, "it never happens"
        time.sleep(0.2)
