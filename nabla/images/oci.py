# SPDX-License-Identifier: Apache-2.0
"""Launcher, kernel and a disk image as a container image, written without a container engine: the same bytes each time.

It is a layout of the OCI image specification 1.1 with one layer. Nothing in it but these files is taken from the host:
entries are sorted, owned by root and of one date, JSON is canonical, and the layer is compressed by the gzip of the
Alpine base, as each zlib makes other bytes of the same content. gzip, because every tool reads it; compressed at all,
because a disk image is mostly zeros.

    <layout>/oci-layout, index.json     what the specification asks for
    <layout>/manifest.json              the same for engines that only know `docker save`
    <layout>/blobs/sha256/…             manifest, configuration, layer

The specification: https://github.com/opencontainers/image-spec
"""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nabla.core import digest, manifest
from nabla.core.artifacts import (
    IMAGE_TOOLS,
    OCI_ARCHIVE,
    OCI_IMAGE,
    OCI_LAYOUT,
    REFERENCE_OCI,
    REFERENCE_VERSION,
    image_path,
)
from nabla.core.errors import ConfigError
from nabla.core.paths import NABLA_RUN, VMLINUX
from nabla.core.process import run
from nabla.engine.action import Job
from nabla.fs.ext3 import SCRATCH
from nabla.packages import apk
from nabla.sandbox.bwrap import Bind
from verify.epoch import SOURCE_DATE_EPOCH

NAME = "nabla-linux"

# An absolute kernel, as the default one is looked for in /proc, which a plain chroot has not.
ENTRY_POINT = ("/nabla-run", "--kernel", "/vmlinux", "--ephemeral", "/alpine.ext3", "--")
# The launcher becomes nobody by itself if root starts it; not to be root from the start asks less of the engine.
USER = "65534:65534"

# What the machine does if it is given nothing to do: without a terminal there is nobody to type.
_DESCRIBE = """\
[ -t 0 ] && exec /bin/sh -l
. /etc/os-release
echo "$(uname -srmo), $PRETTY_NAME: a virtual machine inside one process."
echo "Its shell: run it with --interactive --tty. A command: words behind the image's name."
"""
DEFAULT_COMMAND = ("/bin/sh", "-c", _DESCRIBE)

# Of our own programs, kernel and libc; the SBOM has those of each program in the disk image.
_LICENSES = "Apache-2.0 AND GPL-2.0-only AND MIT"

# Mount points of container engines, so that the root may be read-only.
_FOLDERS: Mapping[str, int] = {"dev": 0o755, "etc": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777}

_MEDIA = "application/vnd.oci.image"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def reference(version: str) -> str:
    """Return the name that the image has after it was loaded: the same in docker, podman and containerd."""
    return f"localhost/{NAME}:{version}"


def make_image(job: Job, version: str) -> None:
    """Step: write the layout and the same as one file."""
    layout = job.out(OCI_LAYOUT)
    make(version, NABLA_RUN, VMLINUX, image_path(OCI_IMAGE), layout, tools=IMAGE_TOOLS.path)
    archive(layout, job.out(OCI_ARCHIVE))


def make_reference(job: Job) -> None:
    """Step: write the archive as the task `oci` does."""
    layout = job.scratch() / "layout"
    make(REFERENCE_VERSION, NABLA_RUN, VMLINUX, image_path(OCI_IMAGE), layout, tools=IMAGE_TOOLS.path)
    archive(layout, job.out(REFERENCE_OCI))


def make(version: str, nabla_run: Path, vmlinux: Path, image: Path, target: Path, *, tools: Path) -> None:
    """Write the layout of a container image to the folder `target`, which must not exist.

    `image`: the disk image that becomes the machine's root. `tools`: the folder of `nabla.fs.ext3.make_tools`; its gzip
    is used. Raises `ConfigError` when `version` cannot be a tag, `CommandError` when gzip fails.
    """
    if not _TAG.fullmatch(version):
        raise ConfigError(
            f"{version!r} cannot be the tag of a container image", "letters, digits, `.`, `_` and `-` can"
        )
    for folder in (target, target / "blobs", target / "blobs" / "sha256"):
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask is
    content = {"nabla-run": (nabla_run, 0o755), "vmlinux": (vmlinux, 0o755), "alpine.ext3": (image, 0o644)}
    plain = target / "layer.tar"
    _write_tar(plain, _FOLDERS, content)
    diff_id = f"sha256:{manifest.file_sha256(plain)}"
    run(apk.command(tools, [Bind(target, SCRATCH, writable=True)], ["/bin/busybox", "gzip", plain.name]))
    layer = _keep(target, f"{_MEDIA}.layer.v1.tar+gzip", target / f"{plain.name}.gz")

    labels = _labels(version)
    config = _keep(target, f"{_MEDIA}.config.v1+json", _configuration(labels, diff_id))
    image_manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": config,
        "layers": [layer],
        "annotations": labels,
    }
    found = _keep(target, f"{_MEDIA}.manifest.v1+json", image_manifest)
    found["platform"] = {"architecture": "amd64", "os": "linux"}
    # The first is what podman, skopeo and umoci ask for, the second is containerd's and docker's.
    found["annotations"] = {
        "org.opencontainers.image.ref.name": f"{NAME}:{version}",
        "io.containerd.image.name": reference(version),
    }
    index = {"schemaVersion": 2, "mediaType": f"{_MEDIA}.index.v1+json", "manifests": [found]}
    saved = {"Config": _blob(config), "RepoTags": [reference(version)], "Layers": [_blob(layer)]}
    _write(target / "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    _write(target / "index.json", _json(index))
    _write(target / "manifest.json", _json([saved]))


def archive(layout: Path, target: Path) -> None:
    """Write a layout as one file, as engines load it."""
    found = sorted(path for path in layout.rglob("*"))
    folders = {str(path.relative_to(layout)): 0o755 for path in found if path.is_dir()}
    files = {str(path.relative_to(layout)): (path, 0o644) for path in found if path.is_file()}
    _write_tar(target, folders, files)


def _labels(version: str) -> dict[str, str]:
    facts = {
        "created": _date(),
        "description": "A Linux virtual machine inside one ordinary process, without a hypervisor; Alpine Linux in it",
        "licenses": _LICENSES,
        "title": "Nabla Linux",
        "version": version,
    }
    return {f"org.opencontainers.image.{name}": value for name, value in facts.items()}


def _configuration(labels: Mapping[str, str], diff_id: str) -> Any:
    return {
        "created": _date(),
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": USER,
            "Entrypoint": list(ENTRY_POINT),
            "Cmd": list(DEFAULT_COMMAND),
            "WorkingDir": "/",
            "Labels": dict(labels),
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": _date(), "created_by": "doit oci", "comment": "nabla-run, kernel, disk image"}],
    }


def _date() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(SOURCE_DATE_EPOCH))


def _keep(target: Path, media: str, content: Path | Any) -> dict[str, Any]:
    """Move a file, or write JSON data, among the blobs; return its descriptor."""
    if not isinstance(content, Path):
        data = _json(content)
        content = target / "blob"
        content.write_bytes(data)
    name = manifest.file_sha256(content)
    blob = content.rename(target / "blobs" / "sha256" / name)
    blob.chmod(0o644)
    return {"mediaType": media, "digest": f"sha256:{name}", "size": blob.stat().st_size}


def _blob(descriptor: Mapping[str, Any]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


def _json(data: Any) -> bytes:
    return digest.canonical(data).encode()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o644)


def _write_tar(target: Path, folders: Mapping[str, int], files: Mapping[str, tuple[Path, int]]) -> None:
    """Write a tar of folders (with modes) and files (content and mode), sorted by name, all of root and of one date."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as writer:
        for name in sorted({*folders, *files}):
            if name in folders:
                writer.addfile(_member(f"{name}/", tarfile.DIRTYPE, folders[name]))
                continue
            source, mode = files[name]
            with source.open("rb") as stream:
                member = _member(name, tarfile.REGTYPE, mode)
                member.size = stream.seek(0, io.SEEK_END)
                stream.seek(0)
                writer.addfile(member, stream)


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, SOURCE_DATE_EPOCH
    return member
