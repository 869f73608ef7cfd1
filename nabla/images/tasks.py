# SPDX-License-Identifier: Apache-2.0
"""Disk images of the guest, each described in rootfs/<name>.toml.

fetch:alpine-base -> rootfs:tools (mke2fs, debugfs, e2fsck of Alpine) ---+
fetch:<recipe>, musl, busybox, init, what else the description names ----+-> rootfs:<name> -> out/images/<name>.ext3
packages:<recipe> of what it says to install, and of what that needs ----+
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from nabla.core import files
from nabla.core.artifacts import APK_TOOLS, BASE, IMAGE_TOOLS, PUBLIC_KEY, Tree, image_path, package_record
from nabla.core.paths import BUSYBOX, MUSL, NABLA_INIT, ROOT
from nabla.engine import task
from nabla.engine.task import Job, TaskDict
from nabla.fs import ext3, nodes
from nabla.images import compose, descriptions, install
from nabla.images.descriptions import Description
from nabla.packages import apk, catalog
from nabla.sandbox import bwrap
from nabla.sources import fetch, recipe
from nabla.sources.records import record_path

# Part of an image -> what it is made from, and the task that makes that.
_PARTS: dict[str, tuple[Path | Tree, str]] = {
    "init": (NABLA_INIT, "init:install"),
    "musl": (Tree(MUSL), "musl:install"),
    "busybox": (Tree(BUSYBOX), "busybox:install"),
}


def task_rootfs() -> Iterator[TaskDict]:
    """Build the disk images of the guest."""
    yield task.group("rootfs", "build the disk images of the guest")
    yield task.step(
        "rootfs:tools",
        make_tools,
        doc="take the programs that make images out of the Alpine base",
        inputs=[record_path(BASE)],
        outputs=[IMAGE_TOOLS],
        after=[f"fetch:{BASE}"],
        code=[nodes, ext3],
    )
    for name in descriptions.names():
        yield _image_step(name, descriptions.load(name))


def make_tools(job: Job) -> None:
    """Fill the folder that is the root of the sandbox in which images are made."""
    ext3.make_tools(fetch.fetch(recipe.load(BASE).source[0]), job.out(IMAGE_TOOLS))


def make_image(job: Job, name: str) -> None:
    """Compose the tree of one image and write it."""
    description = descriptions.load(name)
    tree = compose.compose(description, job.note, functools.partial(_install, job, description))
    job.note(f"{len(tree)} entries")
    geometry = ext3.Geometry(description.bytes, description.uuid, description.hash_seed, description.name)
    ext3.write(tree, geometry, job.out(image_path(name)), tools=IMAGE_TOOLS.path, scratch=job.scratch(), log=job.log)


def _install(job: Job, description: Description, tree: nodes.Tree) -> nodes.Tree:
    scratch = job.scratch() / "packages"
    done = install.install(
        tree,
        description.packages,
        description.parts or (),
        tools=APK_TOOLS.path,
        scratch=scratch,
        log=job.log,
    )
    files.remove(scratch)
    return done


def _image_step(name: str, description: Description) -> TaskDict:
    parts = [_PARTS[part] for part in description.parts or ()]
    built = [(Tree(ROOT / tree.source), tree.task) for tree in description.tree]
    recipes = description.recipes()
    inputs: list[Path | Tree] = [IMAGE_TOOLS, *description.sources(), *(thing for thing, _ in (*parts, *built))]
    inputs += [record_path(each) for each in recipes]
    after = ["rootfs:tools", *(task for _, task in (*parts, *built)), *(f"fetch:{each}" for each in recipes)]
    code: list[ModuleType] = [nodes, compose, ext3, descriptions, bwrap]
    if description.packages:
        inputs += [APK_TOOLS, PUBLIC_KEY]
        after += ["apk:tools", "apk:key"]
        code += [apk, catalog, install]
        for each in install.recipes_for(description.packages, description.parts or ()):
            inputs += [package_record(each), *catalog.apks(each)]
            after.append(f"packages:{each}")
    return task.step(
        f"rootfs:{name}",
        make_image,
        doc=description.summary,
        inputs=inputs,
        outputs=[image_path(name)],
        after=after,
        config=description.config(),
        code=code,
        args=[name],
    )
