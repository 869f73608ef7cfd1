# SPDX-License-Identifier: Apache-2.0
"""Check that the files of a release are consistent, after the check that all bytes are the signer's.

layout      the files of every release exist
sources     the locked sources are those of this checkout, if the release was made from its commit
images      decompress to the stated sums, without trailing data; e2fsck finds no fault
packages    the real apk verifies each with the key of the release; every program in them is position-independent
index       apk verifies it, and it equals apk's index of these packages
programs    the launcher is position-independent and hardened
sbom        both documents are valid and complete, and their entries match the files of the release
vex         both documents make the same statements, about products of the bills of materials
oci         every blob has the digest in its name and is referenced; the layer contains launcher, kernel and image of
            the release; the archive equals the layout
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verify import contents, pie
from verify.contents import ContentsError
from verify.release import cyclonedx, files, locked, statement, tools, vex
from verify.release.layout import (
    CYCLONEDX,
    IMAGE_SUMS,
    INDEX,
    OCI_ARCHIVE,
    OCI_LAYOUT,
    OPENVEX,
    PACKAGE_KEY,
    PROGRAMS,
    REPORT,
    REPOSITORY,
    SIGNERS,
    SPDX,
    STATEMENT,
    VEX_CYCLONEDX,
    VMLINUX,
)
from verify.release.statement import Statement
from verify.release.tools import WORK, Tools

_REQUIRED = (
    *(
        *PROGRAMS,
        IMAGE_SUMS,
        INDEX,
        PACKAGE_KEY,
        SIGNERS,
        SPDX,
        CYCLONEDX,
        OPENVEX,
        VEX_CYCLONEDX,
        f"{OCI_LAYOUT}/index.json",
        OCI_ARCHIVE,
    ),
    *(REPORT, "licenses.md", STATEMENT),
)
_CHUNK = 1 << 20
# Package URLs in bills of materials of components that are files of the release.
_PROGRAM_NAMES = ("nabla-run", "nabla", "nabla-oci", "linux")
_OWN = ("pkg:apk/nabla/", "pkg:generic/nabla-linux-", *(f"pkg:generic/{name}@" for name in _PROGRAM_NAMES))


@dataclass(frozen=True)
class Release:
    """The release to check. `files`: path -> sha256. `scratch`: an empty folder for decompressed images."""

    folder: Path
    files: Mapping[str, str]
    stated: Statement
    tools: Tools
    scratch: Path

    def below(self, prefix: str, suffix: str = "") -> list[str]:
        """Return the paths with this prefix and suffix, sorted."""
        return sorted(path for path in self.files if path.startswith(prefix) and path.endswith(suffix))

    def raw_images(self) -> dict[str, str]:
        """Return name -> sha256 of the decompressed images."""
        text = (self.folder / IMAGE_SUMS).read_text(encoding="utf-8")
        return {name: digest for digest, _, name in (line.partition(" *") for line in text.splitlines())}


def check_layout(release: Release) -> Iterator[str]:
    """Yield the required files that are missing."""
    yield from (f"{path} is missing" for path in _REQUIRED if path not in release.files)
    if not release.below("licenses/"):
        yield "there are no license texts"


def check_sources(release: Release) -> Iterator[str]:
    """Yield the differences between the locked sources in the statement and those of this checkout.

    A release of another commit is not compared.
    """
    if release.stated.commit != locked.commit():
        return
    stated = {each for each in release.stated.dependencies if each.name != statement.REPOSITORY}
    here = set(locked.sources())
    yield from (f"{each.name} is in the statement, but not locked" for each in sorted(stated - here))
    yield from (f"{each.name} is locked, but not in the statement" for each in sorted(here - stated))


def check_images(release: Release) -> Iterator[str]:
    """Yield the problems of compressed images."""
    raw = release.raw_images()
    compressed = release.below("images/", ".zst")
    if {f"images/{name}.zst" for name in raw} != set(compressed) or not raw:
        yield f"{IMAGE_SUMS} does not list these images: {', '.join(compressed) or 'none'}"
        return
    for name, digest in raw.items():
        file = release.scratch / name
        try:
            problem = decompress(release.folder / "images" / f"{name}.zst", file)
            if problem:
                yield f"images/{name}.zst {problem}"
            elif files.sha256(file) != digest:
                yield f"images/{name}.zst contains an image with another sum"
            else:
                done = tools.run(release.tools.images, ["/sbin/e2fsck", "-fn", file.name], {}, release.scratch)
                if done.returncode != 0:
                    yield f"e2fsck finds faults in {name}: {' '.join((done.stdout + done.stderr).split())[:200]}"
        except OSError as error:
            yield f"images/{name}.zst: {error}"
        finally:
            file.unlink(missing_ok=True)


def decompress(source: Path, target: Path) -> str:
    """Decompress one frame of zstd and preserve holes; return the problem, empty if there is none."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor().decompressobj()
    with source.open("rb") as stream, target.open("wb") as sink:
        try:
            parameters = zstandard.get_frame_parameters(stream.read(64))
            stream.seek(0)
            while not decompressor.eof:
                data = stream.read(_CHUNK // 16)
                if not data:
                    return "ends too early"
                _write_sparse(sink, decompressor.decompress(data))
        except zstandard.ZstdError as error:
            return f"cannot be decompressed: {error}"
        if decompressor.unused_data or stream.read(1):
            return "has data behind its end"
        sink.truncate()
        size = sink.tell()
    if not parameters.has_checksum or parameters.content_size != size:
        return "does not state its size and checksum"
    return ""


def _write_sparse(sink: io.BufferedWriter, data: bytes) -> None:
    for at in range(0, len(data), 4096):
        block = data[at : at + 4096]
        if block.count(0) == len(block):
            sink.seek(len(block), io.SEEK_CUR)
        else:
            sink.write(block)


def check_packages(release: Release) -> Iterator[str]:
    """Yield the packages that apk does not verify, and the programs that are not position-independent."""
    packages = release.below(f"{REPOSITORY}/", ".apk")
    result = _apk(release, "verify", "--keys-dir", "/keys", *(f"/{package}" for package in packages))
    good = {line.removesuffix(": OK") for line in result.stdout.splitlines() if line.endswith(": OK")}
    bad = [package for package in packages if f"/{package}" not in good]
    yield from (f"{package} is not verified by apk" for package in bad)
    if not packages or (result.returncode != 0 and not bad):
        yield f"apk verify fails: {result.stderr.strip()}"
    for package in packages:
        if package not in bad:
            yield from _fixed(release.folder / package, package)


def check_index(release: Release) -> Iterator[str]:
    """Yield the differences between the index and apk's index of the packages, field by field."""
    if _apk(release, "verify", "--keys-dir", "/keys", f"/{INDEX}").returncode != 0:
        yield f"{INDEX} is not verified by apk"
        return
    names = [f"/{path}" for path in release.below(f"{REPOSITORY}/", ".apk")]
    result = _apk(release, "mkndx", "--keys-dir", "/keys", "-o", f"{WORK}/index.adb", *names)
    if result.returncode != 0:
        yield f"apk cannot create an index of the packages: {result.stderr.strip()}"
        return
    stated, wanted = (_dump(release, path) for path in (f"/{INDEX}", f"{WORK}/index.adb"))
    if stated != wanted:
        line = next((line for line in wanted if line not in stated), "") or next(
            line for line in stated if line not in wanted
        )
        yield f"{INDEX} does not list exactly these packages: {line.strip()!r} differs"


def _dump(release: Release, path: str) -> list[str]:
    lines = _apk(release, "adbdump", path).stdout.splitlines()
    return [line for line in lines if not line.startswith("#")]


def _apk(release: Release, *words: str) -> subprocess.CompletedProcess[str]:
    folders = {"/keys": release.folder / "keys", "/repository": release.folder / REPOSITORY}
    inside = [word.replace(f"/{REPOSITORY}/", "/repository/") for word in words]
    done = tools.run(release.tools.apk, ["/sbin/apk", *inside], folders, release.scratch)
    done.stdout = done.stdout.replace("/repository/", f"/{REPOSITORY}/")
    return done


def check_programs(release: Release) -> Iterator[str]:
    """Yield the problems of host programs. verify.kernel_code checks the kernel, which has a fixed address."""
    for program in PROGRAMS:
        if program != VMLINUX:
            yield from _fixed(release.folder / program, program)


def _fixed(path: Path, name: str) -> Iterator[str]:
    try:
        findings = pie.examine_all(contents.read(path))
    except ContentsError as error:
        yield f"{name} cannot be read: {error}"
        return
    for finding in findings:
        if finding.problems:
            inside = "" if finding.path == str(path) else f"{finding.path}: "
            yield f"{name}: {inside}{', '.join(finding.problems)}"


def check_sbom(release: Release) -> Iterator[str]:
    """Yield the problems of the bills of materials."""
    artifacts = {path: release.files[path] for path in (*PROGRAMS, *release.below(f"{REPOSITORY}/", ".apk"))}
    artifacts |= {f"images/{name}": digest for name, digest in release.raw_images().items()}
    second = {release.files[path]: files.sha512(release.folder / path) for path in artifacts if path in release.files}
    for path, read in ((SPDX, _spdx_digests), (CYCLONEDX, _cyclonedx_digests)):
        try:
            document = json.loads((release.folder / path).read_bytes())
            stated, longer = (read(document, algorithm) for algorithm in ("SHA-256", "SHA-512"))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            yield f"{path} cannot be read: {type(error).__name__}: {error}"
            continue
        digests = set(stated.values())
        yield from (f"{path} does not list {name}" for name, digest in artifacts.items() if digest not in digests)
        for purl, digest in stated.items():
            if purl.startswith(_OWN) and digest not in artifacts.values():
                yield f"{path} lists {purl} with a digest that no file of the release has"
            elif digest in second and longer.get(purl) != second[digest]:
                yield f"{path} lists {purl} with the SHA-512 of another file, or without one"
    yield from _invalid(release)


def _spdx_digests(document: Any, algorithm: str) -> dict[str, str]:
    digests: dict[str, str] = {}
    for package in document["packages"]:
        names = [ref["referenceLocator"] for ref in package.get("externalRefs", [])]
        for checksum in package.get("checksums", []):
            if checksum["algorithm"] == algorithm.replace("-", ""):
                digests[names[0] if names else package["SPDXID"]] = checksum["checksumValue"]
    return digests


def _cyclonedx_digests(document: Any, algorithm: str) -> dict[str, str]:
    digests: dict[str, str] = {}
    for component in document["components"]:
        for digest in component.get("hashes", []):
            if digest["alg"] == algorithm:
                digests[component.get("purl", component["bom-ref"])] = digest["content"]
    return digests


def _invalid(release: Release) -> Iterator[str]:
    from spdx_tools.spdx.parser.error import SPDXParsingError
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    try:
        problems: Sequence[Any] = validate_full_spdx_document(parse_file(str(release.folder / SPDX)))
        yield from (f"{SPDX} is not valid: {each.validation_message}" for each in problems[:1])
    except SPDXParsingError as error:
        yield f"{SPDX} is not valid: {error.messages[0]}"
    text = (release.folder / CYCLONEDX).read_text(encoding="utf-8")
    problem = cyclonedx.problem(text)
    if problem is not None:
        yield f"{CYCLONEDX} is not valid: {problem.splitlines()[0]}"


def check_vex(release: Release) -> Iterator[str]:
    """Yield the problems of the statements about vulnerabilities."""
    try:
        bill = json.loads((release.folder / CYCLONEDX).read_bytes())
        products = {component["purl"] for component in bill["components"] if "purl" in component}
        yield from vex.problems(release.folder / OPENVEX, release.folder / VEX_CYCLONEDX, products)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{CYCLONEDX} cannot be read: {type(error).__name__}: {error}"


def check_oci(release: Release) -> Iterator[str]:
    """Yield the problems of the container image."""
    layout = release.folder / OCI_LAYOUT
    needed = {"oci-layout", "index.json", "manifest.json"}
    layers: list[tuple[Path, str]] = []
    try:
        for descriptor in json.loads((layout / "index.json").read_bytes())["manifests"]:
            needed.add(_blob(descriptor))
            manifest = json.loads((layout / _blob(descriptor)).read_bytes())
            configuration = json.loads((layout / _blob(manifest["config"])).read_bytes())
            parts = [descriptor, manifest["config"], *manifest["layers"]]
            needed |= {_blob(part) for part in parts}
            yield from _blobs(layout, parts)
            for layer, wanted in zip(manifest["layers"], configuration["rootfs"]["diff_ids"], strict=True):
                layers.append((layout / _blob(layer), wanted))
        saved = json.loads((layout / "manifest.json").read_bytes())
        named = {name for each in saved for name in (each["Config"], *each["Layers"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{OCI_LAYOUT} cannot be read: {type(error).__name__}: {error}"
        return
    if not named <= needed:
        yield f"{OCI_LAYOUT}/manifest.json names blobs that index.json does not"
    have = {path.removeprefix(f"{OCI_LAYOUT}/"): path for path in release.below(f"{OCI_LAYOUT}/")}
    if have.keys() != needed:
        yield f"{OCI_LAYOUT} contains wrong files, or lacks files: {', '.join(sorted(have.keys() ^ needed))}"
    yield from _archive(release, have)
    for path, wanted in layers:
        try:
            yield from _layer(release, path, wanted)
        except (OSError, tarfile.TarError, zlib.error, EOFError) as error:
            yield f"{OCI_LAYOUT}: the layer {path.name} cannot be read: {error}"


def _blob(descriptor: Any) -> str:
    algorithm, digest = descriptor["digest"].split(":")
    if algorithm != "sha256" or not digest.isalnum():
        raise ValueError(f"not a digest: {descriptor['digest']}")
    return f"blobs/sha256/{digest}"


def _blobs(layout: Path, parts: Sequence[Any]) -> Iterator[str]:
    for part in parts:
        path = layout / _blob(part)
        if path.stat().st_size != part["size"] or f"sha256:{files.sha256(path)}" != part["digest"]:
            yield f"{OCI_LAYOUT}/{_blob(part)} does not match its descriptor"


def _layer(release: Release, path: Path, wanted: str) -> Iterator[str]:
    """Yield the problems of a layer: its sum without compression, and the files of the release in it."""
    plain = release.scratch / "layer.tar"
    with gzip.open(path) as source, plain.open("wb") as sink:
        while data := source.read(_CHUNK):
            sink.write(data)
    try:
        if f"sha256:{files.sha256(plain)}" != wanted:
            yield f"{OCI_LAYOUT}: the sum of the layer {path.name} differs from its configuration"
        known = {Path(program).name: release.files[program] for program in PROGRAMS} | release.raw_images()
        with tarfile.open(plain) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is not None and hashlib.file_digest(stream, "sha256").hexdigest() != known.get(member.name):  # type: ignore[arg-type]
                    yield f"{OCI_LAYOUT}: {member.name} in the layer is not that of the release"
    finally:
        plain.unlink()


def _archive(release: Release, have: Mapping[str, str]) -> Iterator[str]:
    """Yield the differences between archive and layout."""
    digests: dict[str, str] = {}
    try:
        with tarfile.open(release.folder / OCI_ARCHIVE) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is not None:
                    digests[member.name] = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
                elif not member.isdir():
                    yield f"{OCI_ARCHIVE}: {member.name} is neither file nor folder"
    except (OSError, tarfile.TarError, EOFError) as error:
        yield f"{OCI_ARCHIVE} cannot be read: {error}"
        return
    if digests != {name: release.files[path] for name, path in have.items()}:
        yield f"{OCI_ARCHIVE} and {OCI_LAYOUT} have different contents"


# Name -> description and check.
CHECKS: Mapping[str, tuple[str, Callable[[Release], Iterator[str]]]] = {
    "layout": ("the required files of a release", check_layout),
    "sources": ("locks and sources of the same commit", check_sources),
    "images": (IMAGE_SUMS, check_images),
    "packages": (REPOSITORY, check_packages),
    "index": (INDEX, check_index),
    "programs": (PROGRAMS[0], check_programs),
    "sbom": ("sbom/", check_sbom),
    "vex": ("vex/", check_vex),
    "oci": ("oci/", check_oci),
}
