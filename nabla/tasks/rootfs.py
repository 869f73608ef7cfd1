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

from nabla import apk, base, compose, fetch, image, package, package_install, recipe, rootfs, sandbox, tasklib
from nabla.paths import BUSYBOX, IMAGES, MUSL, NABLA_INIT, ROOT, WORK
from nabla.rootfs import Description
from nabla.tasklib import Job, TaskDict, Tree
from nabla.tasks import packages
from nabla.tasks.fetch import record_path

TOOLS = Tree(WORK / "image-tools")
BASE = "alpine-base"  # the recipe whose programs make the images, also those that have another base

# Part of an image -> what it is made from, and the task that makes that.
_PARTS: dict[str, tuple[Path | Tree, str]] = {
    "init": (NABLA_INIT, "init:install"),
    "musl": (Tree(MUSL), "musl:install"),
    "busybox": (Tree(BUSYBOX), "busybox:install"),
}


def image_path(name: str) -> Path:
    """Return the image of that name in out/images."""
    return IMAGES / f"{name}.ext3"


def task_rootfs() -> Iterator[TaskDict]:
    """Build the disk images of the guest."""
    yield tasklib.group("rootfs", "build the disk images of the guest")
    yield tasklib.step(
        "rootfs:tools",
        make_tools,
        doc="take the programs that make images out of the Alpine base",
        inputs=[record_path(BASE)],
        outputs=[TOOLS],
        after=[f"fetch:{BASE}"],
        code=[base, image],
    )
    for name in rootfs.names():
        yield _image_step(name, rootfs.load(name))


def make_tools(job: Job) -> None:
    """Fill the folder that is the root of the sandbox in which images are made."""
    image.make_tools(fetch.fetch(recipe.load(BASE).source[0]), job.out(TOOLS))


def make_image(job: Job, name: str) -> None:
    """Compose the tree of one image and write it."""
    description = rootfs.load(name)
    tree = compose.compose(description, job.note, functools.partial(_install, job, description))
    job.note(f"{len(tree)} entries")
    geometry = image.Geometry.of(description)
    image.write(tree, geometry, job.out(image_path(name)), tools=TOOLS.path, scratch=job.scratch(), log=job.log)


def _install(job: Job, description: Description, tree: base.Tree) -> base.Tree:
    scratch = job.scratch() / "packages"
    done = package_install.install(
        tree,
        description.packages,
        description.parts or (),
        tools=packages.TOOLS.path,
        scratch=scratch,
        log=job.log,
    )
    tasklib.remove(scratch)
    return done


def _image_step(name: str, description: Description) -> TaskDict:
    parts = [_PARTS[part] for part in description.parts or ()]
    built = [(Tree(ROOT / tree.source), tree.task) for tree in description.tree]
    recipes = description.recipes()
    inputs: list[Path | Tree] = [TOOLS, *description.sources(), *(thing for thing, _ in (*parts, *built))]
    inputs += [record_path(each) for each in recipes]
    after = ["rootfs:tools", *(task for _, task in (*parts, *built)), *(f"fetch:{each}" for each in recipes)]
    code: list[ModuleType] = [base, compose, image, rootfs, sandbox]
    if description.packages:
        inputs += [packages.TOOLS, packages.PUBLIC_KEY]
        after += ["apk:tools", "apk:key"]
        code += [apk, package, package_install]
        for each in package_install.recipes_for(description.packages, description.parts or ()):
            inputs += [package.record_path(each), *packages.apks(each)]
            after.append(f"packages:{each}")
    return tasklib.step(
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
