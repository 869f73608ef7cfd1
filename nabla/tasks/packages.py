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

from nabla import (
    apk,
    base,
    fetch,
    image,
    lockfile,
    package,
    package_build,
    package_elf,
    package_split,
    recipe,
    sandbox,
    sources,
    tasklib,
)
from nabla.package import REPOSITORY, PackageError, read_record, record_path
from nabla.paths import APK, MUSL, WORK, relative
from nabla.tasklib import Job, TaskDict, Tree
from nabla.tasks.fetch import record_path as source_record
from verify import pie

TOOLS = Tree(WORK / "apk-tools")
PUBLIC_KEY = APK / "keys" / f"{apk.KEY_NAME}.pub"
BASE = "alpine-base"


def task_apk() -> Iterator[TaskDict]:
    """Make the package tool, the key and the index."""
    yield tasklib.group("apk", "the real apk, the key that signs, and the index of all packages")
    yield tasklib.step(
        "apk:tools",
        make_tools,
        doc="take apk out of the Alpine base",
        inputs=[source_record(BASE)],
        outputs=[TOOLS],
        after=[f"fetch:{BASE}"],
        code=[apk, base, image],
    )
    yield tasklib.step(
        "apk:key",
        show_key,
        doc="make the user's key, once; put its public half where images and people find it",
        outputs=[PUBLIC_KEY],
        after=["toolchain:packaging"],
        config=str(apk.keys_dir()),
        checks=[_same_key],
    )
    names = package.names()
    yield tasklib.step(
        "apk:index",
        make_index,
        doc="check that packages fit together and write the signed index of all",
        inputs=[TOOLS, PUBLIC_KEY, *(record_path(name) for name in names), *_all_apks()],
        outputs=[apk.INDEX],
        after=["apk:tools", "apk:key", *(f"packages:{name}" for name in names)],
        code=[apk, package],
    )


def task_packages() -> Iterator[TaskDict]:
    """Build the packages of the repository."""
    package.check_graph()
    yield tasklib.group("packages", "build all packages of the repository and its index", after=["apk:index"])
    for name in package.names():
        yield _package_step(name)


def make_tools(job: Job) -> None:
    """Fill the folder that is the root of apk's sandbox."""
    apk.make_tools(fetch.fetch(recipe.load(BASE).source[0]), job.out(TOOLS))


def show_key(job: Job) -> None:
    """Make sure that there is a key; copy its public half."""
    private, public = apk.ensure_key()
    job.note(f"private key: {private}")
    shutil.copyfile(public, job.out(PUBLIC_KEY))


def make_packages(job: Job, name: str) -> None:
    """Build one recipe, or take what the cache has, and make its package files."""
    built = package_build.obtain(job, name)
    wanted = apks(name)
    made = {part.apk: part for part in built.parts}
    for path in wanted:
        if path not in made:
            raise PackageError(f"{name}: no file is left for the package {path.stem}", "see docs/packages.md")
        files = package_build.files_path(built.key, made[path].name)
        scratch = job.scratch() / made[path].name
        apk.make_package(built, made[path], files, job.out(path), tools=TOOLS.path, scratch=scratch, log=job.log)
    for line in package_build.describe(built):
        job.note(line)
    job.out(record_path(name)).write_bytes(msgspec.json.format(msgspec.json.encode(built), indent=1) + b"\n")


def make_index(job: Job) -> None:
    """Check all packages against each other, remove files of packages that are no more, write the index."""
    built = [read_record(name) for name in package.names()]
    problem = next(package.conflicts(built), None)
    if problem:
        raise PackageError(problem, "let one of them leave the file out, or say `replaces`")
    known = package_elf.alpine_names(fetch.fetch(recipe.load(BASE).source[0]))
    problem = next(package.unmet(built, known), None)
    if problem:
        raise PackageError(problem, "add a recipe for it, or leave out what needs it")
    wanted = _all_apks()
    for path in REPOSITORY.glob("*.apk"):
        if path not in wanted:
            job.note(f"removed {relative(path)}: no recipe makes it")
            path.unlink()
    apk.make_index(wanted, job.out(apk.INDEX), tools=TOOLS.path, scratch=job.scratch(), log=job.log)


def apks(name: str) -> list[Path]:
    """Return the package files of a recipe."""
    loaded = recipe.load(name)
    return [REPOSITORY / f"{part}-{package.version(loaded)}.apk" for part in package.part_names(loaded)]


def _all_apks() -> list[Path]:
    return [path for name in package.names() for path in apks(name)]


def _package_step(name: str) -> TaskDict:
    loaded = recipe.load(name)
    needs = package.needs(name)
    remote = any(source.local is None for source in loaded.source)
    local = [path for s in loaded.source if s.local_path is not None for path in sources.local_files(s.local_path)]
    facts = msgspec.to_builtins(loaded.package)
    tree = package.built_tree(loaded)
    return tasklib.step(
        f"packages:{name}",
        make_packages,
        doc=f"{loaded.name} {package.version(loaded)}: {loaded.summary}",
        inputs=[
            *([source_record(name)] if remote else []),
            *local,
            *loaded.patches,
            *package_build.extra_files(loaded),
            lockfile.PACKAGING.lock,
            lockfile.PACKAGING.wish,
            lockfile.PACKAGES,
            *tasklib.source_files(package_build.CROSS),
            *([Tree(MUSL)] if name != package.LIBC else []),
            TOOLS,
            PUBLIC_KEY,
            *([tree] if tree else []),
            *(record_path(each) for each in needs),
        ],
        outputs=[record_path(name), *apks(name)],
        after=[
            *([f"fetch:{name}"] if remote else []),
            *("musl:install", "toolchain:unpack", "toolchain:packaging", "apk:tools", "apk:key"),
            *([f"{name}:install"] if tree else []),
            *(f"packages:{each}" for each in needs),
        ],
        config=[loaded.version, loaded.license, loaded.summary, loaded.homepage, facts, list(package.closure(name))],
        code=[apk, package_build, package_elf, package_split, sandbox, sources, pie],
        args=[name],
    )


def _same_key(task: object, values: object) -> bool:
    """Up-to-date check: what lies in out/apk is the user's key."""
    try:
        return PUBLIC_KEY.read_bytes() == (apk.keys_dir() / PUBLIC_KEY.name).read_bytes()
    except FileNotFoundError:
        return False
