# SPDX-License-Identifier: Apache-2.0
"""What the report of this checkout is about, and the step that writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nabla.core import version
from nabla.core.artifacts import (
    BASE,
    CYCLONEDX,
    DIGEST_GROUPS,
    OCI_ARCHIVE,
    RELEASED_IMAGES,
    REPORT,
    REPOSITORY,
    SPDX,
    VERIFY_REPORTS,
    image_path,
)
from nabla.core.paths import NABLA_RUN, VMLINUX
from nabla.engine.action import Job
from nabla.packages import catalog
from nabla.release import digests
from nabla.report import render
from nabla.sbom import collect

_MADE_FOR = re.compile(r'<meta name="nabla-version" content="([^"]*)">')
# Place in the release -> file. They are told with size and sum, as are the artifacts that have a table of their own.
FURTHER = {
    "oci/nabla-linux.oci.tar": OCI_ARCHIVE,
    "sbom/nabla.spdx.json": SPDX,
    "sbom/nabla.cdx.json": CYCLONEDX,
}


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
        built=[catalog.read_built(name) for name in catalog.names()],
        further=FURTHER,
        components=components(),
        expected={group: digests.read(group) for group in DIGEST_GROUPS},
        sums={group: digests.sums(paths) for group, paths in DIGEST_GROUPS.items()},
    )


def write(job: Job) -> None:
    """Step: write the page."""
    render.write(job.out(REPORT), version.version(), version.commit(), usual_inputs())


def components() -> list[str]:
    """Return the recipes of all components of a release, sorted."""
    return sorted({*catalog.names(), *collect.FIXED, BASE})
