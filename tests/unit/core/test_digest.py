# SPDX-License-Identifier: Apache-2.0
"""Digests: always correct, safely cached."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from nabla.core import digest, manifest


@pytest.fixture(autouse=True)
def own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "STATE", tmp_path / "state")
    monkeypatch.setattr(digest, "_local", threading.local())


def test_like_sha256sum(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3_000_000))
    expected = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert digest.sha256_file(path) == manifest.file_sha256(path) == expected


def test_every_change_is_seen(tmp_path: Path) -> None:
    """Same size, same mtime, in quick succession: programs cannot set the change time."""
    path = tmp_path / "file"
    for number in range(300):
        data = f"{number:06}".encode()
        path.write_bytes(data)
        os.utime(path, (0, 0))
        assert digest.sha256_file(path) == hashlib.sha256(data).hexdigest()


def test_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    time.sleep(0.1)
    first = digest.sha256_file(path)
    monkeypatch.setattr(manifest, "file_sha256", lambda path: pytest.fail("read again"))
    assert digest.sha256_file(path) == first


def test_manifest(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    (root / "b" / "file").write_text("content")
    (root / "b" / "file").chmod(0o755)
    (root / "b").chmod(0o700)
    (root / "a link").symlink_to("b/file")
    content = hashlib.sha256(b"content").hexdigest()
    assert manifest.manifest(root).splitlines() == ["l - - a link -> b/file", "d 700 - b", f"f 755 {content} b/file"]


@pytest.mark.parametrize("change", ["content", "mode", "name", "link", "new"])
def test_tree_digest_sees_every_kind_of_change(tmp_path: Path, change: str) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").write_text("content")
    (root / "link").symlink_to("folder")
    before = digest.tree_digest(root)
    match change:
        case "content":
            (root / "folder" / "file").write_text("CONTENT")
        case "mode":
            (root / "folder" / "file").chmod(0o600)
        case "name":
            (root / "folder" / "file").rename(root / "folder" / "elif")
        case "link":
            (root / "link").unlink()
            (root / "link").symlink_to("redlof")
        case "new":
            (root / "folder" / "empty").mkdir()
    assert digest.tree_digest(root) != before


def test_python_digest_ignores_what_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "code.py"

    def of(text: str) -> str:
        path.write_text(text)
        return digest.python_digest(path)

    first = of('"""Doc."""\ndef f(x):\n    """Doc."""\n    return x + 1\n')
    assert of("# comment\ndef f( x ):\n\n    return x+1\n") == first
    assert of("def f(x):\n    return x + 2\n") != first


def test_configuration_digest() -> None:
    assert digest.config_digest({"a": 1, "b": [2]}) == digest.config_digest({"b": [2], "a": 1})
    assert digest.config_digest({"a": 1}) != digest.config_digest({"a": "1"})
    with pytest.raises(TypeError):
        digest.config_digest({"a": Path("x")})


def test_absent_path(tmp_path: Path) -> None:
    assert digest.path_digest(tmp_path / "absent") is None
    (tmp_path / "file").write_text("")
    assert digest.path_digest(tmp_path / "file" / "below") is None


def test_works_without_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_text("in the way")
    (tmp_path / "file").write_text("x")
    assert digest.sha256_file(tmp_path / "file") == hashlib.sha256(b"x").hexdigest()


def test_settled_tree_is_the_same_under_any_umask(tmp_path: Path) -> None:
    digests = []
    before = os.umask(0o022)
    try:
        for mask in (0o022, 0o077, 0o002):
            os.umask(mask)
            root = tmp_path / f"{mask:o}"
            (root / "folder").mkdir(parents=True)
            for name in ("folder/file", "program"):
                (root / name).write_text("text")
            manifest.normalize_metadata(root, 10**9, {root / "program"})
            digests.append(manifest.digest(root))
            assert {path.stat().st_mtime for path in (root, *root.rglob("*"))} == {1e9}
    finally:
        os.umask(before)
    assert len(set(digests)) == 1
    assert (root / "program").stat().st_mode & 0o777 == root.stat().st_mode & 0o777 == 0o755
    assert (root / "folder/file").stat().st_mode & 0o777 == 0o644
