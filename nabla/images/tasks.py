# SPDX-License-Identifier: Apache-2.0
"""Disk images of the guest, each described in rootfs/<name>.toml.

fetch:alpine-base -> rootfs:tools (mke2fs, debugfs, e2fsck of Alpine) ---+
fetch:<recipe>, musl, busybox, init, other inputs of the description ----+-> rootfs:<name> -> out/images/<name>.ext3
packages:<recipe> of its packages and of their dependencies -------------+
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nabla.core.artifacts import (
    APK_TOOLS,
    BASE,
    IMAGE_TOOLS,
    PUBLIC_KEY,
    Tree,
    image_path,
    package_record,
    source_record,
)
from nabla.core.paths import BUSYBOX, MUSL, NABLA_INIT, ROOT
from nabla.engine import task
from nabla.engine.task import TaskDict
from nabla.fs import alpine_tools
from nabla.images import compose, descriptions, install
from nabla.images.descriptions import Description
from nabla.packages import catalog

# Part of an image -> its files.
_PARTS: dict[str, Path | Tree] = {"init": NABLA_INIT, "musl": Tree(MUSL), "busybox": Tree(BUSYBOX)}


def task_rootfs() -> Iterator[TaskDict]:
    """Build the disk images of the guest."""
    yield task.group("rootfs", "build the disk images of the guest")
    yield task.step(
        "rootfs:tools",
        alpine_tools.make_image_tools,
        doc="extract the programs that write images from the Alpine base",
        inputs=[source_record(BASE)],
        outputs=[IMAGE_TOOLS],
        cacheable=True,
        remote=False,
        repeated=True,
    )
    for name in descriptions.names():
        yield _image_step(descriptions.load(name))


def _image_step(description: Description) -> TaskDict:
    parts = description.parts
    inputs: list[Path | Tree] = [IMAGE_TOOLS, *description.sources(), *(_PARTS[part] for part in parts)]
    inputs += [Tree(ROOT / tree.source) for tree in description.tree]
    inputs += [source_record(each) for each in description.recipes()]
    if description.packages:
        inputs += [APK_TOOLS, PUBLIC_KEY]
        for each in install.recipes_for(description.packages, parts):
            inputs += [package_record(each), *catalog.apks(catalog.load(each))]
    return task.step(
        f"rootfs:{description.name}",
        compose.make_image,
        doc=description.summary,
        inputs=inputs,
        outputs=[image_path(description.name)],
        config=description.config(),
        args=[description.name],
        cacheable=True,
        # Packages are signed by the user's key, which no other machine has.
        remote=False,
        repeated=True,
    )
