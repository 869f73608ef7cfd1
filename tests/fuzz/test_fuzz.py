# SPDX-License-Identifier: Apache-2.0
"""A few seconds of each fuzzer, from fixed seeds, and all findings of fuzzers so far. `doit fuzz` runs longer."""

from __future__ import annotations

import pytest

from nabla.commands import fuzzing

from .engine import CRASHES, Finding, for_rounds, run, stored, verdict
from .fuzzers import FUZZERS

ROUNDS = {
    "calls": 4,
    "families": 3,
    "exec": 3,
    "frames": 2,
    "trace": 3,
    "disks": 4,
    "snapshots": 2,
    "headers": 2,
    "lists": 2,
    "wires": 3,
    "shares": 3,
    "bundles": 2,
    "control": 3,
    "agent": 2,
    "sessions": 2,
    "denials": 3,
    "sandboxes": 2,
    "trees": 3,
    "elves": 2,
    "archives": 3,
    "descriptions": 3,
    "entries": 2,
    "rebuilds": 2,
}

pytestmark = pytest.mark.vm


@pytest.mark.parametrize("name", FUZZERS)
def test_some_rounds(name: str) -> None:
    findings = [finding for _, finding in run(FUZZERS[name], 1, for_rounds(ROUNDS[name])) if finding]
    assert not findings, "\n".join(finding.text() for finding in findings)


def test_stored_findings_stay_fixed() -> None:
    findings = [finding for name, seed in stored() if (finding := FUZZERS[name].round(seed))]
    assert not findings, "\n".join(finding.text() for finding in findings)


def test_every_fuzzer_is_a_task() -> None:
    assert tuple(FUZZERS) == fuzzing.NAMES
    assert set(ROUNDS) == set(FUZZERS)


def test_every_file_is_read() -> None:
    assert {path.suffix for path in CRASHES.iterdir()} <= {".toml", ".md"}


@pytest.mark.parametrize(
    ("status", "output", "what"),
    [
        (125, "Kernel panic: Attempted to kill init!\n", "Kernel panic: Attempted to kill init!"),
        (124, "", "the VM does not end"),
        (159, "", "the VM made a forbidden host call"),
        (139, "", "exit status 139"),
        (
            0,
            "x\nWARNING: CPU: 0 PID: 21 at mm/nommu.c:1\n",
            "the kernel warns: WARNING: CPU: 0 PID: 21 at mm/nommu.c:1",
        ),
    ],
)
def test_verdicts(status: int, output: str, what: str) -> None:
    """A fuzzer that notices nothing is useless."""
    finding = verdict("calls", 7, status, output)
    assert isinstance(finding, Finding)
    assert (finding.what, finding.seed) == (what, 7)


def test_a_good_end_is_no_finding() -> None:
    assert verdict("calls", 7, 0, "calls: 4 processes\n") is None
