# SPDX-License-Identifier: Apache-2.0
"""The repository as a whole: the user's key, the signed index, and the form without signatures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from nabla.core.artifacts import APK_TOOLS, INDEX, PUBLIC_KEY, REFERENCE_REPOSITORY, REPOSITORY
from nabla.core.paths import relative
from nabla.engine.action import Job
from nabla.fs.alpine_tools import base_archive
from nabla.packages import apk, catalog, elf
from nabla.packages.catalog import PackageError, read_built
from verify.release.layout import keys_dir


def show_key(job: Job) -> None:
    """Step: make sure that there is a key; copy its public half."""
    private, public = apk.ensure_key()
    job.note(f"private key: {private}")
    shutil.copyfile(public, job.out(PUBLIC_KEY))


def make_index(job: Job) -> None:
    """Step: check all packages against each other, remove files of packages that are no more, write the index."""
    built = [read_built(name) for name in catalog.names()]
    problem = next(catalog.conflicts(built), None)
    if problem:
        raise PackageError(problem, "let one of them leave the file out, or say `replaces`")
    known = elf.alpine_names(base_archive())
    problem = next(catalog.unmet(built, known), None)
    if problem:
        raise PackageError(problem, "add a recipe for it, or leave out what needs it")
    wanted = catalog.all_apks()
    for path in REPOSITORY.glob("*.apk"):
        if path not in wanted:
            job.note(f"removed {relative(path)}: no recipe makes it")
            path.unlink()
    apk.make_index(wanted, job.out(INDEX), tools=APK_TOOLS.path, scratch=job.scratch(), log=job.log)


def unsign(job: Job) -> None:
    """Step: copy all packages, take their signatures off, index them."""
    apk.unsigned(catalog.all_apks(), job.out(REFERENCE_REPOSITORY), tools=APK_TOOLS.path, log=job.log)


def same_key(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: what lies in out/apk is the user's key."""
    try:
        return PUBLIC_KEY.read_bytes() == (keys_dir() / PUBLIC_KEY.name).read_bytes()
    except FileNotFoundError:
        return False
