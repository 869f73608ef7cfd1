# SPDX-License-Identifier: Apache-2.0
"""The committed sums of everything: `doit digests` compares, `doit lock:digests` writes them anew.

packages -> digests:packages -> digests:sbom -+
kernel, rootfs:<released image> -> digests:oci +-> digests, lock:digests -> digests/*.sha256
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from nabla import apk, digests, log, oci, package, sandbox, sbom, sbom_collect, sbom_cyclonedx, sbom_spdx, tasklib
from nabla.artifacts import ARTIFACTS
from nabla.paths import BUSYBOX_BIN, MUSL, NABLA_INIT, NABLA_RUN, OUT, VMLINUX
from nabla.tasklib import Job, TaskDict, Tree
from nabla.tasks import packages, rootfs
from nabla.tasks import sbom as sbom_task
from nabla.tasks.oci import IMAGE

REFERENCE = OUT / "reference"
REPOSITORY = Tree(REFERENCE / "apk")
SBOM = Tree(REFERENCE / "sbom")
ARCHIVE = REFERENCE / oci.ARCHIVE.name

# Group -> what is summed. Headers of the libc are in a package.
GROUPS: dict[str, tuple[Path, ...]] = {
    "kernel": (VMLINUX,),
    "libc": (MUSL / "lib", MUSL / "usr" / "lib"),
    "programs": (BUSYBOX_BIN, NABLA_INIT, NABLA_RUN),
    "packages": (REPOSITORY.path,),
    "images": ARTIFACTS["images"].paths,
    "sbom": (SBOM.path,),
    "oci": (ARCHIVE,),
}
_AFTER = (
    *(task for name in ("kernel", "musl", "busybox", "init", "launcher", "images") for task in ARTIFACTS[name].tasks),
    *("digests:packages", "digests:sbom", "digests:oci"),
)


def task_digests() -> Iterator[TaskDict]:
    """Compare what was built with the committed sums."""
    yield tasklib.step(
        "digests",
        compare,
        doc="compare what was built with the committed sums in digests/",
        after=_AFTER,
        always=True,
    )
    apks = [path for name in package.names() for path in packages.apks(name)]
    yield tasklib.ungrouped(
        tasklib.step(
            "digests:packages",
            unsign,
            doc="all packages and their index without signatures",
            inputs=[packages.TOOLS, *apks],
            outputs=[REPOSITORY],
            after=["packages", "apk:tools"],
            code=[apk, sandbox],
            # apk compresses all of it once more.
            kept=True,
        )
    )
    yield tasklib.ungrouped(
        tasklib.step(
            "digests:sbom",
            write_sbom,
            doc="bills of materials of a version 0, of packages without signatures",
            inputs=[REPOSITORY, sbom_task.SPDX, sbom_task.CYCLONEDX],
            outputs=[SBOM],
            after=["digests:packages", "sbom"],
            code=[sbom, sbom_collect, sbom_cyclonedx, sbom_spdx, sbom_task],
        )
    )
    yield tasklib.ungrouped(
        tasklib.step(
            "digests:oci",
            write_oci,
            doc="the container image of a version 0",
            inputs=[NABLA_RUN, VMLINUX, rootfs.image_path(IMAGE), rootfs.TOOLS],
            outputs=[ARCHIVE],
            after=["launcher", "kernel", f"rootfs:{IMAGE}", "rootfs:tools"],
            code=[oci, apk, sandbox],
        )
    )


def lock_steps() -> Iterator[TaskDict]:
    """Yield `lock:digests`, one of the group `lock`."""
    yield tasklib.step(
        "lock:digests",
        renew,
        doc="write the sums of what was built to digests/; commit them with the change that causes them",
        after=_AFTER,
        always=True,
    )


def unsign(job: Job) -> None:
    """Copy all packages, take their signatures off, index them."""
    apks = [path for name in package.names() for path in packages.apks(name)]
    apk.unsigned(apks, job.out(REPOSITORY), tools=packages.TOOLS.path, log=job.log)


def write_sbom(job: Job) -> None:
    """Write both documents as the task `sbom` does, about the same files but the signed ones."""
    usual = sbom_task.usual_inputs(digests.VERSION)
    inventory = sbom_collect.collect(dataclasses.replace(usual, repository=REPOSITORY.path))
    target = job.out(SBOM)
    target.mkdir()
    (target / sbom_task.SPDX.name).write_text(sbom_spdx.write(inventory), encoding="utf-8")
    (target / sbom_task.CYCLONEDX.name).write_text(sbom_cyclonedx.write(inventory), encoding="utf-8")


def write_oci(job: Job) -> None:
    """Write the archive as the task `oci` does."""
    layout = job.scratch() / "layout"
    oci.make(digests.VERSION, NABLA_RUN, VMLINUX, rootfs.image_path(IMAGE), layout, tools=rootfs.TOOLS.path)
    oci.archive(layout, job.out(ARCHIVE))


def compare(job: Job) -> None:
    """Fail where a sum is not the committed one."""
    count = digests.check(_sums())
    job.note(f"{count} sums as committed")
    log.info(f"{count} files have the sums that this commit promises")


def renew(job: Job) -> None:
    """Write all sums."""
    changed = 0
    for group, found in _sums().items():
        for line in digests.write(group, found):
            changed += 1
            job.note(line)
            log.info(line)
    log.info(f"{changed} sums changed" if changed else "digests/: nothing changed")


def _sums() -> dict[str, dict[str, str]]:
    return {group: digests.sums(paths) for group, paths in GROUPS.items()}
