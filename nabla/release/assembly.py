# SPDX-License-Identifier: Apache-2.0
"""Assemble the folder of a release: all artifacts with sums, provenance and signatures, reproducibly.

    bin/nabla-run, kernel/vmlinux              launcher and kernel; nabla-run finds the kernel there
    bin/nabla, bin/nabla-oci                   client of running VMs, OCI runtime
    images/<image>.ext3.zst, images/SHA256SUMS compressed images, and the sums of the decompressed files
    apk/x86_64/                                the repository of packages, with its signed index
    oci/                                       the container image, as layout and as one file
    vex/                                       statements about vulnerabilities
    sbom/, licenses.md, licenses/              bills of materials, licenses with full texts
    report/index.html                          the release report
    keys/                                      public keys of packages and index, and of the release's signer
    provenance/nabla.intoto.json               the inputs of the release, signed
    SHA256SUMS, SHA256SUMS.sig                 sums of every other file, and OpenSSH's signature of them

Modes and times of files are fixed, too. verify/release checks a release; verify/release/layout.py lists its files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from nabla.core import digest, manifest
from nabla.core.errors import NablaError
from nabla.core.files import make_folder
from nabla.engine import result_cache
from nabla.release import provenance, signing
from verify.epoch import SOURCE_DATE_EPOCH
from verify.release.layout import IMAGE_SUMS, PROGRAMS, SIGNATURE, SIGNERS, STATEMENT, SUMS
from verify.release.statement import MEDIA_TYPE, Dependency, Statement

# Level 19 is five percent smaller and takes thirty times as long.
_LEVEL = 9


class ReleaseError(NablaError):
    """A release cannot be assembled."""


def below(target: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (path in the release, file) for each file below a folder, whose path in the release is `target`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"{target}/{path.relative_to(folder)}", path


def make(
    version: str,
    files: Mapping[str, Path],
    images: Iterable[Path],
    dependencies: Iterable[Dependency],
    keys: tuple[Path, Path],
    target: Path,
) -> None:
    """Write a release to the folder `target`, which must not exist.

    `files`: path in the release -> file to copy. `images`: disk images. `keys`: the signer's private and public
    key, see `signing.ensure_key`. The result depends only on these. Raises `SigningError`, `ProvenanceError`.
    """
    for inner, source in files.items():
        path = target / inner
        make_folder(path.parent)
        shutil.copyfile(source, path)
    make_folder((target / IMAGE_SUMS).parent)
    raw: dict[str, str] = {}
    for image in images:
        _compress(image, target / "images" / f"{image.name}.zst")
        raw[image.name] = manifest.file_sha256(image)
    (target / IMAGE_SUMS).write_text(sums(raw), encoding="utf-8")
    make_folder((target / SIGNERS).parent)
    (target / SIGNERS).write_text(signing.allowed_signers(keys[1]), encoding="utf-8")
    seal(version, dependencies, keys[0], target)


def seal(version: str, dependencies: Iterable[Dependency], private: Path, target: Path) -> None:
    """Write statement, sums and signature of the files in the folder `target`, and set all modes and times."""
    for name in (STATEMENT, SUMS, SIGNATURE):
        (target / name).unlink(missing_ok=True)
    make_folder((target / STATEMENT).parent)
    payload = provenance.serialize(Statement(version, digests(target), tuple(dependencies)))
    (target / STATEMENT).write_text(signing.seal(payload, MEDIA_TYPE, private), encoding="utf-8")
    text = sums(digests(target))
    (target / SUMS).write_text(text, encoding="utf-8")
    (target / SIGNATURE).write_text(signing.sign(text.encode(), private), encoding="utf-8")
    manifest.normalize_metadata(target, SOURCE_DATE_EPOCH, {target / program for program in PROGRAMS})


def digests(folder: Path, but: Collection[str] = ()) -> dict[str, str]:
    """Return path -> sha256 of all files below a folder, except the paths in `but`."""
    files = ((str(path.relative_to(folder)), path) for path in folder.rglob("*") if path.is_file())
    return {inner: manifest.file_sha256(path) for inner, path in files if inner not in but}


def sums(digests: Mapping[str, str]) -> str:
    """Return digests in the format of sha256sum(1), in binary mode, sorted by path."""
    for path in digests:
        # sha256sum escapes these characters.
        if "\n" in path or "\\" in path:
            raise ReleaseError(f"a file of a release cannot have the name {path!r}")
    return "".join(f"{digests[path]} *{path}\n" for path in sorted(digests))


def compressed_key(image: Path) -> str:
    """Return the key of a compressed image in the result cache."""
    return result_cache.key("compressed image", digest.sha256_file(image), _LEVEL, version("zstandard"))


def _compress(image: Path, target: Path) -> None:
    """Compress a file by zstd, in one frame with its size and a checksum of its content."""
    key, results = compressed_key(image), {target.name: target}
    with result_cache.lock(key):
        if result_cache.must_repeat(key) or not result_cache.restore(key, results):
            _write_compressed(image, target)
            result_cache.add(key, f"{image.name}: compressed", results)


def _write_compressed(image: Path, target: Path) -> None:
    import zstandard

    # One thread: with more, the bytes depend on their number.
    compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=0, write_checksum=True, write_content_size=True)
    with image.open("rb") as source, target.open("wb") as sink:
        compressor.copy_stream(source, sink, size=os.fstat(source.fileno()).st_size)
