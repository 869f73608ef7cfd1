# SPDX-License-Identifier: Apache-2.0
"""Bills of materials in both usual forms, and the texts of all licences.

kernel, musl, busybox, launcher, init, packages, rootfs:<released image>
    -> sbom -> out/sbom/nabla.spdx.json, nabla.cdx.json, licenses.md, licenses/<component>/…
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nabla.core import version as release_version
from nabla.core.artifacts import (
    BASE,
    CYCLONEDX,
    LICENSE_LIST,
    LICENSE_TEXTS,
    REFERENCE_REPOSITORY,
    REFERENCE_SBOM,
    REFERENCE_VERSION,
    RELEASED_IMAGES,
    REPOSITORY,
    SPDX,
    Tree,
    package_record,
)
from nabla.core.paths import BUSYBOX, BUSYBOX_BIN, IMAGES, MUSL, NABLA_INIT, NABLA_RUN, ROOT, VMLINUX
from nabla.engine import task
from nabla.engine.task import Job, TaskDict
from nabla.fs import nodes
from nabla.images import descriptions
from nabla.packages import catalog
from nabla.sandbox import deb, lockfile
from nabla.sbom import apkdb, collect, cyclonedx, inventory, licenses, spdx
from nabla.sources import recipe
from nabla.sources.records import record_path as source_record

# Recipe -> the file that is shipped of it.
FILES: Mapping[str, Path] = {
    "linux": VMLINUX,
    "musl": MUSL / "lib" / "ld-musl-x86_64.so.1",
    "busybox": BUSYBOX_BIN,
    "nabla-init": NABLA_INIT,
    "nabla-run": NABLA_RUN,
}


def task_sbom() -> TaskDict:
    """Write the bills of materials."""
    names = catalog.names()
    recipes = sorted({*names, *collect.FIXED, BASE})
    loaded = [recipe.load(name) for name in recipes]
    remote = [each for each in loaded if any(source.local is None for source in each.source)]
    return task.step(
        "sbom",
        write,
        doc="bills of materials (SPDX, CycloneDX), checked by their validators, and the texts of all licences",
        inputs=[
            *(FILES[name] for name in ("linux", "nabla-init", "nabla-run")),
            *(Tree(MUSL), Tree(BUSYBOX)),
            *(IMAGES / f"{name}.ext3" for name in RELEASED_IMAGES),
            *(package_record(name) for name in names),
            *(path for name in names for path in catalog.apks(name)),
            *(source_record(each.name) for each in remote),
            *(each.path for each in loaded),
            *(patch for each in loaded for patch in each.patches),
            *(ROOT / "LICENSE", lockfile.LOCK),
        ],
        outputs=[SPDX, CYCLONEDX, LICENSE_TEXTS, LICENSE_LIST],
        after=[
            *("kernel", "musl", "busybox", "init", "launcher", "packages", "fetch:buildroot"),
            *(f"rootfs:{name}" for name in RELEASED_IMAGES),
            *(f"fetch:{each.name}" for each in remote),
        ],
        config=list(RELEASED_IMAGES),
        checks=[same_version],
        code=[nodes, deb, licenses, descriptions, inventory, apkdb, collect, cyclonedx, spdx],
    )


def task_digests_sbom() -> Iterator[TaskDict]:
    """Write the bills of materials of the reference form."""
    yield task.ungrouped(
        task.step(
            "digests:sbom",
            write_sbom,
            doc="bills of materials of a version 0, of packages without signatures",
            inputs=[REFERENCE_REPOSITORY, SPDX, CYCLONEDX],
            outputs=[REFERENCE_SBOM],
            after=["digests:packages", "sbom"],
            code=[
                inventory,
                collect,
                cyclonedx,
                spdx,
            ],
        )
    )


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
        built={name: catalog.read_record(name) for name in catalog.names()},
    )


def write(job: Job) -> None:
    """Collect what there is, write and check both documents, and the texts."""
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


def write_sbom(job: Job) -> None:
    """Write both documents as the task `sbom` does, about the same files but the signed ones."""
    usual = usual_inputs(REFERENCE_VERSION)
    inventory = collect.collect(dataclasses.replace(usual, repository=REFERENCE_REPOSITORY.path))
    target = job.out(REFERENCE_SBOM)
    target.mkdir()
    (target / SPDX.name).write_text(spdx.write(inventory), encoding="utf-8")
    (target / CYCLONEDX.name).write_text(cyclonedx.write(inventory), encoding="utf-8")
