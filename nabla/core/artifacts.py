# SPDX-License-Identifier: Apache-2.0
"""The outputs of the build: the path of each output, and the tasks that build each artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nabla.core.paths import (
    APK,
    BUILT,
    BUSYBOX,
    BUSYBOX_BIN,
    IMAGES,
    MUSL,
    NABLA,
    NABLA_INIT,
    NABLA_OCI,
    NABLA_RUN,
    OUT,
    STATE,
    VMLINUX,
    WORK,
    relative,
)
from nabla.core.version import version


@dataclass(frozen=True)
class Tree:
    """A folder as input or output of a task. A stamp file contains the digest of its manifest."""

    path: Path

    @property
    def stamp(self) -> Path:
        """The file with the digest, which represents the folder for doit."""
        return STATE / "trees" / f"{relative(self.path).replace('/', '+')}.sha256"


# The recipe with Alpine's root file system, which also contains the programs that write packages and images.
BASE = "alpine-base"

# The images of a release; others are for tests and for developers of nabla.
RELEASED_IMAGES = ("alpine", "base", "minimal", "python")

# Each contains the digest of an unpacked build root, an input of every step that runs in that root.
BUILD_ROOT = STATE / "build-root"
PACKAGING_ROOT = STATE / "packaging-root"

APK_TOOLS = Tree(WORK / "apk-tools")
IMAGE_TOOLS = Tree(WORK / "image-tools")

ARCH = "x86_64"
REPOSITORY = APK / ARCH
INDEX = REPOSITORY / "Packages.adb"
PACKAGE_KEY = "nabla.rsa"
PUBLIC_KEY = APK / "keys" / f"{PACKAGE_KEY}.pub"

OCI_IMAGE = "alpine"  # the disk image inside the container image
OCI_LAYOUT = Tree(OUT / "oci" / "layout")
OCI_ARCHIVE = OUT / "oci" / "nabla-linux.oci.tar"

WHEEL_IMAGE = "python"  # the disk image inside the Python package
WHEEL = Tree(OUT / "wheel")

SPDX = OUT / "sbom" / "nabla.spdx.json"
CYCLONEDX = OUT / "sbom" / "nabla.cdx.json"
VEX = OUT / "vex"  # statements about vulnerabilities, also about findings of a scan
# The statements that follow from recipes and patches alone, in a release.
OPENVEX = OUT / "sbom" / "nabla.openvex.json"
VEX_CYCLONEDX = OUT / "sbom" / "nabla.vex.cdx.json"
LICENSE_TEXTS = Tree(OUT / "sbom" / "licenses")
LICENSE_LIST = OUT / "sbom" / "licenses.md"

REPORT = OUT / "report" / "index.html"

# Reference versions of artifacts, which depend neither on the user's keys nor on the version; their sums are committed.
REFERENCE_VERSION = "0"
REFERENCE_REPOSITORY = Tree(OUT / "reference" / "apk")
REFERENCE_SBOM = Tree(OUT / "reference" / "sbom")
REFERENCE_OCI = OUT / "reference" / OCI_ARCHIVE.name

VERIFY_REPORTS = OUT / "verify"
_REPORT_FORMATS = ("txt", "json", "xml")


def image_path(name: str) -> Path:
    """Return the image of that name in out/images."""
    return IMAGES / f"{name}.ext3"


def source_record(recipe: str) -> Path:
    """Return the file that lists the fetched source files of a recipe by sha256."""
    return STATE / "sources" / f"{recipe}.json"


def package_record(recipe: str) -> Path:
    """Return the file that describes the packages built from a recipe."""
    return BUILT / f"{recipe}.json"


def verify_reports(image: str) -> list[Path]:
    """Return the checkers' reports about an image, each as a table, as JSON and as JUnit."""
    return [VERIFY_REPORTS / f"{image}-{kind}.{form}" for kind in ("pie", "syscalls") for form in _REPORT_FORMATS]


@dataclass(frozen=True)
class Artifact:
    """One artifact. `tasks`: the doit tasks that build it; `find`: returns its files and folders below out/."""

    name: str
    tasks: tuple[str, ...]
    find: Callable[[], tuple[Path, ...]]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files and folders. A property, because the name of a release's folder depends on git."""
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
        Artifact("runtime", ("runtime",), _at(NABLA_OCI)),
        Artifact("client", ("client",), _at(NABLA)),
        Artifact("packages", ("packages",), _at(REPOSITORY)),
        Artifact(
            "images",
            tuple(f"rootfs:{name}" for name in RELEASED_IMAGES),
            _at(*(image_path(name) for name in RELEASED_IMAGES)),
        ),
        Artifact("kernel", ("kernel",), _at(VMLINUX)),
        Artifact("sbom", ("sbom",), _at(SPDX.parent)),
        Artifact("oci", ("oci",), _at(OCI_ARCHIVE.parent)),
        Artifact("wheel", ("wheel",), _at(WHEEL.path)),
        Artifact("report", ("report",), _at(REPORT.parent)),
        Artifact("release", ("release",), lambda: (OUT / "release" / version(),)),
    )
}

# Group of committed sums (digests/<group>.sha256) -> its files and folders. The headers of libc are in a package.
DIGEST_GROUPS: dict[str, tuple[Path, ...]] = {
    "kernel": (VMLINUX,),
    "libc": (MUSL / "lib", MUSL / "usr" / "lib"),
    "programs": (BUSYBOX_BIN, NABLA, NABLA_INIT, NABLA_OCI, NABLA_RUN),
    "packages": (REFERENCE_REPOSITORY.path,),
    "images": ARTIFACTS["images"].paths,
    "sbom": (REFERENCE_SBOM.path,),
    "oci": (REFERENCE_OCI,),
}
