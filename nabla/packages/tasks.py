# SPDX-License-Identifier: Apache-2.0
"""The repository of packages: recipes with a [package] table, built, packaged, indexed and signed.

fetch:<recipe>, musl, toolchain:packaging, packages:<what it is built against>
    -> packages:<recipe> -> out/packages/<recipe>.json, out/apk/x86_64/*.apk -> apk:index -> out/apk/x86_64/Packages.adb
fetch:alpine-base -> apk:tools (the real apk)      apk:key -> out/apk/keys (the public half of the user's key)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from nabla.build import source_tree
from nabla.core import paths
from nabla.core.artifacts import (
    APK_TOOLS,
    BASE,
    INDEX,
    PUBLIC_KEY,
    REFERENCE_REPOSITORY,
    REPOSITORY,
    Tree,
    package_record,
)
from nabla.core.paths import MUSL, relative
from nabla.engine import task
from nabla.engine.task import Job, TaskDict
from nabla.fs import ext3, nodes
from nabla.packages import apk, builder, catalog, elf, split
from nabla.packages.catalog import PackageError, read_record
from nabla.sandbox import bwrap, lockfile
from nabla.sources import fetch, recipe
from nabla.sources.records import record_path as source_record
from verify import pie


def task_apk() -> Iterator[TaskDict]:
    """Make the package tool, the key and the index."""
    yield task.group("apk", "the real apk, the key that signs, and the index of all packages")
    yield task.step(
        "apk:tools",
        make_tools,
        doc="take apk out of the Alpine base",
        inputs=[source_record(BASE)],
        outputs=[APK_TOOLS],
        after=[f"fetch:{BASE}"],
        code=[apk, nodes, ext3],
    )
    yield task.step(
        "apk:key",
        show_key,
        doc="make the user's key, once; put its public half where images and people find it",
        outputs=[PUBLIC_KEY],
        after=["toolchain:packaging"],
        config=str(paths.keys_dir()),
        checks=[_same_key],
    )
    names = catalog.names()
    yield task.step(
        "apk:index",
        make_index,
        doc="check that packages fit together and write the signed index of all",
        inputs=[APK_TOOLS, PUBLIC_KEY, *(package_record(name) for name in names), *_all_apks()],
        outputs=[INDEX],
        after=["apk:tools", "apk:key", *(f"packages:{name}" for name in names)],
        code=[apk, catalog],
    )


def task_packages() -> Iterator[TaskDict]:
    """Build the packages of the repository."""
    catalog.check_graph()
    yield task.group("packages", "build all packages of the repository and its index", after=["apk:index"])
    for name in catalog.names():
        yield _package_step(name)


def task_digests_packages() -> Iterator[TaskDict]:
    """Write the packages without signatures."""
    apks = [path for name in catalog.names() for path in catalog.apks(name)]
    yield task.ungrouped(
        task.step(
            "digests:packages",
            unsign,
            doc="all packages and their index without signatures",
            inputs=[APK_TOOLS, *apks],
            outputs=[REFERENCE_REPOSITORY],
            after=["packages", "apk:tools"],
            code=[apk, bwrap],
            # apk compresses all of it once more.
            kept=True,
        )
    )


def make_tools(job: Job) -> None:
    """Fill the folder that is the root of apk's sandbox."""
    apk.make_tools(fetch.fetch(recipe.load(BASE).source[0]), job.out(APK_TOOLS))


def show_key(job: Job) -> None:
    """Make sure that there is a key; copy its public half."""
    private, public = apk.ensure_key()
    job.note(f"private key: {private}")
    shutil.copyfile(public, job.out(PUBLIC_KEY))


def make_packages(job: Job, name: str) -> None:
    """Build one recipe, or take what the cache has, and make its package files."""
    built = builder.obtain(job, name)
    wanted = catalog.apks(name)
    made = {part.apk: part for part in built.parts}
    for path in wanted:
        if path not in made:
            raise PackageError(f"{name}: no file is left for the package {path.stem}", "see docs/packages.md")
        files = builder.files_path(built.key, made[path].name)
        scratch = job.scratch() / made[path].name
        apk.make_package(built, made[path], files, job.out(path), tools=APK_TOOLS.path, scratch=scratch, log=job.log)
    for line in builder.describe(built):
        job.note(line)
    job.out(package_record(name)).write_bytes(msgspec.json.format(msgspec.json.encode(built), indent=1) + b"\n")


def unsign(job: Job) -> None:
    """Copy all packages, take their signatures off, index them."""
    apks = [path for name in catalog.names() for path in catalog.apks(name)]
    apk.unsigned(apks, job.out(REFERENCE_REPOSITORY), tools=APK_TOOLS.path, log=job.log)


def make_index(job: Job) -> None:
    """Check all packages against each other, remove files of packages that are no more, write the index."""
    built = [read_record(name) for name in catalog.names()]
    problem = next(catalog.conflicts(built), None)
    if problem:
        raise PackageError(problem, "let one of them leave the file out, or say `replaces`")
    known = elf.alpine_names(fetch.fetch(recipe.load(BASE).source[0]))
    problem = next(catalog.unmet(built, known), None)
    if problem:
        raise PackageError(problem, "add a recipe for it, or leave out what needs it")
    wanted = _all_apks()
    for path in REPOSITORY.glob("*.apk"):
        if path not in wanted:
            job.note(f"removed {relative(path)}: no recipe makes it")
            path.unlink()
    apk.make_index(wanted, job.out(INDEX), tools=APK_TOOLS.path, scratch=job.scratch(), log=job.log)


def _all_apks() -> list[Path]:
    return [path for name in catalog.names() for path in catalog.apks(name)]


def _package_step(name: str) -> TaskDict:
    loaded = recipe.load(name)
    needs = catalog.needs(name)
    remote = any(source.local is None for source in loaded.source)
    local = [path for s in loaded.source if s.local_path is not None for path in source_tree.local_files(s.local_path)]
    facts = msgspec.to_builtins(loaded.package)
    tree = catalog.built_tree(loaded)
    return task.step(
        f"packages:{name}",
        make_packages,
        doc=f"{loaded.name} {catalog.version(loaded)}: {loaded.summary}",
        inputs=[
            *([source_record(name)] if remote else []),
            *local,
            *loaded.patches,
            *builder.extra_files(loaded),
            lockfile.PACKAGING.lock,
            lockfile.PACKAGING.wish,
            lockfile.PACKAGES,
            *task.source_files(builder.CROSS),
            *([Tree(MUSL)] if name != catalog.LIBC else []),
            APK_TOOLS,
            PUBLIC_KEY,
            *([tree] if tree else []),
            *(package_record(each) for each in needs),
        ],
        outputs=[package_record(name), *catalog.apks(name)],
        after=[
            *([f"fetch:{name}"] if remote else []),
            *("musl:install", "toolchain:unpack", "toolchain:packaging", "apk:tools", "apk:key"),
            *([f"{name}:install"] if tree else []),
            *(f"packages:{each}" for each in needs),
        ],
        config=[loaded.version, loaded.license, loaded.summary, loaded.homepage, facts, list(catalog.closure(name))],
        code=[apk, builder, elf, split, bwrap, source_tree, pie],
        args=[name],
    )


def _same_key(task: object, values: object) -> bool:
    """Up-to-date check: what lies in out/apk is the user's key."""
    try:
        return PUBLIC_KEY.read_bytes() == (paths.keys_dir() / PUBLIC_KEY.name).read_bytes()
    except FileNotFoundError:
        return False
