# SPDX-License-Identifier: Apache-2.0
"""Tell what of the host is missing or unusual, with a hint for each: `doit doctor`.

The checks themselves are in nabla/doctor.py.
"""

from __future__ import annotations

from nabla import doctor, log
from nabla.errors import HostError
from nabla.tasklib import TaskDict, guard


def task_doctor() -> TaskDict:
    """Check the host."""
    return {
        "basename": "doctor",
        "doc": "tell what of the host is missing or unusual",
        "actions": [guard(examine)],
        "uptodate": [False],
        "verbosity": 2,
    }


def examine() -> None:
    """Show one line for each check; raises `HostError` when something needed is missing."""
    findings = doctor.examine()
    for finding in findings:
        log.info(f"{finding.level.value:9} {finding.name}: {finding.text}")
        if finding.hint and finding.level is not doctor.Level.GOOD:
            log.info(f"          {finding.hint}")
    missing = [finding.name for finding in findings if finding.level is doctor.Level.MISSING]
    if missing:
        raise HostError(f"this host lacks: {', '.join(missing)}", "the lines above say what to do")
