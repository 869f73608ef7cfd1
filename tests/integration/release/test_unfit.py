# SPDX-License-Identifier: Apache-2.0
"""Mistakes of a signer: every byte is signed, but the files are inconsistent."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nabla.core import manifest
from nabla.core.artifacts import PACKAGE_KEY
from nabla.release import assembly, provenance
from verify.release import consistency, layout
from verify.release.consistency import Release
from verify.release.layout import CYCLONEDX, INDEX, SPDX
from verify.release.layout import OCI_ARCHIVE as ARCHIVE
from verify.release.layout import OCI_LAYOUT as LAYOUT
from verify.release.statement import Statement
from verify.release.tools import Tools

from .copies import SMALL, Copy, Tamper


def _rebuild_layer(copy: Copy) -> None:
    """Put another launcher into the container image, and update all digests of the layout."""
    layout = copy.path(LAYOUT)
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]).read_bytes())
    config = json.loads(_blob(layout, manifest["config"]).read_bytes())
    old = [index["manifests"][0], manifest["config"], *manifest["layers"]]
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        member = tarfile.TarInfo("nabla-run")
        member.size = 4
        writer.addfile(member, io.BytesIO(b"evil"))
    for descriptor in old:
        _blob(layout, descriptor).unlink()
    config["rootfs"]["diff_ids"] = [f"sha256:{_keep(layout, sink.getvalue(), {})}"]
    _blob(layout, {"digest": config["rootfs"]["diff_ids"][0]}).unlink()
    _keep(layout, gzip.compress(sink.getvalue()), manifest["layers"][0])
    _keep(layout, json.dumps(config).encode(), manifest["config"])
    _keep(layout, json.dumps(manifest).encode(), index["manifests"][0])
    copy.replace(f"{LAYOUT}/index.json", json.dumps(index).encode())


def _blob(layout: Path, descriptor: Any) -> Path:
    return layout / "blobs" / "sha256" / str(descriptor["digest"]).removeprefix("sha256:")


def _keep(layout: Path, data: bytes, descriptor: Any) -> str:
    name = layout / "blobs" / "sha256" / "new"
    name.write_bytes(data)
    digest = manifest.file_sha256(name)
    name.rename(name.with_name(digest))
    descriptor.update(digest=f"sha256:{digest}", size=len(data))
    return digest


def _only(copy: Copy, image: Callable[[bytes], bytes], pack: Callable[[bytes], bytes]) -> None:
    """Keep one image, changed before and after it is compressed again; its sum is that of the changed image."""
    import zstandard

    raw = zstandard.ZstdDecompressor().decompress(copy.path(f"images/{SMALL}.ext3.zst").read_bytes())
    for path in copy.path("images").iterdir():
        path.unlink()
    changed = image(raw)
    scratch = copy.path("images") / f"{SMALL}.ext3"
    scratch.write_bytes(changed)
    copy.path(layout.IMAGE_SUMS).write_text(assembly.sums({scratch.name: manifest.file_sha256(scratch)}))
    scratch.unlink()
    packed = pack(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(changed))
    copy.path(f"images/{SMALL}.ext3.zst").write_bytes(packed)


def _broken(raw: bytes) -> bytes:
    """Free all inodes in the bitmap of the first group."""
    block = int.from_bytes(raw[4096 + 4 : 4096 + 8], "little")
    return raw[: block * 4096] + bytes(4096) + raw[(block + 1) * 4096 :]


def _without_checksum(packed: bytes) -> bytes:
    import zstandard

    raw = zstandard.ZstdDecompressor().decompress(packed)
    return zstandard.ZstdCompressor(level=1, write_checksum=False).compress(raw)


def _same(data: bytes) -> bytes:
    return data


def _unfit(copy: Copy) -> None:
    """The sum of another image."""
    _only(copy, _same, _same)
    copy.path(layout.IMAGE_SUMS).write_text(f"{'0' * 64} *{SMALL}.ext3\n")


def _other_apk(copy: Copy) -> None:
    """A valid package under the name of another."""
    one, other = copy.apks()[:2]
    copy.replace(f"apk/x86_64/{one}", copy.path(f"apk/x86_64/{other}").read_bytes())


def _old_key(copy: Copy) -> None:
    """The public key of another signer."""
    words = ["openssl", "genrsa", "2048"]
    private = subprocess.run(words, check=True, capture_output=True).stdout
    words = ["openssl", "rsa", "-pubout"]
    public = subprocess.run(words, input=private, check=True, capture_output=True).stdout
    copy.replace(f"keys/{PACKAGE_KEY}.pub", public)


def _static(copy: Copy) -> None:
    """A program with a fixed address: the kernel is one."""
    copy.replace("bin/nabla-run", copy.path("kernel/vmlinux").read_bytes())


def _drop_component(document: Any) -> None:
    document["components"] = [each for each in document["components"] if each["name"] != "zlib"]


def _drop_package(document: Any) -> None:
    document["packages"] = [each for each in document["packages"] if each["name"] != "zlib"]


def _other_sha512(document: Any) -> None:
    package = next(each for each in document["components"] if each["purl"].startswith("pkg:apk/nabla/"))
    next(each for each in package["hashes"] if each["alg"] == "SHA-512")["content"] = "0" * 128


def _foreign(document: Any) -> None:
    other = {"purl": "pkg:apk/nabla/other@1-r0", "bom-ref": "other", "type": "library", "name": "other"}
    document["components"].append({**other, "hashes": [{"alg": "SHA-256", "content": "0" * 64}]})


# Name, change, the check that must fail, and its message. Only this check runs.
def _not_affected(document: Any) -> None:
    document["statements"][0].update(status="not_affected", justification="component_not_present")


def _another_product(document: Any) -> None:
    document["statements"][0]["products"] = [{"@id": "pkg:generic/other@1"}]


def _contradict(document: Any) -> None:
    document["statements"].append({**document["statements"][0], "status": "under_investigation"})


INSIDE: list[tuple[str, Tamper, str, str]] = [
    ("no launcher", lambda c: c.path("bin/nabla-run").unlink(), "layout", "bin/nabla-run is missing"),
    ("no report", lambda c: c.path("report/index.html").unlink(), "layout", "report/index.html is missing"),
    ("no licenses", lambda c: shutil.rmtree(c.path("licenses")), "layout", "no license texts"),
    ("image ends early", lambda c: _only(c, _same, lambda data: data[:-9]), "images", "ends too early"),
    ("image is too long", lambda c: _only(c, _same, lambda data: data + b"\0"), "images", "has data behind its end"),
    ("image is no zstd", lambda c: _only(c, _same, lambda data: b"\0" + data), "images", "cannot be decompressed"),
    ("no checksum", lambda c: _only(c, _same, _without_checksum), "images", "does not state its size and checksum"),
    ("another raw sum", _unfit, "images", "contains an image with another sum"),
    ("broken file system", lambda c: _only(c, _broken, _same), "images", "e2fsck finds faults"),
    ("raw sum missing", lambda c: c.replace(layout.IMAGE_SUMS, b""), "images", "does not list these images"),
    ("damaged package", lambda c: c.flip(f"apk/x86_64/{c.apks()[0]}"), "packages", "is not verified by apk"),
    ("packages by another key", _old_key, "packages", "is not verified by apk"),
    ("index by another key", _old_key, "index", "is not verified by apk"),
    ("damaged index", lambda c: c.flip(INDEX), "index", "is not verified by apk"),
    ("package removed", lambda c: c.path(f"apk/x86_64/{c.apks()[0]}").unlink(), "index", "does not list exactly"),
    ("package under another name", _other_apk, "index", INDEX),
    ("launcher with a fixed address", _static, "programs", "bin/nabla-run"),
    (
        "SPDX without a package",
        lambda c: c.edit(SPDX, _drop_package),
        "sbom",
        f"{SPDX} does not list apk/x86_64/zlib-1",
    ),
    ("CycloneDX without one", lambda c: c.edit(CYCLONEDX, _drop_component), "sbom", f"{CYCLONEDX} does not list apk/"),
    ("CycloneDX of another", lambda c: c.edit(CYCLONEDX, _foreign), "sbom", "that no file of the release has"),
    ("CycloneDX, SHA-512", lambda c: c.edit(CYCLONEDX, _other_sha512), "sbom", "the SHA-512 of another file"),
    ("no VEX", lambda c: c.replace(layout.OPENVEX, b"{}"), "vex", "is not a VEX document"),
    (
        "VEX of two opinions",
        lambda c: c.edit(layout.OPENVEX, _not_affected),
        "vex",
        "nabla.openvex.json and nabla.cdx.json",
    ),
    ("VEX of another product", lambda c: c.edit(layout.OPENVEX, _another_product), "vex", "is not in the bill of mat"),
    ("VEX against itself", lambda c: c.edit(layout.OPENVEX, _contradict), "vex", "contradicts itself about CVE-"),
    ("VEX of no schema", lambda c: c.edit(layout.VEX_CYCLONEDX, lambda d: d.update(x=1)), "vex", "is not valid"),
    ("no SPDX", lambda c: c.replace(SPDX, b"{"), "sbom", f"{SPDX} cannot be read"),
    ("damaged blob", lambda c: c.flip(_largest(c)), "oci", "does not match its descriptor"),
    (
        "blob too many",
        lambda c: c.path(f"{LAYOUT}/blobs/sha256/0").write_text(""),
        "oci",
        "contains wrong files",
    ),
    ("other content in the layer", _rebuild_layer, "oci", "nabla-run in the layer is not that of the release"),
    (
        "archive of another layout",
        lambda c: c.edit(f"{LAYOUT}/index.json", lambda d: d.update(x=1)),
        "oci",
        ARCHIVE,
    ),
    ("damaged archive", lambda c: c.flip(ARCHIVE), "oci", ARCHIVE),
]


def _largest(copy: Copy) -> str:
    largest = max(copy.path(f"{LAYOUT}/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    return f"{LAYOUT}/blobs/sha256/{largest.name}"


@pytest.mark.parametrize(("tamper", "check", "reason"), [case[1:] for case in INSIDE], ids=[case[0] for case in INSIDE])
def test_unfit(copy: Copy, tools: Tools, tmp_path: Path, tamper: Tamper, check: str, reason: str) -> None:
    tamper(copy)
    seen = Release(copy.folder, assembly.digests(copy.folder), copy.statement(), tools, tmp_path)
    # A generator: later findings (schemas are slow) need not be searched for.
    problems = []
    for problem in consistency.CHECKS[check][1](seen):
        problems.append(problem)
        if reason in problem:
            return
    pytest.fail(f"no problem says {reason!r}: {problems}")


def test_other_sources(copy: Copy, tools: Tools, tmp_path: Path) -> None:
    statement = copy.statement()
    own = tuple(each for each in provenance.dependencies())
    other = Statement(statement.version, statement.subjects, own[1:])
    problems = list(consistency.check_sources(Release(copy.folder, {}, other, tools, tmp_path)))
    assert problems == [f"{own[0].name} is locked, but not in the statement"]
    assert not list(consistency.check_sources(Release(copy.folder, {}, Statement("1", {}, own), tools, tmp_path)))


@pytest.mark.parametrize("text", ["{}", '{"$schema": "x", "components": [], "bomFormat": "other"}'])
def test_bills_that_follow_no_schema(copy: Copy, tools: Tools, tmp_path: Path, text: str) -> None:
    copy.replace(CYCLONEDX, text.encode())
    copy.edit(SPDX, lambda document: document.update(dataLicense="none"))
    seen = Release(copy.folder, assembly.digests(copy.folder), copy.statement(), tools, tmp_path)
    problems = "\n".join(consistency._invalid(seen))
    assert f"{SPDX} is not valid" in problems
    assert f"{CYCLONEDX} is not valid" in problems
