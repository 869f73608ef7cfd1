# SPDX-License-Identifier: Apache-2.0
"""The file server's messages in addition to 9P2000.L, against a guest that sends anything."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from .attacked import Place, refused, target
from .launcher import proc_status
from .nine import NOFID, PLAIN, ROOT, TYPES, Client, HungUp, Refused, connect, text

__all__ = ["target"]


def server_of(client: Client) -> Path:
    """Return the folder in /proc of the file server."""
    pid = client.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (server,) = [child for child in children if Path(f"/proc/{child}/comm").read_text() == "nabla-run\n"]
    return Path("/proc") / server


def test_each_message_does_what_two_do(target: Place, stand_in: Path) -> None:
    target.make("dir/file")
    with connect(stand_in, target.share) as client:
        folder, attributes = client.look("dir")
        assert stat.S_ISDIR(attributes.mode)
        file, attributes = client.look("file", folder)
        assert attributes == client.getattr(client.walk("dir", "file")) == client.look_at(file)
        opened = client.reopen(file)
        assert client.read(opened) == b"inside"
        refused("EBADF", lambda: client.read(file))
        writable, new, attributes = client.make("new", mode=0o7640, fid=folder)
        assert (attributes.mode, attributes.size) == (stat.S_IFREG | 0o1640, 0)
        assert client.write(writable, b"text") == 4 and client.look_at(new).size == 4
        refused("EBADF", lambda: client.write(new, b"text"))
        client.forget(folder, file, opened, writable, new)
        for fid in (folder, file, opened, writable, new):
            refused("EBADF", lambda fid=fid: client.getattr(fid))  # type: ignore[misc]


def test_a_session_without_the_dialect(target: Place, stand_in: Path) -> None:
    """They do not exist there, even after a session with the dialect."""
    target.make("a")
    for first in (False, True):
        with connect(stand_in, target.share, hello=first) as client:
            client.version(dialect=PLAIN)
            client.attach()
            refused("EOPNOTSUPP ENOTSUP", lambda client=client: client.look("a"))  # type: ignore[misc]
            refused("EOPNOTSUPP ENOTSUP", lambda client=client: client.look_at(ROOT))  # type: ignore[misc]
            refused("EOPNOTSUPP ENOTSUP", lambda client=client: client.reopen(ROOT))  # type: ignore[misc]
            refused("EOPNOTSUPP ENOTSUP", lambda client=client: client.request("forget", bytes(4)))  # type: ignore[misc]
            refused("EOPNOTSUPP ENOTSUP", lambda client=client: client.make("b"))  # type: ignore[misc]
            assert client.getattr(ROOT)
    assert os.listdir(target.share) == ["a"]


def test_other_dialects(target: Place, stand_in: Path) -> None:
    with connect(stand_in, target.share, hello=False) as client:
        for dialect in ("9P2000.L.nabla.", "9P2000.L.nabl", "9P2000.L.", "9P2000", "", "x" * 4000):
            answer = client.request("version", struct.pack("<I", 8192) + text(dialect), 0xFFFF)
            assert answer[4:] == text("unknown")


NAMES = (b"..", b".", b"", b"/", b"/etc", b"../outside", b"a/../..", b"..\0", b"\0", b"x\0y", b"x" * 256, b"x" * 60000)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:12]))
def test_a_name_is_one_name(target: Place, stand_in: Path, name: bytes) -> None:
    with connect(stand_in, target.share) as client:
        refused("EINVAL ENAMETOOLONG", lambda: client.look(name))
        refused("EINVAL ENAMETOOLONG", lambda: client.make(name))
        if name:
            content = struct.pack("<HII", 0, ROOT, NOFID) + text(name)
            refused("EINVAL", lambda: client.request("look", content))


def test_links_are_never_followed(target: Place, stand_in: Path) -> None:
    (target.share / "host").symlink_to(target.outside)
    os.mkfifo(target.share / "fifo")
    with connect(stand_in, target.share) as client:
        client.symlink("guest", "../outside/secret")
        for name in ("host", "guest"):
            link, attributes = client.look(name)
            assert stat.S_ISLNK(attributes.mode)
            refused("ENOTDIR", lambda link=link: client.look("secret", link))  # type: ignore[misc]
            refused("EPERM", lambda link=link: client.reopen(link))  # type: ignore[misc]
            refused("ENOTDIR", lambda link=link: client.make("x", fid=link))  # type: ignore[misc]
            refused("EPERM", lambda name=name: client.make(name, os.O_TRUNC))  # type: ignore[misc]
        fifo, _ = client.look("fifo")
        refused("EPERM", lambda: client.reopen(fifo))


def test_read_only(target: Place, stand_in: Path) -> None:
    target.make("file")
    with connect(stand_in, target.share, "--read-only") as client:
        file, _ = client.look("file")
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC):
            refused("EROFS", lambda flags=flags: client.reopen(file, flags))  # type: ignore[misc]
        assert client.read(client.reopen(file)) == b"inside"
        for flags in (os.O_RDONLY, os.O_RDWR):
            refused("EROFS", lambda flags=flags: client.make("new", flags))  # type: ignore[misc]
    assert os.listdir(target.share) == ["file"]
    assert (target.share / "file").read_bytes() == b"inside"


def test_procfs_within_the_share(stand_in: Path) -> None:
    with connect(stand_in, Path("/"), "--read-only") as client:
        refused("EACCES", lambda: client.look("proc"))


def test_messages_that_lie(target: Place, stand_in: Path) -> None:
    """Requests that are truncated at each length, and fids that do not exist or are in use."""
    target.make("file")
    with connect(stand_in, target.share) as client:
        file = client.walk("file")
        contents = {
            "look": struct.pack("<HII", 0, ROOT, 50) + text("file"),
            "reopen": struct.pack("<III", file, 51, 0),
            "make": struct.pack("<III", ROOT, 52, 53) + text("new") + struct.pack("<III", 2, 0o644, 0),
        }
        for kind, content in contents.items():
            for cut in range(len(content)):
                refused("EPROTO EBADF", lambda kind=kind, content=content, cut=cut: client.request(kind, content[:cut]))  # type: ignore[misc]
        for fid in (50, 51, 52, 53):
            refused("EBADF", lambda fid=fid: client.getattr(fid))  # type: ignore[misc]
        for used in (ROOT, file):
            taken = struct.pack("<HII", 0, ROOT, used) + text("file")
            refused("EBADF", lambda taken=taken: client.request("look", taken))  # type: ignore[misc]
            refused("EBADF", lambda used=used: client.request("reopen", struct.pack("<III", file, used, 0)))  # type: ignore[misc]
        for pair in ((54, 54), (54, ROOT), (ROOT, 54), (file, file)):
            content = struct.pack("<III", ROOT, *pair) + text("new") + struct.pack("<III", 2, 0o644, 0)
            refused("EBADF", lambda content=content: client.request("make", content))  # type: ignore[misc]
            refused("EBADF", lambda: client.getattr(54))
        refused("EINVAL", lambda: client.make("new", 3))
        refused("EEXIST", lambda: client.make("file", os.O_EXCL))
        refused("EBADF", lambda: client.make("new", fid=77))
        assert os.listdir(target.share) == ["file"]
        refused("EBADF", lambda: client.look("file", 77))
        refused("EBADF", lambda: client.look_at(77))
        refused("EBADF", lambda: client.reopen(77))
        refused("EINVAL", lambda: client.reopen(file, 3))
        refused("ENOENT", lambda: client.look("none"))
        assert client.look_at(file, 65535).size == 6


@pytest.mark.parametrize("size", [1, 3, 5, 4097])
def test_what_cannot_be_answered_ends_the_connection(target: Place, stand_in: Path, size: int) -> None:
    with connect(stand_in, target.share) as client:
        client.send(struct.pack("<IBH", 7 + size, TYPES["forget"], 0xFFFF) + bytes(size))
        with pytest.raises(HungUp):
            client.receive()


def test_forgetting_is_not_answered(target: Place, stand_in: Path) -> None:
    """A flood of it, for existing and unknown fids, costs the server nothing, and other requests are answered."""
    target.make("file")
    with connect(stand_in, target.share) as client:
        server = server_of(client)
        descriptors = len(os.listdir(server / "fd"))
        file, _ = client.look("file")
        opened = [client.reopen(file) for _ in range(100)]
        assert len(os.listdir(server / "fd")) == descriptors + 100
        memory = int(proc_status(int(server.name))["VmRSS"].split()[0])
        client.forget()
        for _ in range(50):
            client.forget(*opened, *range(1 << 20, (1 << 20) + 60000), *opened)
        assert client.getattr(file).size == 6
        assert len(os.listdir(server / "fd")) == descriptors
        assert int(proc_status(int(server.name))["VmRSS"].split()[0]) < memory + 4096
        client.forget(ROOT, file)
        refused("EBADF", lambda: client.getattr(ROOT))
        client.attach()
        assert client.look("file")


def test_open_files_are_limited(target: Place, stand_in: Path) -> None:
    """Limited to half of the descriptors that the host permits; forgotten ones are free again."""
    target.make("file")
    with connect(stand_in, target.share, prefix=("prlimit", "--nofile=256:256")) as client:
        file, _ = client.look("file")
        opened: list[int] = []
        with pytest.raises(Refused, match="ENFILE"):
            while len(opened) < 256:
                opened.append(client.reopen(file))
        assert len(opened) == 128
        refused("ENFILE", lambda: client.make("new"))
        client.forget(*opened[:10])
        for _ in range(10):
            client.reopen(file)
        refused("ENFILE", lambda: client.reopen(file))


def test_directories_on_the_way(target: Place, stand_in: Path) -> None:
    """A directory that was replaced within the depth is ESTALE; higher ones are not checked."""
    target.make("a/b/c/file")
    with connect(stand_in, target.share) as client:
        a, _ = client.look("a")
        b, _ = client.look("b", a)
        c, _ = client.look("c", b)
        file, _ = client.look("file", c)
        for depth in (0, 1, 2, 3, 65535):
            assert client.look("file", c, depth)[1].size == client.look_at(file, depth).size == 6
        (target.share / "a").rename(target.share / "moved")
        target.make("a/b/c/file", b"another file")
        for depth in (0, 1, 2):
            assert client.look("file", c, depth)[1].size == client.look_at(file, depth).size == 6
        for depth in (3, 4, 65535):
            refused("ESTALE", lambda depth=depth: client.look("file", c, depth))  # type: ignore[misc]
            refused("ESTALE", lambda depth=depth: client.look("none", c, depth))  # type: ignore[misc]
            refused("ESTALE", lambda depth=depth: client.look_at(file, depth))  # type: ignore[misc]
        refused("ENOENT", lambda: client.look_at(a))
        (target.share / "moved" / "b" / "c" / "file").unlink()
        (target.share / "moved" / "b" / "c").rmdir()
        refused("ESTALE", lambda: client.look("file", c, 1))
        refused("ENOENT ESTALE", lambda: client.look("file", c, 0))


def test_a_replaced_file_is_no_stale_directory(target: Place, stand_in: Path) -> None:
    """A guest that reads ESTALE starts over and asks about each directory; ENOENT costs it one lookup."""
    file = target.make("a/b/file")
    with connect(stand_in, target.share) as client:
        fid, _ = client.look("file", client.look("b", client.look("a")[0])[0])
        file.rename(target.share / "kept")
        target.make("a/b/file", b"another file")
        for depth in (0, 1, 2, 65535):
            refused("ENOENT", lambda depth=depth: client.look_at(fid, depth))  # type: ignore[misc]
        (target.share / "a").rename(target.share / "moved")
        refused("ESTALE", lambda: client.look_at(fid, 2))


def test_a_request_examines_few_directories(target: Place, stand_in: Path) -> None:
    """No more than 64: for deeper paths, the guest asks about the directories one by one."""
    with connect(stand_in, target.share) as client:
        fid = ROOT
        for _ in range(66):
            client.mkdir("d", fid)
            fid, _ = client.look("d", fid)
        client.mkdir("d", fid)
        last, _ = client.look("d", fid)
        for most in (0, 1, 64):
            assert client.look("d", fid, most)[1].mode and client.look_at(last, most).mode
        for most in (65, 66, 65535):
            refused("ESTALE", lambda most=most: client.look("d", fid, most))  # type: ignore[misc]
            refused("ESTALE", lambda most=most: client.look_at(last, most))  # type: ignore[misc]
