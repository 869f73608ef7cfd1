# SPDX-License-Identifier: Apache-2.0
"""The content of this checkout's release, and the step that assembles it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nabla.core import artifacts, version
from nabla.core.artifacts import Tree
from nabla.core.errors import HostError
from nabla.core.paths import NABLA, NABLA_OCI, NABLA_RUN, VMLINUX
from nabla.engine.action import Job
from nabla.packages import catalog
from nabla.release import assembly, provenance, signing
from verify.release import layout, signatures, statement

# Path in a release -> folder.
FOLDERS = {"oci/layout": artifacts.OCI_LAYOUT, "licenses": artifacts.LICENSE_TEXTS}


def folder() -> Tree:
    """Return the folder of this checkout's release."""
    return Tree(artifacts.ARTIFACTS["release"].paths[0])


def files() -> dict[str, Path]:
    """Return path in a release -> file, without the files of `FOLDERS`."""
    apks = catalog.all_apks()
    return {
        "bin/nabla": NABLA,
        "bin/nabla-oci": NABLA_OCI,
        "bin/nabla-run": NABLA_RUN,
        "kernel/vmlinux": VMLINUX,
        **{f"apk/{path.parent.name}/{path.name}": path for path in (artifacts.INDEX, *apks)},
        f"keys/{artifacts.PUBLIC_KEY.name}": artifacts.PUBLIC_KEY,
        f"oci/{artifacts.OCI_ARCHIVE.name}": artifacts.OCI_ARCHIVE,
        f"sbom/{artifacts.SPDX.name}": artifacts.SPDX,
        f"sbom/{artifacts.CYCLONEDX.name}": artifacts.CYCLONEDX,
        layout.OPENVEX: artifacts.OPENVEX,
        layout.VEX_CYCLONEDX: artifacts.VEX_CYCLONEDX,
        artifacts.LICENSE_LIST.name: artifacts.LICENSE_LIST,
        f"report/{artifacts.REPORT.name}": artifacts.REPORT,
    }


def make(job: Job) -> None:
    """Step: assemble and sign the release."""
    name = version.version()
    if version.has_history() and version.commit() is None:
        raise HostError(
            "the version and the commit of this checkout are unknown without git", "install the package git"
        )
    content = files()
    for target, tree in FOLDERS.items():
        content.update(assembly.below(target, tree.path))
    images = [artifacts.image_path(each) for each in artifacts.RELEASED_IMAGES]
    dependencies = provenance.dependencies()
    assembly.make(name, content, images, dependencies, signing.ensure_key(), job.out(folder()))
    job.note(f"{name}: {len(content)} files, {len(images)} images, {len(dependencies)} dependencies")


def same_origin(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: the release states this commit and these locks, and the user's present key signed it.

    Only this task runs git and reads all recipes.
    """
    release = folder().path
    try:
        public = signing.ensure_key()[1]
        stated = statement.read(signatures.payload((release / layout.STATEMENT).read_text(encoding="utf-8")))
        signers = (release / layout.SIGNERS).read_text(encoding="utf-8")
    except (OSError, statement.StatementError, signatures.SignatureError):
        return False
    return stated.dependencies == provenance.dependencies() and signers == signing.allowed_signers(public)
