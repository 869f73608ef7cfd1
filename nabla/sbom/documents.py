# SPDX-License-Identifier: Apache-2.0
"""The bills of materials of this checkout: their inputs, and both documents with the texts of all licenses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nabla.core import version as release_version
from nabla.core.artifacts import (
    CYCLONEDX,
    LICENSE_LIST,
    LICENSE_TEXTS,
    REFERENCE_REPOSITORY,
    REFERENCE_SBOM,
    REFERENCE_VERSION,
    RELEASED_IMAGES,
    REPOSITORY,
    SPDX,
)
from nabla.core.paths import BUSYBOX_BIN, IMAGES, MUSL, NABLA_INIT, NABLA_RUN, VMLINUX
from nabla.engine.action import Job
from nabla.packages import catalog
from nabla.sbom import collect, cyclonedx, inventory, licenses, spdx

# Recipe -> the file that is shipped of it.
FILES: Mapping[str, Path] = {
    "linux": VMLINUX,
    "musl": MUSL / "lib" / "ld-musl-x86_64.so.1",
    "busybox": BUSYBOX_BIN,
    "nabla-init": NABLA_INIT,
    "nabla-run": NABLA_RUN,
}


def same_version(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: the documents are about the present version. git is asked only when it matters."""
    try:
        return bool(json.loads(SPDX.read_bytes())["name"] == f"{inventory.NAME}-{release_version.version()}")
    except (OSError, ValueError, KeyError):
        return False


def usual_inputs(version: str) -> collect.Inputs:
    """Return what the inventory of this checkout is made of: everything below out/."""
    return collect.Inputs(
        version=version,
        files=FILES,
        images={name: IMAGES / f"{name}.ext3" for name in RELEASED_IMAGES},
        repository=REPOSITORY,
        built={name: catalog.read_built(name) for name in catalog.names()},
    )


def write(job: Job) -> None:
    """Step: collect what there is, write and check both documents, and the texts."""
    inventory = collect.collect(usual_inputs(release_version.version()))
    # Reading archives lets another thread run; the schema's check takes as long.
    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(licenses.write, inventory, job.out(LICENSE_TEXTS))
        job.out(SPDX).write_text(spdx.write(inventory), encoding="utf-8")
        job.out(CYCLONEDX).write_text(cyclonedx.write(inventory), encoding="utf-8")
        job.out(LICENSE_LIST).write_text(page.result(), encoding="utf-8")
    job.note(
        f"{len(inventory.components)} components, {len(inventory.sources)} sources, {len(inventory.patches)} patches"
    )


def write_reference(job: Job) -> None:
    """Step: write both documents as the task `sbom` does, about the same files but the signed ones."""
    usual = usual_inputs(REFERENCE_VERSION)
    inventory = collect.collect(dataclasses.replace(usual, repository=REFERENCE_REPOSITORY.path))
    target = job.out(REFERENCE_SBOM)
    target.mkdir()
    (target / SPDX.name).write_text(spdx.write(inventory), encoding="utf-8")
    (target / CYCLONEDX.name).write_text(cyclonedx.write(inventory), encoding="utf-8")
