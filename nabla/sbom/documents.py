# SPDX-License-Identifier: Apache-2.0
"""The bills of materials of this checkout: their inputs, both documents, and the texts of all licenses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nabla.core import artifacts
from nabla.core import version as release_version
from nabla.core.paths import BUSYBOX_BIN, IMAGES, MUSL, NABLA, NABLA_INIT, NABLA_OCI, NABLA_RUN, VMLINUX
from nabla.engine.action import Job
from nabla.packages import catalog
from nabla.sbom import collect, cyclonedx, inventory, licenses, spdx, vex

# Recipe -> its file in a release.
FILES: Mapping[str, Path] = {
    "linux": VMLINUX,
    "musl": MUSL / "lib" / "ld-musl-x86_64.so.1",
    "busybox": BUSYBOX_BIN,
    "nabla-init": NABLA_INIT,
    "nabla-run": NABLA_RUN,
    "nabla": NABLA,
    "nabla-oci": NABLA_OCI,
}


def same_version(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: the documents are about the present version. Only this task runs git."""
    try:
        return bool(json.loads(artifacts.SPDX.read_bytes())["name"] == f"{inventory.NAME}-{release_version.version()}")
    except (OSError, ValueError, KeyError):
        return False


def usual_inputs(version: str) -> collect.Inputs:
    """Return the inputs of this checkout's inventory, below out/."""
    return collect.Inputs(
        version=version,
        files=FILES,
        images={name: IMAGES / f"{name}.ext3" for name in artifacts.RELEASED_IMAGES},
        repository=artifacts.REPOSITORY,
        built={name: catalog.read_build_record(name) for name in catalog.names()},
    )


def write(job: Job) -> None:
    """Step: collect the inventory, write and validate both documents, write the texts."""
    inventory = collect.collect(usual_inputs(release_version.version()))
    # Reading archives releases the GIL; the validation takes as long.
    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(licenses.write, inventory, job.out(artifacts.LICENSE_TEXTS))
        job.out(artifacts.SPDX).write_text(spdx.write(inventory), encoding="utf-8")
        job.out(artifacts.CYCLONEDX).write_text(cyclonedx.write(inventory), encoding="utf-8")
        bill = job.out(artifacts.CYCLONEDX)
        stated = vex.write_known(bill, job.out(artifacts.OPENVEX), job.out(artifacts.VEX_CYCLONEDX))
        job.out(artifacts.LICENSE_LIST).write_text(page.result(), encoding="utf-8")
    job.note(
        f"{len(inventory.components)} components, {len(inventory.sources)} sources, {len(inventory.patches)} patches, "
        f"{stated} statements about vulnerabilities"
    )


def write_reference(job: Job) -> None:
    """Step: write both documents about the same files, with unsigned packages."""
    usual = usual_inputs(artifacts.REFERENCE_VERSION)
    inventory = collect.collect(dataclasses.replace(usual, repository=artifacts.REFERENCE_REPOSITORY.path))
    target = job.out(artifacts.REFERENCE_SBOM)
    target.mkdir()
    (target / artifacts.SPDX.name).write_text(spdx.write(inventory), encoding="utf-8")
    (target / artifacts.CYCLONEDX.name).write_text(cyclonedx.write(inventory), encoding="utf-8")
