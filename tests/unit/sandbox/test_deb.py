# SPDX-License-Identifier: Apache-2.0
"""Unpacking Debian packages: nabla's unpacker compared with dpkg, and packages that must be refused."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import pytest

from nabla.core import manifest
from nabla.core.errors import LockError
from nabla.sandbox import deb, lockfile
from nabla.sandbox.bwrap import Bind, Sandbox
from tests.unit import debs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty tree with the links of a merged /usr."""
    folder = tmp_path / "root"
    for name in deb.MERGED:
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")
    return folder


def package(tmp_path: Path, *members: tuple[tarfile.TarInfo, bytes], name: str = "data.tar.xz") -> Path:
    path = tmp_path / "x.deb"
    path.write_bytes(debs.deb(members, name))
    return path


def test_modes_links_and_merged_usr(tmp_path: Path, root: Path) -> None:
    path = package(
        tmp_path,
        debs.member("./bin/tool", "run", mode=0o4750, mtime=1000),
        debs.member("./usr/share/x/data", "text", mode=0o600),
        debs.member("./usr/share/doc/x/README", "long"),
        debs.member("./lib/libx.so", type=tarfile.SYMTYPE, linkname="libx.so.1"),
        debs.member("./usr/bin/same", type=tarfile.LNKTYPE, linkname="./bin/tool"),
    )
    old = os.umask(0o077)
    try:
        paths = deb.unpack(path, root)
    finally:
        os.umask(old)
    assert paths == ["usr/bin/tool", "usr/share/x/data", "usr/lib/libx.so", "usr/bin/same"]
    tool = (root / "bin/tool").stat()
    assert stat.S_IMODE(tool.st_mode) == 0o755
    assert tool.st_mtime == 1000
    assert stat.S_IMODE((root / "usr/share/x/data").stat().st_mode) == 0o644
    assert (root / "usr/bin/same").samefile(root / "bin/tool")
    assert os.readlink(root / "usr/lib/libx.so") == "libx.so.1"
    assert not (root / "usr/share/doc").exists()


@pytest.mark.parametrize("name", ["../evil", "usr/../../evil"])
def test_path_out_of_the_tree_is_refused(tmp_path: Path, root: Path, name: str) -> None:
    with pytest.raises(LockError, match="unsafe path"):
        deb.unpack(package(tmp_path, debs.member(name, "x")), root)


def test_link_out_of_the_tree_is_not_followed(tmp_path: Path, root: Path) -> None:
    link = debs.member("./usr/out", type=tarfile.SYMTYPE, linkname="/tmp")
    with pytest.raises(LockError, match="is outside of the tree"):
        deb.unpack(package(tmp_path, link, debs.member("./usr/out/evil", "x")), root)


def test_device_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(LockError, match="neither a file nor a link"):
        deb.unpack(package(tmp_path, debs.member("./dev/null", type=tarfile.CHRTYPE)), root)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "not an ar archive"),
        (debs.deb([debs.member("a", "x")])[:-20], "truncated"),
        (debs.ar({"debian-binary": b"2.0\n"}), "no data.tar"),
        (debs.ar({"data.tar.zst": b""}), "unknown compression"),
    ],
)
def test_broken_package(tmp_path: Path, root: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(data)
    with pytest.raises(LockError, match=message):
        deb.unpack(path, root)


@pytest.mark.buildroot
@pytest.mark.parametrize("name", ["bc", "make", "libc6"])
def test_same_files_as_dpkg(tmp_path: Path, root: Path, name: str, user_cache: Path) -> None:
    """nabla's unpacker and dpkg agree on real packages of the lock, except for deliberate omissions."""
    locked = next(file for file in lockfile.read_lock().files if file.name == name)
    path = user_cache / "sha256" / locked.sha256[:2] / locked.sha256
    assert path.exists(), "run `doit toolchain` first"
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    sandbox = Sandbox((Bind(theirs, "/build", writable=True), Bind(path.parent, "/src")))
    sandbox.run(f"dpkg-deb -x /src/{path.name} /build", title="dpkg-deb")
    expected = {}
    for file in theirs.rglob("*"):
        where = deb.tree_path(file.relative_to(theirs).as_posix())
        if f"{where}/".startswith(deb.SKIPPED) or (file.is_dir() and not file.is_symlink()):
            continue
        expected[where] = os.readlink(file) if file.is_symlink() else manifest.file_sha256(file)
    ours = {}
    for where in deb.unpack(path, root):
        file = root / where
        ours[where] = os.readlink(file) if file.is_symlink() else manifest.file_sha256(file)
    assert ours == expected
