# SPDX-License-Identifier: Apache-2.0
"""The content-addressed store and its locks."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from nabla.core import files, paths
from nabla.core.errors import ChecksumError, DiskFullError, NablaError
from nabla.sources.store import Store
from tests.conftest import wait_for_lock

SHA256 = hashlib.sha256(b"content").hexdigest()


def test_add_and_get(tmp_path: Path) -> None:
    box = Store(tmp_path / "store")
    assert box.get(SHA256, 7) is None
    with box.scratch() as folder:
        file = folder / "new"
        file.write_bytes(b"content")
        placed = box.add(file, SHA256)
    assert placed == box.get(SHA256, 7)
    assert placed.stat().st_mode & 0o777 == 0o444
    assert not folder.exists()


def test_add_from_another_file_system(tmp_path: Path) -> None:
    box = Store(tmp_path / "store")
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at hand")
    file = shm / f"nabla-test-{os.getpid()}"
    file.write_bytes(b"content")
    try:
        assert box.add(file, SHA256).read_bytes() == b"content"
    finally:
        file.unlink()


@pytest.mark.parametrize("damage", [b"Content", b"conten", b""])
def test_damaged_entry(tmp_path: Path, damage: bytes) -> None:
    box = Store(tmp_path / "store")
    path = box.path(SHA256)
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    with pytest.raises(ChecksumError, match="is damaged"):
        box.get(SHA256, 7)
    assert path.read_bytes() == damage


def _hold(path: Path, begun: Path, seconds: float) -> None:
    with files.lock(path, "waiting"):
        begun.write_text("")
        time.sleep(seconds)


def test_lock_ends_with_its_holder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    holder = context.Process(target=_hold, args=(tmp_path / "lock", tmp_path / "begun", 60))
    holder.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    waiter = context.Process(target=_hold, args=(tmp_path / "lock", tmp_path / "second", 0))
    waiter.start()
    wait_for_lock([waiter.pid or 0])
    assert not (tmp_path / "second").exists()
    holder.kill()
    waiter.join(timeout=20)
    assert (tmp_path / "second").exists()
    holder.join()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_has_its_own_error(number: int) -> None:
    with pytest.raises(DiskFullError, match="no room left while writing /x"):
        files.raise_full(OSError(number, os.strerror(number)), Path("/x"))


def test_other_trouble_is_told_as_it_is() -> None:
    with pytest.raises(NablaError, match="cannot write /x: Permission denied"):
        files.raise_full(PermissionError(errno.EACCES, "x"), Path("/x"))


def test_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NABLA_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert paths.cache_dir() == Path("/home/somebody/.cache/nabla")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative is ignored")
    assert paths.cache_dir() == Path("/home/somebody/.cache/nabla")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/mine")
    assert paths.cache_dir() == Path("/var/cache/mine/nabla")
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path))
    assert paths.cache_dir() == tmp_path


def test_importing_paths_touches_nothing() -> None:
    assert paths.ROOT.is_dir()
    assert paths.relative(paths.OUT / "x") == "out/x"
    assert paths.relative(Path("/somewhere/else")) == "/somewhere/else"
