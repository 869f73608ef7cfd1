# SPDX-License-Identifier: Apache-2.0
"""nabla.core.version on real repositories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nabla.core.errors import ConfigError
from nabla.core.version import commit, has_history, is_modified, version

_WHO = ("-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false")


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", root, *_WHO, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit, in a path with a space."""
    root = tmp_path / "a checkout"
    root.mkdir()
    _git(root, "init", "-q")
    _git(root, "commit", "-q", "--allow-empty", "-m", "first")
    return root


def test_tag_on_this_commit(repository: Path) -> None:
    _git(repository, "tag", "v1.2.3")
    assert version(repository) == "1.2.3"


def test_annotated_tag_with_a_suffix(repository: Path) -> None:
    _git(repository, "tag", "-a", "v2.0.0-rc1", "-m", "candidate")
    assert version(repository) == "2.0.0-rc1"


def test_tag_on_an_earlier_commit(repository: Path) -> None:
    _git(repository, "tag", "v1.2.3")
    _git(repository, "commit", "-q", "--allow-empty", "-m", "second")
    assert version(repository) == "1.2.3-dev"


def test_no_tag_of_a_version(repository: Path) -> None:
    _git(repository, "tag", "vienna")
    _git(repository, "tag", "v1.x.y")
    assert version(repository) == "0.0.0-dev"


def test_no_repository(repository: Path) -> None:
    """Not even that of a parent folder."""
    inner = repository / "copy"
    inner.mkdir()
    _git(repository, "tag", "v1.2.3")
    assert not has_history(inner)
    assert version(inner) == "0.0.0-dev"
    assert commit(inner) is None
    assert not is_modified(inner)


def test_no_commit_yet(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    assert version(tmp_path) == "0.0.0-dev"
    assert commit(tmp_path) is None


def test_no_git_program(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _git(repository, "tag", "v1.2.3")
    monkeypatch.setenv("PATH", "/nowhere")
    assert version(repository) == "0.0.0-dev"
    assert has_history(repository)


def test_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit(repository) == _git(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("NABLA_COMMIT", "0" * 40)
    assert commit(repository) == "0" * 40


def test_modified(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_modified(repository)
    (repository / "file").write_text("new")
    assert is_modified(repository)
    monkeypatch.setenv("NABLA_COMMIT", "0" * 40)
    assert not is_modified(repository)


def test_given_version_comes_first(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _git(repository, "tag", "v1.2.3")
    monkeypatch.setenv("NABLA_VERSION", "9.8.7")
    assert version(repository) == "9.8.7"


@pytest.mark.parametrize("text", ["v1.2.3", "1.2", "../../etc", "1.2.3 ", "1.2.3-", "latest"])
def test_given_version_must_be_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes the name of a folder."""
    monkeypatch.setenv("NABLA_VERSION", text)
    with pytest.raises(ConfigError, match="NABLA_VERSION"):
        version()


def test_given_commit_must_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NABLA_COMMIT", "main")
    with pytest.raises(ConfigError, match="NABLA_COMMIT"):
        commit()
