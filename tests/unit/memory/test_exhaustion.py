# SPDX-License-Identifier: Apache-2.0
"""What the check of exhausted memory accepts."""

from __future__ import annotations

import pytest

from tests.memory import exhaustion
from tests.memory.exhaustion import ExhaustionError


def test_report() -> None:
    outcome = exhaustion.parse("key", "round 7: forks\nmixed: worst answer 412 ms, 3 starts refused, 0 rounds failed\n")
    assert (outcome.worst, outcome.refused, outcome.failed) == (412, 3, 0)


def test_failed_rounds() -> None:
    with pytest.raises(ExhaustionError, match="2 of 1000 rounds failed"):
        exhaustion.parse("key", "mixed: worst answer 412 ms, 3 starts refused, 2 rounds failed\n")


def test_without_a_report() -> None:
    with pytest.raises(ExhaustionError, match="the rounds ended without a report"):
        exhaustion.parse("key", "Killed\n")
