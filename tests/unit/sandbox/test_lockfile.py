# SPDX-License-Identifier: Apache-2.0
"""Requested packages and lock files: refused ones, and the committed ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from nabla.core.errors import LockError
from nabla.sandbox import lockfile
from nabla.sources.apt import DebFile

A = DebFile("a", "1", "amd64", 10, "a" * 64, "pool/main/a/a_1_amd64.deb")
B = DebFile("b", "2", "all", 20, "b" * 64, "pool/main/b/b_2_all.deb")
LOCK = lockfile.Lock("bookworm", "c" * 64, "d" * 64, (A, B))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file"
    path.write_text(text)
    return path


def test_lock_reads_what_it_writes(tmp_path: Path) -> None:
    assert lockfile.read_lock(written(tmp_path, lockfile.render(LOCK))) == LOCK
    assert LOCK.size == 30


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a 1 amd64 10", "a 1 amd64 ten", "file:6: not"),
        ("pool/main/a/", "pool/../main/a/", "file:6: not"),
        ("pool/main/a/", "/etc/", "file:6: not"),
        ("a" * 64, "A" * 64, "file:6: not"),
        ("# tree", "# wood", "no tree"),
        ("a 1 amd64", "c 1 amd64", "not sorted"),
        ("b 2 all", "a 2 all", "twice"),
    ],
)
def test_malformed_lock(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(LockError, match=message):
        lockfile.read_lock(written(tmp_path, lockfile.render(LOCK).replace(old, new)))


def test_absent_lock_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(LockError) as caught:
        lockfile.read_lock(tmp_path / "none")
    assert "lock:update" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("suite = ", "file:1: not valid TOML"),
        ("suite = 3\n[packages]\na = ''", "file:1: suite: expected str"),
        ("suite = 'x'", "the key `packages` is missing"),
        ("suite = 'x'\n[packages]", "packages: "),
        ("[packages]\na = ''", "the key `suite` is missing"),
        ("suite = 'x'\nfoo = 1", "file:2: foo: there is no such key"),
        ("suite = 'x'\n[packages]\na = 1", "packages.*expected str, got int"),
        ("suite = 'x'\n[packages]\na = ''\n[files]\n'/etc/x' = ''", "the value must match"),
        ("suite = 'x'\n[packages]\na = ''\n[links]\n'../x' = ''", "the value must match"),
        ("suite = 'x'\n[packages]\na = ''\n[mounts]\ndirectories = 'x'", "directories: expected array"),
    ],
)
def test_malformed_requirements(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LockError, match=message):
        lockfile.read_requirements(written(tmp_path, text))


def test_reasons_do_not_count(tmp_path: Path) -> None:
    text = "suite = 'x'\n[packages]\na = 'why'"
    requirements = lockfile.read_requirements(written(tmp_path, text))
    assert requirements.digest == lockfile.read_requirements(written(tmp_path, text.replace("why", "because"))).digest
    assert requirements.digest != lockfile.read_requirements(written(tmp_path, text.replace("a =", "b ="))).digest


def test_changes_by_package() -> None:
    newer = dataclasses.replace(B, version="3")
    rebuilt = dataclasses.replace(A, sha256="f" * 64)
    new = dataclasses.replace(LOCK, files=(newer, dataclasses.replace(A, name="c")))
    assert lockfile.changes(LOCK, new) == ["- a 1", "~ b 2 -> 3", "+ c 1"]
    assert lockfile.changes(None, LOCK) == ["+ a 1", "+ b 2"]
    assert lockfile.changes(LOCK, LOCK) == []
    assert "other file" in lockfile.changes(LOCK, dataclasses.replace(LOCK, files=(rebuilt, B)))[0]


def test_requirements_that_extend_others(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("suite = 'x'\n[packages]\na = 'why'\n[mounts]\ndirectories = ['build']")
    requirements = lockfile.read_requirements(
        written(tmp_path, "extends = 'base.toml'\n[packages]\nb = ''\n[links]\nc = 'd'")
    )
    assert requirements == lockfile.Requirements("x", {"a": "why", "b": ""}, {"c": "d"}, {}, ("build",))
    (tmp_path / "set").mkdir()
    above = tmp_path / "set" / "file"
    above.write_text("extends = '../base.toml'\n[packages]\nb = ''\n[links]\nc = 'd'")
    assert lockfile.read_requirements(above) == requirements
    for other in ("'../../base.toml'", "'a/base.toml'", "'file'", "3"):
        with pytest.raises(LockError, match=r"file:1: extends: "):
            lockfile.read_requirements(written(tmp_path, f"extends = {other}\n[packages]\na = ''"))
    with pytest.raises(LockError, match=r"there is no file .*none\.toml"):
        lockfile.read_requirements(written(tmp_path, "extends = 'none.toml'\n[packages]\na = ''"))


@pytest.mark.parametrize("pins", [lockfile.BASE, lockfile.PACKAGING, lockfile.VARY])
def test_committed_files_fit(pins: lockfile.Pins) -> None:
    requirements, lock = lockfile.current(pins)
    assert pins.lock.read_text() == lockfile.render(lock, pins.requirements.name)
    assert set(requirements.packages) <= {file.name for file in lock.files}
    assert all(len(reason) > 3 for reason in requirements.packages.values())


def test_stale_lock_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    _, lock = lockfile.current()
    monkeypatch.setattr(lockfile, "read_lock", lambda path: dataclasses.replace(lock, requirements="0" * 64))
    with pytest.raises(LockError, match="was changed after"):
        lockfile.current()
