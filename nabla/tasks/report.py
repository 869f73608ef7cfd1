# SPDX-License-Identifier: Apache-2.0
"""The report about what was built, as one HTML page.

kernel, launcher, packages, rootfs:<released image>, verify:<released image>, oci, sbom, digests:*, bench/results
    -> report -> out/report/index.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nabla import (
    apk,
    digests,
    oci,
    package,
    policy,
    policy_page,
    recipe,
    report,
    report_bench,
    report_graph,
    report_page,
    report_tables,
    rootfs,
    sbom_collect,
    tasklib,
    version,
)
from nabla.artifacts import RELEASED_IMAGES
from nabla.paths import BUSYBOX, IMAGES, MUSL, NABLA_INIT, NABLA_RUN, OUT, VMLINUX
from nabla.policy_header import TEMPLATES
from nabla.tasklib import Job, TaskDict, Tree
from nabla.tasks import digests as reference
from nabla.tasks import sbom, verify
from nabla.tasks.packages import apks

PAGE = OUT / "report" / "index.html"
_MADE_FOR = re.compile(r'<meta name="nabla-version" content="([^"]*)">')
# Place in the release -> file. They are told with size and sum, as are the artifacts that have a table of their own.
_FURTHER = {
    "oci/nabla-linux.oci.tar": oci.ARCHIVE,
    "sbom/nabla.spdx.json": sbom.SPDX,
    "sbom/nabla.cdx.json": sbom.CYCLONEDX,
}


def task_report() -> TaskDict:
    """Write the report."""
    names = package.names()
    return tasklib.step(
        "report",
        write,
        doc="write out/report/index.html: what was built and what was found out about it, as one page",
        inputs=[
            *(VMLINUX, NABLA_RUN, apk.INDEX),
            *(IMAGES / f"{name}.ext3" for name in RELEASED_IMAGES),
            *(path for name in RELEASED_IMAGES for path in verify.report_paths(name) if path.suffix == ".json"),
            *(package.record_path(name) for name in names),
            *(path for name in names for path in apks(name)),
            *_FURTHER.values(),
            *(digests.file_of(group) for group in reference.GROUPS),
            *(Tree(MUSL), Tree(BUSYBOX), NABLA_INIT, reference.REPOSITORY, reference.SBOM, reference.ARCHIVE),
            *(recipe.load(name).path for name in _components()),
            *(policy.POLICY, policy_page.RATES),
            *(report_bench.BUILD, report_bench.BOOT, report_bench.LATENCY, report_bench.NETWORK, report_bench.UPSTREAM),
            report_bench.BUSYBOX,
            *tasklib.source_files(TEMPLATES, "report*"),
        ],
        outputs=[PAGE],
        after=[
            *("kernel", "launcher", "packages", "musl", "busybox", "init", "oci", "sbom"),
            *("digests:packages", "digests:sbom", "digests:oci"),
            *(f"rootfs:{name}" for name in RELEASED_IMAGES),
            *(f"verify:{name}" for name in RELEASED_IMAGES),
        ],
        checks=[same_version],
        code=[report, report_bench, report_graph, report_page, report_tables, rootfs],
    )


def same_version(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: the page is about the present version and commit. git is asked only when it matters."""
    try:
        found = _MADE_FOR.search(PAGE.read_text(encoding="utf-8"))
    except OSError:
        return False
    return found is not None and found[1] == report.made_for(version.version(), version.commit())


def usual_inputs() -> report.Inputs:
    """Return where the report's inputs lie in this checkout."""
    return report.Inputs(
        vmlinux=VMLINUX,
        launcher=NABLA_RUN,
        images={name: IMAGES / f"{name}.ext3" for name in RELEASED_IMAGES},
        repository=package.REPOSITORY,
        verified=verify.REPORTS,
        built=[package.read_record(name) for name in package.names()],
        further=_FURTHER,
        components=_components(),
        expected={group: digests.read(group) for group in reference.GROUPS},
        sums={group: digests.sums(paths) for group, paths in reference.GROUPS.items()},
    )


def write(job: Job) -> None:
    """Write the page."""
    report.write(job.out(PAGE), version.version(), version.commit(), usual_inputs())


def _components() -> list[str]:
    return sorted({*package.names(), *sbom_collect.FIXED, sbom.BASE})
