# SPDX-License-Identifier: Apache-2.0
"""The report about the artifacts, an HTML page.

kernel, launcher, client, runtime, packages, rootfs:<released image>, verify:<released image>, oci, sbom, digests:*,
bench/results -> report -> out/report/index.html
"""

from __future__ import annotations

from nabla.core import artifacts
from nabla.core.artifacts import Tree
from nabla.core.paths import BUSYBOX, MUSL, NABLA, NABLA_INIT, NABLA_OCI, NABLA_RUN, VMLINUX
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
        doc="write out/report/index.html: the artifacts and the results of all checks, as one page",
        inputs=[
            *(VMLINUX, NABLA_RUN, NABLA, NABLA_OCI, artifacts.INDEX),
            *(artifacts.image_path(name) for name in artifacts.RELEASED_IMAGES),
            *(
                path
                for name in artifacts.RELEASED_IMAGES
                for path in artifacts.verify_reports(name)
                if path.suffix == ".json"
            ),
            *(artifacts.package_record(each.name) for each in packages),
            *(path for each in packages for path in catalog.apks(each)),
            *inputs.FURTHER.values(),
            *(digests.file_of(group) for group in artifacts.DIGEST_GROUPS),
            *(
                Tree(MUSL),
                Tree(BUSYBOX),
                NABLA_INIT,
                artifacts.REFERENCE_REPOSITORY,
                artifacts.REFERENCE_SBOM,
                artifacts.REFERENCE_OCI,
            ),
            *(recipe.load(name).path for name in inputs.components()),
            *(model.POLICY, document.RATES),
            *(benchmarks.BUILD, benchmarks.BOOT, benchmarks.LATENCY, benchmarks.NETWORK, benchmarks.UPSTREAM),
            benchmarks.BUSYBOX,
            *task.source_files(html.TEMPLATES),
        ],
        outputs=[artifacts.REPORT],
        checks=[inputs.same_version],
    )
