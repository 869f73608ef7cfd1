# SPDX-License-Identifier: Apache-2.0
"""The folder of a release: everything that users get, with sums, provenance and signatures; the same bytes each time.

    bin/nabla-run, kernel/vmlinux              what starts a machine; nabla-run finds the kernel there
    images/<image>.ext3.zst, images/SHA256SUMS compressed images, and the sums of what they decompress to
    apk/x86_64/                                the repository of packages, with its signed index
    oci/                                       the container image, as layout and as one file
    sbom/, licenses.md, licenses/              bills of materials, licences with full texts
    report/index.html                          what was built, to look at
    keys/                                      public keys: of packages and index, and of the release's signer
    provenance/nabla.intoto.json               what it was made from, signed
    SHA256SUMS, SHA256SUMS.sig                 of every file but these two; OpenSSH's signature of that

Modes and times of files are fixed, too. verify/release checks a release; verify/release/layout.py names its files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from nabla.core import manifest
from nabla.core.errors import NablaError
from nabla.core.files import make_folder
from nabla.release import provenance, signing
from verify.epoch import SOURCE_DATE_EPOCH
from verify.release.layout import IMAGE_SUMS, PROGRAMS, SIGNATURE, SIGNERS, STATEMENT, SUMS
from verify.release.statement import MEDIA_TYPE, Dependency, Statement

# 19 is smaller by a twentieth and takes thirty times as long.
_LEVEL = 9


class ReleaseError(NablaError):
    """A release cannot be made."""


def below(place: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield each file below a folder, with its path in a release when the folder lies at `place` there."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"{place}/{path.relative_to(folder)}", path


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
    key, see `signing.ensure_key`. The result depends on nothing but this. Raises `SigningError`, `ProvenanceError`.
    """
    for place, source in files.items():
        path = target / place
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
    """Write statement, sums and signature of what lies in the folder `target`, and fix modes and times of all of it."""
    for place in (STATEMENT, SUMS, SIGNATURE):
        (target / place).unlink(missing_ok=True)
    make_folder((target / STATEMENT).parent)
    payload = provenance.serialize(Statement(version, digests(target), tuple(dependencies)))
    (target / STATEMENT).write_text(signing.seal(payload, MEDIA_TYPE, private), encoding="utf-8")
    text = sums(digests(target))
    (target / SUMS).write_text(text, encoding="utf-8")
    (target / SIGNATURE).write_text(signing.sign(text.encode(), private), encoding="utf-8")
    manifest.settle(target, SOURCE_DATE_EPOCH, {target / place for place in PROGRAMS})


def digests(folder: Path, but: Collection[str] = ()) -> dict[str, str]:
    """Return path -> sha256 of all files below a folder, but those at these paths."""
    found = ((str(path.relative_to(folder)), path) for path in folder.rglob("*") if path.is_file())
    return {place: manifest.file_sha256(path) for place, path in found if place not in but}


def sums(found: Mapping[str, str]) -> str:
    """Return digests in the form of sha256sum(1), in binary mode, sorted by path."""
    for place in found:
        # sha256sum would escape it.
        if "\n" in place or "\\" in place:
            raise ReleaseError(f"a file of a release cannot be called {place!r}")
    return "".join(f"{found[place]} *{place}\n" for place in sorted(found))


def _compress(image: Path, target: Path) -> None:
    """Compress a file by zstd, in one frame that tells its size and a checksum of its content."""
    import zstandard

    # One thread: with more, the bytes depend on how many.
    compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=0, write_checksum=True, write_content_size=True)
    with image.open("rb") as source, target.open("wb") as sink:
        compressor.copy_stream(source, sink, size=os.fstat(source.fileno()).st_size)
