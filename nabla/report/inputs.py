# SPDX-License-Identifier: Apache-2.0
"""The inputs of this checkout's report, and the step that writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nabla.core import artifacts, version
from nabla.core.paths import NABLA, NABLA_OCI, NABLA_RUN, VMLINUX
from nabla.engine.action import Job
from nabla.packages import catalog
from nabla.release import digests
from nabla.report import render
from nabla.sbom import collect

_MADE_FOR = re.compile(r'<meta name="nabla-version" content="([^"]*)">')
# Path in the release -> file. The report lists size and sum of these files, as it does for the other artifacts.
FURTHER = {
    "bin/nabla": NABLA,
    "bin/nabla-oci": NABLA_OCI,
    "oci/nabla-linux.oci.tar": artifacts.OCI_ARCHIVE,
    "sbom/nabla.spdx.json": artifacts.SPDX,
    "sbom/nabla.cdx.json": artifacts.CYCLONEDX,
}


def same_version(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: the page is about the present version and commit. Only this task runs git."""
    try:
        match = _MADE_FOR.search(artifacts.REPORT.read_text(encoding="utf-8"))
    except OSError:
        return False
    return match is not None and match[1] == render.made_for(version.version(), version.commit())


def usual_inputs() -> render.Inputs:
    """Return the report's inputs in this checkout."""
    return render.Inputs(
        vmlinux=VMLINUX,
        launcher=NABLA_RUN,
        images={name: artifacts.image_path(name) for name in artifacts.RELEASED_IMAGES},
        repository=artifacts.REPOSITORY,
        verified=artifacts.VERIFY_REPORTS,
        built=[catalog.read_build_record(name) for name in catalog.names()],
        further=FURTHER,
        components=components(),
        expected={group: digests.read(group) for group in artifacts.DIGEST_GROUPS},
        sums={group: digests.sums(paths) for group, paths in artifacts.DIGEST_GROUPS.items()},
    )


def write(job: Job) -> None:
    """Step: write the page."""
    render.write(job.out(artifacts.REPORT), version.version(), version.commit(), usual_inputs())


def components() -> list[str]:
    """Return the recipes of all components of a release, sorted."""
    return sorted({*catalog.names(), *collect.FIXED, artifacts.BASE})
