# SPDX-License-Identifier: Apache-2.0
"""A second, different build gives the same bytes. What is slow has `doit repro:kernel` and `:packages` instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla import paths, repro
from nabla.artifacts import ARTIFACTS
from nabla.repro import DifferenceError, SecondBuild

CACHE = paths.cache_dir()


@pytest.fixture(scope="module")
def second() -> Iterator[SecondBuild]:
    """The other checkout; removed at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLA_CACHE", str(CACHE))
        yield repro.prepare()
        repro.discard()


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("name", [name for name in ARTIFACTS if name not in ("kernel", "packages")])
def test_identical(second: SecondBuild, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NABLA_CACHE", str(CACHE))  # each test loses its environment
    artifact = ARTIFACTS[name]
    second.build(artifact.tasks, tmp_path / "log")
    assert len(second.sums(artifact.paths)) == len(artifact.paths)


def test_one_byte_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: a file in a tree, and the mode of one, make a difference that is named."""
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        (root / "out" / "tree").mkdir(parents=True)
        (root / "out" / "tree" / "file").write_text("same")
    monkeypatch.setattr(repro, "ROOT", one)
    build = SecondBuild(other)
    assert build.sums([one / "out" / "tree"])
    (other / "out" / "tree" / "file").chmod(0o600)
    with pytest.raises(DifferenceError, match=r"out/tree/file"):
        build.sums([one / "out" / "tree"])
    (other / "out" / "tree" / "file").chmod(0o644)
    (other / "out" / "tree" / "file").write_text("some")
    with pytest.raises(DifferenceError, match=r"out/tree/file"):
        build.sums([one / "out" / "tree", one / "out" / "tree" / "file"])
