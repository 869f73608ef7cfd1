# SPDX-License-Identifier: Apache-2.0
"""Releases: `doit release` assembles one, `doit verify:release` checks one, `doit sources` archives all inputs.

launcher, kernel, packages, rootfs:<released image>, oci, sbom, report -> release -> out/release/<version>
fetch -> sources -> out/sources/nabla-sources-<version>.tar
release, fetch -> check:sources -> out/check/sources.json
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.core.artifacts import RELEASED_IMAGES, image_path
from nabla.engine import task
from nabla.engine.task import TaskDict
from nabla.release import archive_check, contents, source_archive
from verify.release.layout import keys_dir


def task_release() -> TaskDict:
    """Assemble the release."""
    images = [image_path(name) for name in RELEASED_IMAGES]
    return task.step(
        "release",
        contents.make,
        doc="assemble all artifacts with sums, provenance and signatures in out/release/<version>",
        inputs=[*contents.files().values(), *images, *contents.FOLDERS.values()],
        outputs=[contents.folder()],
        config=str(keys_dir()),
        checks=[contents.same_origin],
    )


def task_sources() -> TaskDict:
    """Write an archive of all sources."""
    return task.command(
        "sources",
        write_sources,
        doc="write one archive with every source, patch, build root package and wheel; it builds offline",
        after=["fetch"],
    )


def write_sources() -> None:
    """Write the archive to out/sources. Raises `NablaError` if an input is missing."""
    source_archive.write()


def check_steps() -> Iterator[TaskDict]:
    """Yield the task `check:sources`, which builds everything and does not belong to the group."""
    yield task.ungrouped(
        task.step(
            "check:sources",
            archive_check.check,
            doc="build the release from the archive of all sources alone, as on a new machine, and compare every byte",
            inputs=[contents.folder()],
            outputs=[archive_check.RECORD],
            after=["fetch"],
            config=str(keys_dir()),
        )
    )
