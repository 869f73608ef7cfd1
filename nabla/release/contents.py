# SPDX-License-Identifier: Apache-2.0
"""What this checkout's release consists of, and the step that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nabla.core import version
from nabla.core.artifacts import (
    ARTIFACTS,
    CYCLONEDX,
    INDEX,
    LICENSE_LIST,
    LICENSE_TEXTS,
    OCI_ARCHIVE,
    OCI_LAYOUT,
    PUBLIC_KEY,
    RELEASED_IMAGES,
    REPORT,
    SPDX,
    Tree,
    image_path,
)
from nabla.core.errors import HostError
from nabla.core.paths import NABLA_RUN, VMLINUX
from nabla.engine.action import Job
from nabla.packages import catalog
from nabla.release import assembly, provenance, signing
from verify.release import layout, signatures, statement

# Path in a release -> folder.
FOLDERS = {"oci/layout": OCI_LAYOUT, "licenses": LICENSE_TEXTS}


def folder() -> Tree:
    """Return the folder of this checkout's release."""
    return Tree(ARTIFACTS["release"].paths[0])


def files() -> dict[str, Path]:
    """Return path in a release -> file, for what is a file by itself; folders come beside them."""
    apks = catalog.all_apks()
    return {
        "bin/nabla-run": NABLA_RUN,
        "kernel/vmlinux": VMLINUX,
        **{f"apk/{path.parent.name}/{path.name}": path for path in (INDEX, *apks)},
        f"keys/{PUBLIC_KEY.name}": PUBLIC_KEY,
        f"oci/{OCI_ARCHIVE.name}": OCI_ARCHIVE,
        f"sbom/{SPDX.name}": SPDX,
        f"sbom/{CYCLONEDX.name}": CYCLONEDX,
        LICENSE_LIST.name: LICENSE_LIST,
        f"report/{REPORT.name}": REPORT,
    }


def make(job: Job) -> None:
    """Step: assemble, sign and settle the release."""
    name = version.version()
    if version.has_history() and version.commit() is None:
        raise HostError("git cannot tell the version and the commit of this checkout", "install the package git")
    wanted = files()
    for place, found in FOLDERS.items():
        wanted.update(assembly.below(place, found.path))
    images = [image_path(each) for each in RELEASED_IMAGES]
    dependencies = provenance.dependencies()
    assembly.make(name, wanted, images, dependencies, signing.ensure_key(), job.out(folder()))
    job.note(f"{name}: {len(wanted)} files, {len(images)} images, {len(dependencies)} dependencies")


def same_origin(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: the release states this commit and these locks, and is signed by the user's present key.

    git and all recipes are only read when a release is wanted.
    """
    release = folder().path
    try:
        public = signing.ensure_key()[1]
        stated = statement.read(signatures.payload((release / layout.STATEMENT).read_text(encoding="utf-8")))
        signers = (release / layout.SIGNERS).read_text(encoding="utf-8")
    except (OSError, statement.StatementError, signatures.SignatureError):
        return False
    return stated.dependencies == provenance.dependencies() and signers == signing.allowed_signers(public)
