# SPDX-License-Identifier: Apache-2.0
"""Check programs, in images and by themselves, by verify/pie.py and verify/syscalls.py."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from nabla.core.artifacts import Tree, image_path, verify_reports
from nabla.core.errors import VerifyError
from nabla.core.paths import BUSYBOX, MUSL, NABLA, NABLA_INIT, NABLA_OCI, NABLA_RUN, relative
from nabla.engine.action import Job
from verify import contents, pie, report, syscalls

# The components that are checked before they go into an image.
COMPONENTS = (Tree(MUSL), Tree(BUSYBOX), NABLA_INIT, NABLA_RUN, NABLA, NABLA_OCI)


def check_image(job: Job, name: str) -> None:
    """Step: write the reports about an image; fail on a program that is not position-independent.

    Raw system calls work, but slowly: they are reported and do not fail the check.
    """
    files = contents.read(image_path(name))
    programs = pie.examine_all(files)
    calls = syscalls.examine_all(files)
    texts = (
        *(pie.as_table(programs), report.as_json([asdict(each) for each in programs]), pie.as_junit(programs)),
        *(syscalls.as_table(calls), report.as_json([asdict(each) for each in calls]), syscalls.as_junit(calls)),
    )
    bad = [each for each in programs if each.problems]
    unread = [each for each in calls if each.problem]
    job.note("\n".join((texts[0], texts[3])))
    for path, text in zip(verify_reports(name), texts, strict=True):
        job.out(path).write_text(text + "\n", encoding="utf-8")
    if bad or unread:
        first = f"{bad[0].path}: {', '.join(bad[0].problems)}" if bad else f"{unread[0].path}: {unread[0].problem}"
        hint = f"{len(bad)} of {len(programs)} programs, see {relative(job.log)}"
        raise VerifyError(f"{relative(image_path(name))}: {first}", hint)


def check_pie(job: Job) -> None:
    """Step: fail if a program is not position-independent; the log lists all programs."""
    paths = [item.path if isinstance(item, Tree) else item for item in COMPONENTS]
    findings = [pie.examine(file) for path in paths for file in pie.find(path)]
    rows = [[relative(Path(f.path)), f.kind, ", ".join(f.problems) or "ok"] for f in findings]
    job.note(report.table(["file", "kind", "result"], rows))
    bad = [row for row, finding in zip(rows, findings, strict=True) if finding.problems]
    if bad:
        raise VerifyError(f"{bad[0][0]}: {bad[0][2]}", f"{len(bad)} of {len(rows)} files, see {relative(job.log)}")
