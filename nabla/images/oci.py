# SPDX-License-Identifier: Apache-2.0
"""Write launcher, kernel and a disk image as a reproducible container image, without a container engine.

The result is a layout of the OCI image specification 1.1 with one layer. It depends only on these files: entries are
sorted, owned by root and have the same date, JSON is canonical, and gzip of the Alpine base compresses the layer,
because two versions of zlib produce different bytes. Every tool reads gzip, and a disk image consists mostly of zeros.

    <layout>/oci-layout, index.json     required by the specification
    <layout>/manifest.json              the same for engines that only support `docker save`
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

# The kernel's path is absolute: nabla-run finds its default kernel by /proc, which a plain chroot lacks.
ENTRY_POINT = ("/nabla-run", "--kernel", "/vmlinux", "--ephemeral", "/alpine.ext3", "--")
# nabla-run changes to this user if root starts it; an engine needs fewer privileges to start it as this user.
USER = "65534:65534"

# The default command: a shell on a terminal, otherwise a description of the VM.
_DESCRIBE = """\
[ -t 0 ] && exec /bin/sh -l
. /etc/os-release
echo "$(uname -srmo), $PRETTY_NAME: a virtual machine inside one process."
echo "Its shell: run it with --interactive --tty. A command: words behind the image's name."
"""
DEFAULT_COMMAND = ("/bin/sh", "-c", _DESCRIBE)

# Of nabla's programs, the kernel and libc; the SBOM lists those of the programs in the disk image.
_LICENSES = "Apache-2.0 AND GPL-2.0-only AND MIT"

# Mount points of container engines, so that the root may be read-only.
_FOLDERS: Mapping[str, int] = {"dev": 0o755, "etc": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777}

_MEDIA = "application/vnd.oci.image"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def reference(version: str) -> str:
    """Return the name of the loaded image, which is the same in docker, podman and containerd."""
    return f"localhost/{NAME}:{version}"


def make_image(job: Job, version: str) -> None:
    """Step: write the layout and an archive of it."""
    layout = job.out(OCI_LAYOUT)
    make(version, NABLA_RUN, VMLINUX, image_path(OCI_IMAGE), layout, tools=IMAGE_TOOLS.path)
    archive(layout, job.out(OCI_ARCHIVE))


def make_reference(job: Job) -> None:
    """Step: write the archive of the reference version."""
    layout = job.scratch() / "layout"
    make(REFERENCE_VERSION, NABLA_RUN, VMLINUX, image_path(OCI_IMAGE), layout, tools=IMAGE_TOOLS.path)
    archive(layout, job.out(REFERENCE_OCI))


def make(version: str, nabla_run: Path, vmlinux: Path, image: Path, target: Path, *, tools: Path) -> None:
    """Write the layout of a container image to the folder `target`, which must not exist.

    `image`: the disk image of the VM. `tools`: the folder with the image tools, which contains gzip. Raises
    `ConfigError` if `version` is not a valid tag, `CommandError` if gzip fails.
    """
    if not _TAG.fullmatch(version):
        raise ConfigError(
            f"{version!r} is not a valid tag of a container image", "use letters, digits, `.`, `_` and `-`"
        )
    for folder in (target, target / "blobs", target / "blobs" / "sha256"):
        folder.mkdir()
        folder.chmod(0o755)  # independent of the umask
    content = {"nabla-run": (nabla_run, 0o755), "vmlinux": (vmlinux, 0o755), "alpine.ext3": (image, 0o644)}
    plain = target / "layer.tar"
    _write_tar(plain, _FOLDERS, content)
    diff_id = f"sha256:{manifest.file_sha256(plain)}"
    run(apk.command(tools, [Bind(target, SCRATCH, writable=True)], ["/bin/busybox", "gzip", plain.name]))
    layer = _add_blob(target, f"{_MEDIA}.layer.v1.tar+gzip", target / f"{plain.name}.gz")

    labels = _labels(version)
    config = _add_blob(target, f"{_MEDIA}.config.v1+json", _configuration(labels, diff_id))
    image_manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": config,
        "layers": [layer],
        "annotations": labels,
    }
    descriptor = _add_blob(target, f"{_MEDIA}.manifest.v1+json", image_manifest)
    descriptor["platform"] = {"architecture": "amd64", "os": "linux"}
    # podman, skopeo and umoci read the first one, containerd and docker the second.
    descriptor["annotations"] = {
        "org.opencontainers.image.ref.name": f"{NAME}:{version}",
        "io.containerd.image.name": reference(version),
    }
    index = {"schemaVersion": 2, "mediaType": f"{_MEDIA}.index.v1+json", "manifests": [descriptor]}
    saved = {"Config": _blob(config), "RepoTags": [reference(version)], "Layers": [_blob(layer)]}
    _write(target / "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    _write(target / "index.json", _json(index))
    _write(target / "manifest.json", _json([saved]))


def archive(layout: Path, target: Path) -> None:
    """Write a layout as an archive that engines can load."""
    paths = sorted(layout.rglob("*"))
    folders = {str(path.relative_to(layout)): 0o755 for path in paths if path.is_dir()}
    files = {str(path.relative_to(layout)): (path, 0o644) for path in paths if path.is_file()}
    _write_tar(target, folders, files)


def _labels(version: str) -> dict[str, str]:
    values = {
        "created": _date(),
        "description": "A Linux virtual machine inside one ordinary process, without a hypervisor; Alpine Linux in it",
        "licenses": _LICENSES,
        "title": "Nabla Linux",
        "version": version,
    }
    return {f"org.opencontainers.image.{name}": value for name, value in values.items()}


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


def _add_blob(target: Path, media: str, content: Path | Any) -> dict[str, Any]:
    """Move a file, or write JSON data, to the blobs; return its descriptor."""
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
    """Write a tar of folders (modes) and files (content, mode), sorted by name, owned by root, with the same date."""
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
