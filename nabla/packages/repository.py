# SPDX-License-Identifier: Apache-2.0
"""The repository: the user's key, the signed index, and the copy without signatures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from nabla.core.artifacts import APK_TOOLS, INDEX, PUBLIC_KEY, REFERENCE_REPOSITORY, REPOSITORY
from nabla.core.paths import relative
from nabla.engine.action import Job
from nabla.fs import nodes
from nabla.fs.alpine_tools import base_archive
from nabla.packages import apk, apkdb, catalog
from nabla.packages.catalog import PackageError, read_build_record
from verify.release.layout import keys_dir


def show_key(job: Job) -> None:
    """Step: ensure that there is a key; copy the public key."""
    private, public = apk.ensure_key()
    job.note(f"private key: {private}")
    shutil.copyfile(public, job.out(PUBLIC_KEY))


def make_index(job: Job) -> None:
    """Step: check all packages against each other, remove files of removed packages, write the index."""
    built = [read_build_record(name) for name in catalog.names()]
    base = apkdb.read_tree(nodes.read_base(base_archive()))
    problem = next(catalog.conflicts(built, base), None)
    if problem:
        raise PackageError(problem, "remove the file from one of them, or add `replaces`")
    known = {apkdb.bare(name) for each in base for name in (each.name, *each.provides)}
    problem = next(catalog.unmet(built, known), None)
    if problem:
        raise PackageError(problem, "add a recipe for it, or remove the dependency")
    wanted = catalog.all_apks()
    current = {path for loaded in catalog.all_recipes() for path in catalog.apks(loaded)}
    for path in REPOSITORY.glob("*.apk"):
        if path not in current:
            job.note(f"removed {relative(path)}: no recipe builds it")
            path.unlink()
    apk.make_index(wanted, job.out(INDEX), tools=APK_TOOLS.path, scratch=job.scratch(), log=job.log)


def unsign(job: Job) -> None:
    """Step: copy all packages, remove their signatures, write an index."""
    apk.unsigned(catalog.all_apks(), job.out(REFERENCE_REPOSITORY), tools=APK_TOOLS.path, log=job.log)


def same_key(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: the key in out/apk is the user's."""
    try:
        return PUBLIC_KEY.read_bytes() == (keys_dir() / PUBLIC_KEY.name).read_bytes()
    except FileNotFoundError:
        return False
