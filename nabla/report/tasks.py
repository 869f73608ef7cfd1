# SPDX-License-Identifier: Apache-2.0
"""The report about what was built, as one HTML page.

kernel, launcher, packages, rootfs:<released image>, verify:<released image>, oci, sbom, digests:*, bench/results
    -> report -> out/report/index.html
"""

from __future__ import annotations

from nabla.core.artifacts import (
    DIGEST_GROUPS,
    INDEX,
    REFERENCE_OCI,
    REFERENCE_REPOSITORY,
    REFERENCE_SBOM,
    RELEASED_IMAGES,
    REPORT,
    Tree,
    image_path,
    package_record,
    verify_reports,
)
from nabla.core.paths import BUSYBOX, MUSL, NABLA_INIT, NABLA_RUN, VMLINUX
from nabla.engine import task
from nabla.engine.task import TaskDict
from nabla.packages import catalog
from nabla.policy import document, model
from nabla.release import digests
from nabla.report import benchmarks, html, inputs
from nabla.sources import recipe


def task_report() -> TaskDict:
    """Write the report."""
    packages = catalog.recipes()
    return task.step(
        "report",
        inputs.write,
        doc="write out/report/index.html: what was built and what was found out about it, as one page",
        inputs=[
            *(VMLINUX, NABLA_RUN, INDEX),
            *(image_path(name) for name in RELEASED_IMAGES),
            *(path for name in RELEASED_IMAGES for path in verify_reports(name) if path.suffix == ".json"),
            *(package_record(each.name) for each in packages),
            *(path for each in packages for path in catalog.apks(each)),
            *inputs.FURTHER.values(),
            *(digests.file_of(group) for group in DIGEST_GROUPS),
            *(Tree(MUSL), Tree(BUSYBOX), NABLA_INIT, REFERENCE_REPOSITORY, REFERENCE_SBOM, REFERENCE_OCI),
            *(recipe.load(name).path for name in inputs.components()),
            *(model.POLICY, document.RATES),
            *(benchmarks.BUILD, benchmarks.BOOT, benchmarks.LATENCY, benchmarks.NETWORK, benchmarks.UPSTREAM),
            benchmarks.BUSYBOX,
            *task.source_files(html.TEMPLATES),
        ],
        outputs=[REPORT],
        checks=[inputs.same_version],
    )
