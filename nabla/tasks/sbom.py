# SPDX-License-Identifier: Apache-2.0
"""Bills of materials in both usual forms, and the texts of all licences.

kernel, musl, busybox, launcher, init, packages, rootfs:<released image>
    -> sbom -> out/sbom/nabla.spdx.json, nabla.cdx.json, licenses.md, licenses/<component>/…
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nabla import (
    base,
    deb,
    licenses,
    lockfile,
    package,
    recipe,
    rootfs,
    sbom,
    sbom_base,
    sbom_collect,
    sbom_cyclonedx,
    sbom_spdx,
    tasklib,
)
from nabla import version as release_version
from nabla.artifacts import RELEASED_IMAGES
from nabla.paths import BUSYBOX, BUSYBOX_BIN, IMAGES, MUSL, NABLA_INIT, NABLA_RUN, OUT, ROOT, VMLINUX
from nabla.tasklib import Job, TaskDict, Tree
from nabla.tasks.fetch import record_path as source_record
from nabla.tasks.packages import apks

SBOM = OUT / "sbom"
SPDX = SBOM / "nabla.spdx.json"
CYCLONEDX = SBOM / "nabla.cdx.json"
TEXTS = Tree(SBOM / "licenses")
REPORT = SBOM / "licenses.md"
BASE = "alpine-base"

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
    names = package.names()
    recipes = sorted({*names, *sbom_collect.FIXED, BASE})
    loaded = [recipe.load(name) for name in recipes]
    remote = [each for each in loaded if any(source.local is None for source in each.source)]
    return tasklib.step(
        "sbom",
        write,
        doc="bills of materials (SPDX, CycloneDX), checked by their validators, and the texts of all licences",
        inputs=[
            *(FILES[name] for name in ("linux", "nabla-init", "nabla-run")),
            *(Tree(MUSL), Tree(BUSYBOX)),
            *(IMAGES / f"{name}.ext3" for name in RELEASED_IMAGES),
            *(package.record_path(name) for name in names),
            *(path for name in names for path in apks(name)),
            *(source_record(each.name) for each in remote),
            *(each.path for each in loaded),
            *(patch for each in loaded for patch in each.patches),
            *(ROOT / "LICENSE", lockfile.LOCK),
        ],
        outputs=[SPDX, CYCLONEDX, TEXTS, REPORT],
        after=[
            *("kernel", "musl", "busybox", "init", "launcher", "packages", "fetch:buildroot"),
            *(f"rootfs:{name}" for name in RELEASED_IMAGES),
            *(f"fetch:{each.name}" for each in remote),
        ],
        config=list(RELEASED_IMAGES),
        checks=[same_version],
        code=[base, deb, licenses, rootfs, sbom, sbom_base, sbom_collect, sbom_cyclonedx, sbom_spdx],
    )


def same_version(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: the documents are about the present version. git is asked only when it matters."""
    try:
        return bool(json.loads(SPDX.read_bytes())["name"] == f"{sbom.NAME}-{release_version.version()}")
    except (OSError, ValueError, KeyError):
        return False


def usual_inputs(version: str) -> sbom_collect.Inputs:
    """Return what the inventory of this checkout is made of: everything below out/."""
    return sbom_collect.Inputs(
        version=version,
        files=FILES,
        images={name: IMAGES / f"{name}.ext3" for name in RELEASED_IMAGES},
        repository=package.REPOSITORY,
        built={name: package.read_record(name) for name in package.names()},
    )


def write(job: Job) -> None:
    """Collect what there is, write and check both documents, and the texts."""
    inventory = sbom_collect.collect(usual_inputs(release_version.version()))
    # Reading archives lets another thread run; the schema's check takes as long.
    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(licenses.write, inventory, job.out(TEXTS))
        job.out(SPDX).write_text(sbom_spdx.write(inventory), encoding="utf-8")
        job.out(CYCLONEDX).write_text(sbom_cyclonedx.write(inventory), encoding="utf-8")
        job.out(REPORT).write_text(page.result(), encoding="utf-8")
    job.note(
        f"{len(inventory.components)} components, {len(inventory.sources)} sources, {len(inventory.patches)} patches"
    )
