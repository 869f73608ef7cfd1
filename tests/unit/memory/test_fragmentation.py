# SPDX-License-Identifier: Apache-2.0
"""Reports that the check of fragmentation accepts."""

from __future__ import annotations

import pytest

from tests.memory import fragmentation
from tests.memory.fragmentation import FragmentationError


@pytest.mark.parametrize(
    ("report", "passed"),
    [
        ("4000 actions, 0 failures; 30 MB free, the largest mapping 15 MB\n", True),
        ("4000 actions, 0 failures; 31 MB free, the largest mapping 15 MB\n", False),
        ("4000 actions, 1 failures; 30 MB free, the largest mapping 29 MB\n", False),
    ],
)
def test_report(report: str, passed: bool) -> None:
    outcome = fragmentation.parse("64M", f"a script with status 11 failed\n{report}")
    assert outcome.actions == 4000
    assert outcome.passed is passed


def test_without_a_report() -> None:
    with pytest.raises(FragmentationError, match="64M: the mixture of programs ended without a report"):
        fragmentation.parse("64M", "Killed\n")
