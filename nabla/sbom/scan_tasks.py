# SPDX-License-Identifier: Apache-2.0
"""Compare what is shipped with databases of vulnerabilities: `doit scan FILE… [--json] [--sbom FILE]`.

out/sbom/nabla.cdx.json, apk:tools (it compares versions), the user's files -> scan -> a table, exit status 0 or 1
"""

from __future__ import annotations

import json
from pathlib import Path

from doit.exceptions import BaseFail, TaskFailed

from nabla.core.artifacts import APK_TOOLS, CYCLONEDX
from nabla.core.paths import relative
from nabla.engine import task
from nabla.engine.task import TaskDict
from nabla.sbom import advisories, scan
from nabla.sbom.version_order import ApkOrder
from verify import report

PARAMS = [
    {"name": "json", "long": "json", "type": bool, "default": False, "help": "print JSON instead of a table"},
    {
        "name": "sbom",
        "long": "sbom",
        "type": str,
        "default": "",
        "help": "a CycloneDX document of a release",
    },
]


def task_scan() -> TaskDict:
    """Look for known vulnerabilities."""
    return task.command(
        "scan",
        compare,
        doc="compare what is shipped with databases of vulnerabilities (OSV, Alpine's secdb): doit scan FILE…",
        after=["apk:tools"],
        params=PARAMS,
        words="files",
    )


def compare(json: bool, sbom: str, files: list[str]) -> BaseFail | None:
    """Print the findings; fail (status 1) if a vulnerability is open."""
    found = show(Path(sbom) if sbom else CYCLONEDX, files, as_json=json)
    return TaskFailed(f"{len(found)} known vulnerabilities are open") if found else None


def show(bill: Path, files: list[str], *, as_json: bool) -> list[scan.Finding]:
    """Print the result for people or programs and return what is open. Raises `ScanError`."""
    subjects = scan.read_bill(bill)
    result = scan.match(subjects, advisories.read([Path(file) for file in files]), ApkOrder(APK_TOOLS.path))
    if as_json:
        print(json.dumps(result.data(), indent=1, sort_keys=True))
        return result.open
    if result.findings:
        head = ["status", "vulnerability", "component", "version", "fixed in", "packages, or our patches"]
        print(report.table(head, [_row(finding) for finding in result.findings]))
    for sentence in result.unknown:
        print(f"not evaluated: {sentence}")
    counts = ", ".join(f"{count} {name}" for name, count in sorted(result.counts.items()))
    print(f"{relative(bill)}: {counts}")
    return result.open


def _row(finding: scan.Finding) -> list[str]:
    what = " ".join(finding.patches or finding.packages)
    return [finding.status, finding.id, finding.component, finding.version, " ".join(finding.repair), what]
