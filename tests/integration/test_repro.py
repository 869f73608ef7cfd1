# SPDX-License-Identifier: Apache-2.0
"""A second build, with every variation that this host supports, gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nabla.core.artifacts import ARTIFACTS
from nabla.repro import second_build
from nabla.repro.tasks import compare_all, compared
from tests.results import run_once


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sample_is_identical(tmp_path: Path) -> None:
    """Kernel, libc, programs, every package, the index, images and everything built from them.

    Of the cached steps only a sample runs again; the keys select it, so a changed step is drawn again. `doit repro`
    repeats all, as does a workflow each week. One test for all artifacts: two would build twice.
    """
    run_once("a sample of a second build", lambda: _build_a_sample(tmp_path), tmp_path, Path(__file__))


def _build_a_sample(folder: Path) -> None:
    artifacts = list(ARTIFACTS.values())
    second = second_build.prepare()
    try:
        # Shuffled folders make compiling too slow for each change; `doit repro` includes them.
        second.build(
            [task for artifact in artifacts for task in artifact.tasks], folder / "log", shuffle=False, sample=True
        )
        lines = compare_all(artifacts, second)
    finally:
        second_build.discard(second)
    assert len(lines) == sum(len(compared(artifact)) for artifact in artifacts)
