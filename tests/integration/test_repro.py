# SPDX-License-Identifier: Apache-2.0
"""A second build, with every variation that this host supports, gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nabla.core import paths
from nabla.core.artifacts import ARTIFACTS
from nabla.repro import second_build
from nabla.repro.tasks import compare_all, compared

CACHE = paths.cache_dir()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sample_is_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernel, libc, programs, every package, the index, images and everything built from them.

    Of the cached steps only a sample runs again; the keys select it, so a changed step is drawn again. `doit repro`
    repeats all, as does a workflow each week. One test for all artifacts: two would build twice.
    """
    monkeypatch.setenv("NABLA_CACHE", str(CACHE))
    artifacts = list(ARTIFACTS.values())
    second = second_build.prepare()
    try:
        # Shuffled folders make compiling too slow for each change; `doit repro` includes them.
        second.build(
            [task for artifact in artifacts for task in artifact.tasks], tmp_path / "log", shuffle=False, sample=True
        )
        lines = compare_all(artifacts, second)
    finally:
        second_build.discard(second)
    assert len(lines) == sum(len(compared(artifact)) for artifact in artifacts)
