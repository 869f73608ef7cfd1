# SPDX-License-Identifier: Apache-2.0
"""verify.contents: the contents of folders, images and packages; damaged ones are reported."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from nabla.core import paths
from nabla.core.artifacts import package_record
from nabla.packages import catalog
from verify import contents, pie
from verify.contents import Contents, ContentsError

DATABASE = """\
C:Q1x=
P:one
V:1
F:
R:top
F:usr/bin
R:x
a:0:0:755

P:two
F:usr/lib
R:y.so
"""


def test_folder_with_owners_and_links(tmp_path: Path) -> None:
    for name in ("usr/bin/x", "usr/lib/y.so", "lib/apk/db/installed", "top"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "lib/apk/db/installed").write_text(DATABASE)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/lib/z.so").symlink_to("/usr/lib/../lib/y.so")
    (tmp_path / "round").symlink_to("round")
    listing = contents.read(tmp_path, whole=True)
    assert listing.owners == {"/top": "one", "/usr/bin/x": "one", "/usr/lib/y.so": "two"}
    assert listing.resolve("/bin/x") == "/usr/bin/x"
    assert listing.resolve("/usr/lib/z.so") == "/usr/lib/y.so"
    assert listing.resolve("/round") is None
    assert listing.resolve("/usr/absent") is None
    assert listing.resolve("/usr/lib") is None
    assert list(listing.programs()) == []


def test_packages_are_read_as_apk_reads_them(monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> None:
    """Every package of the repository: the recorded files, with the contents in the cache."""
    from nabla.packages.builder import files_path

    monkeypatch.setenv("NABLA_CACHE", str(user_cache))
    count = 0
    for name in catalog.names():
        if not package_record(name).exists():
            continue
        built = catalog.read_build_record(name)
        for part in built.parts:
            if not part.apk.exists():
                continue
            listing = contents.read(part.apk)
            assert sorted([*listing.files, *listing.links]) == [f"/{path}" for path in part.files]
            root = files_path(built.key, part.name)
            for path, read in listing.files.items():
                assert read() == (root / path[1:]).read_bytes(), path
                assert listing.owners[path] == part.name
            for path, target in listing.links.items():
                assert (root / path[1:]).readlink() == Path(target)
            count += 1
    assert count > 5, "packages are built before the tests"


def older(path: Path) -> Path:
    """Write a package in Alpine's older format: three gzipped pieces of one tar."""
    pieces = [{".SIGN.RSA.x": b"s"}, {".PKGINFO": b"pkgname = thing\npkgver = 1\n"}, {"usr/bin/x": b"\x7fELFx"}]
    with path.open("wb") as stream:
        for number, files in enumerate(pieces):
            piece = io.BytesIO()
            with tarfile.open(fileobj=piece, mode="w") as tar:
                for name, data in files.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                if number == 2:
                    link = tarfile.TarInfo("usr/bin/y")
                    link.type, link.linkname = tarfile.SYMTYPE, "x"
                    tar.addfile(link)
            result = subprocess.run(["gzip", "-n"], input=piece.getvalue(), capture_output=True, check=True)
            stream.write(result.stdout)
    return path


def test_older_package(tmp_path: Path) -> None:
    listing = contents.read(older(tmp_path / "x.apk"))
    assert listing.owners == {"/usr/bin/x": "thing"}
    assert listing.links == {"/usr/bin/y": "x"}
    assert list(listing.programs()) == [("/usr/bin/x", b"\x7fELFx")]


def test_damage_is_told(tmp_path: Path) -> None:
    apk = next(part.apk for part in catalog.read_build_record("libgcc").parts if part.name == "libgcc")
    chance = random.Random(5)
    whole = [apk.read_bytes(), older(tmp_path / "old.apk").read_bytes()]
    path = tmp_path / "damaged.apk"
    for number in range(200):
        data = bytearray(whole[number % 2])
        del data[chance.randrange(8, len(data)) :]
        path.write_bytes(data)
        with pytest.raises(ContentsError):
            contents.read(path)
    for _ in range(300):
        data = bytearray(whole[0])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        # A flipped bit in the deflate stream may give other content, but must not raise another error.
        with suppress(ContentsError):
            contents.read(path)
    (tmp_path / "image").write_bytes(bytes(1080) + b"\x53\xef" + bytes(5000))
    with pytest.raises(ContentsError):
        contents.read(tmp_path / "image")


def test_image_is_a_root_file_system() -> None:
    listing = contents.read(paths.IMAGES / "minimal.ext3")
    assert listing.whole
    assert listing.resolve("/bin/sh") == "/bin/busybox"
    assert {path for path, _ in listing.programs()} >= {"/lib/ld-musl-x86_64.so.1", "/bin/busybox", "/sbin/nabla-init"}


def test_what_a_root_file_system_must_have() -> None:
    """nabla's musl and busybox, in incomplete file systems."""
    loader = (paths.MUSL / "lib/ld-musl-x86_64.so.1").read_bytes
    parts = {part.name: part for part in catalog.read_build_record("libstdc++").parts}
    listing = contents.read(parts["libstdc++"].apk)
    library = listing.files[f"/{parts['libstdc++'].files[-1]}"]
    system = Contents("t", whole=True, files={pie.LOADER: loader, "/usr/lib/x.so": library})
    problems = {finding.path: finding.problems for finding in pie.examine_all(system)}
    assert problems == {pie.LOADER: (), "/usr/lib/x.so": ("libgcc_s.so.1 cannot be found",)}
    system.files["/opt/libgcc_s.so.1"] = library
    assert [finding.path for finding in pie.examine_all(system) if finding.problems] == ["/usr/lib/x.so"]
    system.files["/etc/ld-musl-x86_64.path"] = lambda: b"/usr/lib\n/opt\n"
    assert not any(finding.problems for finding in pie.examine_all(system))
    system.whole = False
    del system.files["/opt/libgcc_s.so.1"]
    assert not any(finding.problems for finding in pie.examine_all(system))
