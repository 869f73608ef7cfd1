# SPDX-License-Identifier: Apache-2.0
"""What the project makes: the name of each artifact, the tasks that make it, the files and folders it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nabla.package import REPOSITORY
from nabla.paths import BUSYBOX, IMAGES, MUSL, NABLA_INIT, NABLA_RUN, OUT, VMLINUX
from nabla.version import version

# The images that are released; others are for tests and for people of this project.
RELEASED_IMAGES = ("alpine", "base", "minimal", "python")


@dataclass(frozen=True)
class Artifact:
    """One thing that users get. `tasks`: of doit; `find`: says what they make, as files and folders below out/."""

    name: str
    tasks: tuple[str, ...]
    find: Callable[[], tuple[Path, ...]]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files and folders. Found when asked for: the name of a release's folder is known to git alone."""
        return self.find()


def _at(*paths: Path) -> Callable[[], tuple[Path, ...]]:
    return lambda: paths


ARTIFACTS: dict[str, Artifact] = {
    artifact.name: artifact
    for artifact in (
        Artifact("musl", ("musl",), _at(MUSL)),
        Artifact("busybox", ("busybox",), _at(BUSYBOX)),
        Artifact("init", ("init",), _at(NABLA_INIT)),
        Artifact("launcher", ("launcher",), _at(NABLA_RUN)),
        Artifact("packages", ("packages",), _at(REPOSITORY)),
        Artifact(
            "images",
            tuple(f"rootfs:{name}" for name in RELEASED_IMAGES),
            _at(*(IMAGES / f"{name}.ext3" for name in RELEASED_IMAGES)),
        ),
        Artifact("kernel", ("kernel",), _at(VMLINUX)),
        Artifact("sbom", ("sbom",), _at(OUT / "sbom")),
        Artifact("oci", ("oci",), _at(OUT / "oci")),
        Artifact("report", ("report",), _at(OUT / "report")),
        Artifact("release", ("release",), lambda: (OUT / "release" / version(),)),
    )
}
