# SPDX-License-Identifier: Apache-2.0
"""The report about what was built, as one HTML page.

kernel, launcher, packages, rootfs:<released image>, verify:<released image>, oci, sbom, digests:*, bench/results
    -> report -> out/report/index.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nabla.core import version
from nabla.core.artifacts import (
    BASE,
    CYCLONEDX,
    DIGEST_GROUPS,
    INDEX,
    OCI_ARCHIVE,
    REFERENCE_OCI,
    REFERENCE_REPOSITORY,
    REFERENCE_SBOM,
    RELEASED_IMAGES,
    REPORT,
    REPOSITORY,
    SPDX,
    VERIFY_REPORTS,
    Tree,
    image_path,
    package_record,
    verify_reports,
)
from nabla.core.paths import BUSYBOX, MUSL, NABLA_INIT, NABLA_RUN, VMLINUX
from nabla.engine import task
from nabla.engine.task import Job, TaskDict
from nabla.images import descriptions
from nabla.packages import catalog
from nabla.policy import document, model
from nabla.release import digests
from nabla.report import benchmarks, graph, html, render, tables
from nabla.sbom import collect
from nabla.sources import recipe

_MADE_FOR = re.compile(r'<meta name="nabla-version" content="([^"]*)">')
# Place in the release -> file. They are told with size and sum, as are the artifacts that have a table of their own.
_FURTHER = {
    "oci/nabla-linux.oci.tar": OCI_ARCHIVE,
    "sbom/nabla.spdx.json": SPDX,
    "sbom/nabla.cdx.json": CYCLONEDX,
}


def task_report() -> TaskDict:
    """Write the report."""
    names = catalog.names()
    return task.step(
        "report",
        write,
        doc="write out/report/index.html: what was built and what was found out about it, as one page",
        inputs=[
            *(VMLINUX, NABLA_RUN, INDEX),
            *(image_path(name) for name in RELEASED_IMAGES),
            *(path for name in RELEASED_IMAGES for path in verify_reports(name) if path.suffix == ".json"),
            *(package_record(name) for name in names),
            *(path for name in names for path in catalog.apks(name)),
            *_FURTHER.values(),
            *(digests.file_of(group) for group in DIGEST_GROUPS),
            *(Tree(MUSL), Tree(BUSYBOX), NABLA_INIT, REFERENCE_REPOSITORY, REFERENCE_SBOM, REFERENCE_OCI),
            *(recipe.load(name).path for name in _components()),
            *(model.POLICY, document.RATES),
            *(benchmarks.BUILD, benchmarks.BOOT, benchmarks.LATENCY, benchmarks.NETWORK, benchmarks.UPSTREAM),
            benchmarks.BUSYBOX,
            *task.source_files(html.TEMPLATES),
        ],
        outputs=[REPORT],
        after=[
            *("kernel", "launcher", "packages", "musl", "busybox", "init", "oci", "sbom"),
            *("digests:packages", "digests:sbom", "digests:oci"),
            *(f"rootfs:{name}" for name in RELEASED_IMAGES),
            *(f"verify:{name}" for name in RELEASED_IMAGES),
        ],
        checks=[same_version],
        code=[render, benchmarks, graph, html, tables, descriptions],
    )


def same_version(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: the page is about the present version and commit. git is asked only when it matters."""
    try:
        found = _MADE_FOR.search(REPORT.read_text(encoding="utf-8"))
    except OSError:
        return False
    return found is not None and found[1] == render.made_for(version.version(), version.commit())


def usual_inputs() -> render.Inputs:
    """Return where the report's inputs lie in this checkout."""
    return render.Inputs(
        vmlinux=VMLINUX,
        launcher=NABLA_RUN,
        images={name: image_path(name) for name in RELEASED_IMAGES},
        repository=REPOSITORY,
        verified=VERIFY_REPORTS,
        built=[catalog.read_record(name) for name in catalog.names()],
        further=_FURTHER,
        components=_components(),
        expected={group: digests.read(group) for group in DIGEST_GROUPS},
        sums={group: digests.sums(paths) for group, paths in DIGEST_GROUPS.items()},
    )


def write(job: Job) -> None:
    """Write the page."""
    render.write(job.out(REPORT), version.version(), version.commit(), usual_inputs())


def _components() -> list[str]:
    return sorted({*catalog.names(), *collect.FIXED, BASE})
