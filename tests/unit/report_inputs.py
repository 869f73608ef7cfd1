# SPDX-License-Identifier: Apache-2.0
"""A small release to write reports about: real recipes, and files in the format of the real ones."""

from __future__ import annotations

import struct
from dataclasses import asdict
from pathlib import Path

from nabla.packages.catalog import BinaryPackage, BuildRecord
from nabla.report.render import Inputs
from verify import pie, report, syscalls

HOSTILE = "<script>alert(\"1\")</script> & 'more'"
BLOCKS, FREE = 64, 24  # of 4096 bytes


def superblock(blocks: int = BLOCKS, free: int = FREE, log2: int = 2) -> bytes:
    """The start of an ext file system, the only part that the report reads."""
    head = struct.pack("<IIIII", 16, blocks, 0, free, 0) + struct.pack("<II", 0, log2)
    return bytes(1024) + head + bytes(56 - len(head)) + b"\x53\xef" + bytes(966)


def part(name: str, version: str, summary: str = "what it is") -> BinaryPackage:
    """A package without content."""
    return BinaryPackage(
        name=name, version=version, summary=summary, depends=(), provides=(), replaces=(), files=(), scripts={}
    )


def built(recipe: str, version: str, *parts: str, summary: str = "what it is") -> BuildRecord:
    """A recipe's record."""
    return BuildRecord(
        recipe=recipe,
        license="MIT",
        homepage=None,
        key="0" * 64,
        tree="1" * 64,
        parts=tuple(part(name, version, summary) for name in parts),
    )


def make(folder: Path, text: str = "what it is") -> Inputs:
    """Write the files of a release; `text` goes to every place that can contain third-party text."""
    records = [
        built("musl", "1.2.5-r100", "musl", "musl-dev", summary=text),
        built("libgcc", "12.2.0-r0", "libgcc", summary=text),
        built("zlib", "1.3.1-r0", "zlib", "zlib-dev", summary=text),
        built("openssl", "3.5.7-r0", "openssl", summary=text),
        built("iperf3", "3.20-r0", "iperf3", summary=text),
    ]
    repository, verified = folder / "apk", folder / "verify"
    for each in (repository, verified):
        each.mkdir(parents=True)
    (repository / "Packages.adb").write_bytes(b"index")
    for number, package in enumerate(package for record in records for package in record.parts):
        (repository / package.apk.name).write_bytes(bytes(1000 * (number + 1)))
    (folder / "vmlinux").write_bytes(b"\x7fELF" + bytes(5000))
    (folder / "nabla-run").write_bytes(b"\x7fELF" + bytes(120))
    (folder / "minimal.ext3").write_bytes(superblock().ljust(BLOCKS * 4096, b"\0"))
    findings = [
        pie.Finding("/bin/true", "program", pie.LOADER, (), owner=text),
        pie.Finding(f"/bin/{text}", "library", None, (text,)),
    ]
    calls = [
        syscalls.Finding("/bin/true"),
        syscalls.Finding(f"/bin/{text}", (syscalls.Use(64, "syscall", text, sure=False),), owner=text),
    ]
    (verified / "minimal-pie.json").write_text(report.as_json([asdict(each) for each in findings]))
    (verified / "minimal-syscalls.json").write_text(report.as_json([asdict(each) for each in calls]))
    return Inputs(
        vmlinux=folder / "vmlinux",
        launcher=folder / "nabla-run",
        images={"minimal": folder / "minimal.ext3"},
        repository=repository,
        verified=verified,
        built=records,
        components=["linux", "musl", "zlib"],
        expected={"kernel": {f"out/{text}": "a" * 64}, "programs": {"out/x": "b" * 64}},
        sums={"kernel": {f"out/{text}": "a" * 64}, "programs": {"out/x": "b" * 64}},
    )
