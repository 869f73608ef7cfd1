# SPDX-License-Identifier: Apache-2.0
"""The build root: unpacked once, damage detected, no partial tree ever used. Packages are tiny but real."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from nabla.core import manifest
from nabla.core.errors import ChecksumError, LockError, OfflineError
from nabla.sandbox import buildroot, lockfile
from nabla.sources.apt import Apt, DebFile
from tests.unit import debs

REQUIREMENTS = lockfile.Requirements(
    "bookworm", {"one": "", "two": ""}, {"usr/bin/cc": "one"}, {"etc/passwd": "x\n"}, ("build",)
)


@pytest.fixture
def lock(cache: Path, monkeypatch: pytest.MonkeyPatch) -> lockfile.Lock:
    """A lock of two packages, which are in the cache; it is the current one."""
    files = (
        debs.add(cache, "one", debs.deb([debs.member("./bin/one", "1", mode=0o755), debs.member("./etc/one", "1")])),
        debs.add(cache, "two", debs.deb([debs.member("./usr/lib/two", "2")])),
    )
    lock = dataclasses.replace(lockfile.Lock("bookworm", REQUIREMENTS.digest, "", files), tree=_tree(files))
    monkeypatch.setattr(lockfile, "current", lambda pins=lockfile.BASE: (REQUIREMENTS, lock))
    return lock


def _tree(files: tuple[DebFile, ...]) -> str:
    packages = buildroot.fetch(lockfile.Lock("bookworm", REQUIREMENTS.digest, "", files))
    return manifest.digest(buildroot._unpack(REQUIREMENTS, packages))


def test_unpacked_once(lock: lockfile.Lock) -> None:
    root = buildroot.ensure()
    inode = root.stat().st_ino
    assert (root / "bin" / "one").read_text() == "1"
    assert (root / "usr" / "bin" / "cc").read_text() == "1"
    assert (root / "build").is_dir()
    assert buildroot.verify() == []
    assert buildroot.ensure() == root
    assert root.stat().st_ino == inode
    # The remains of a killed unpacking (here: the fixture's tree) are gone.
    assert not list(buildroot.directory().glob("new-*"))


def test_nobody_loses_what_it_is_downloading(lock: lockfile.Lock) -> None:
    """One process unpacks a build root while another one still fetches the packages of the next."""
    left, new = buildroot.directory() / "fetch-left", buildroot.directory() / "fetch-new"
    for folder in (left, new):
        folder.mkdir()
    os.utime(left, (0, 0))
    with buildroot._downloads() as held:
        (held / "lists").touch()
        os.utime(held, (0, 0))
        buildroot.ensure()
        assert (held / "lists").exists()
        assert not left.exists()
        assert new.exists()
    assert not held.exists()


@pytest.mark.parametrize("damage", ["edit", "remove", "add", "mode"])
def test_damage_is_noticed_and_repaired(lock: lockfile.Lock, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = buildroot.ensure()
    victim = root / "etc" / "one"
    match damage:
        case "edit":
            victim.write_text("7")
        case "remove":
            victim.unlink()
        case "add":
            (root / "etc" / "more").touch()
        case "mode":
            victim.chmod(0o755)
    assert not buildroot.intact(lock)
    assert buildroot.verify() == [{"add": "etc/more\n"}.get(damage, "etc/one\n").strip()]
    assert buildroot.ensure() == root
    assert "changed or is incomplete" in capsys.readouterr().err
    assert victim.read_text() == "1"
    assert buildroot.verify() == []


def test_two_processes_unpack_once(lock: lockfile.Lock) -> None:
    with ProcessPoolExecutor(2) as pool:
        first, second = pool.map(_ensure, [(lock)] * 2)
    assert first == second
    assert buildroot.intact(lock)


def _ensure(lock: lockfile.Lock) -> str:
    lockfile.current = lambda pins=lockfile.BASE: (REQUIREMENTS, lock)
    return str(buildroot.ensure())


def test_other_tree_than_locked(lock: lockfile.Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(lock, tree="0" * 64)
    monkeypatch.setattr(lockfile, "current", lambda pins=lockfile.BASE: (REQUIREMENTS, wrong))
    with pytest.raises(LockError, match="the lock says 0000"):
        buildroot.ensure()
    assert not buildroot.root_path(wrong).exists()


def test_two_packages_with_one_path(cache: Path, lock: lockfile.Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = debs.add(cache, "twin", debs.deb([debs.member("./usr/bin/one", "other")]))
    both = dataclasses.replace(lock, files=(*lock.files, twin), tree="1" * 64)
    monkeypatch.setattr(lockfile, "current", lambda pins=lockfile.BASE: (REQUIREMENTS, both))
    with pytest.raises(LockError, match="two packages hold usr/bin/one"):
        buildroot.ensure()


def test_offline_without_a_package(cache: Path, lock: lockfile.Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = lock.files[0].sha256
    path = cache / "sha256" / sha[:2] / sha
    path.write_text("damaged")
    monkeypatch.setenv("NABLA_OFFLINE", "1")
    with pytest.raises(ChecksumError, match="is damaged"):
        buildroot.ensure()
    path.unlink()
    with pytest.raises(OfflineError, match="missing in the cache: 1, first one"):
        buildroot.ensure()


def test_a_damaged_package_is_put_aside_before_it_is_fetched(
    cache: Path, lock: lockfile.Lock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sha = lock.files[0].sha256
    path = cache / "sha256" / sha[:2] / sha
    good = path.read_bytes()
    path.write_text("damaged")

    def download(self: Apt, files: list[DebFile], into: Path) -> None:
        for file in files:
            (into / file.name).write_bytes(good)

    monkeypatch.setattr(Apt, "update", lambda self: None)
    monkeypatch.setattr(Apt, "download", download)
    assert buildroot.fetch(lock)[0].read_bytes() == good
    assert (cache / "damaged" / f"{sha}.1").read_text() == "damaged"
    assert "is fetched again" in capsys.readouterr().err


def test_new_lock_of_the_same_packages_leaves_the_tree_alone(
    lock: lockfile.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build may be running in it."""
    inode = buildroot.ensure().stat().st_ino
    monkeypatch.setattr(Apt, "update", lambda self: None)
    monkeypatch.setattr(Apt, "resolve", lambda self, packages: list(lock.files))
    assert buildroot.resolve(REQUIREMENTS) == lock
    assert buildroot.root_path(lock).stat().st_ino == inode
