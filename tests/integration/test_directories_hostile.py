# SPDX-License-Identifier: Apache-2.0
"""The file server of shared directories against a guest that sends anything: no file outside the share is reached.

The server is the launcher's own, with its confinement; only the kernel is replaced, see nine.py.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .attacked import Place, refused, target
from .launcher import NOBODY, OWN_ERROR, proc_status
from .nine import ROOT, Client, Refused, connect, text

__all__ = ["target"]

O_WRONLY, O_RDWR, O_CREAT, O_TRUNC = os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC
REMOVEDIR = 0x200


NAMES = (b"..", b".", b"", b"/", b"/etc", b"../outside", b"a/../..", b"..\0", b"\0", b"x\0y", b"x" * 256, b"x" * 60000)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:12]))
def test_a_name_is_one_name(target: Place, stand_in: Path, name: bytes) -> None:
    """Each request that takes a name refuses an invalid one, in each of its arguments."""
    target.make("a")
    allowed = "EINVAL ENAMETOOLONG"
    with connect(stand_in, target.share) as client:
        refused(allowed, lambda: client.walk(name))
        refused(allowed, lambda: client.create(name))
        refused(allowed, lambda: client.mkdir(name))
        refused(allowed, lambda: client.symlink(name, "x"))
        refused(allowed, lambda: client.rename("a", name))
        refused(allowed, lambda: client.rename(name, "b"))
        refused(allowed, lambda: client.unlink(name))
        refused(allowed, lambda: client.unlink(name, flags=REMOVEDIR))
        node = struct.pack("<IIII", stat.S_IFREG | 0o644, 0, 0, 0)
        refused(allowed, lambda: client.request("mknod", struct.pack("<I", ROOT) + text(name) + node))
        file = client.walk("a")
        refused(allowed, lambda: client.request("link", struct.pack("<II", ROOT, file) + text(name)))
    assert os.listdir(target.share) == ["a"]


def test_links_are_never_followed(target: Place, stand_in: Path) -> None:
    """Links of the guest and of the host, as the last name and within the path, for each kind of request."""
    target.make("dir/file")
    (target.share / "host").symlink_to(target.outside)
    (target.share / "host-file").symlink_to(target.secret)
    if os.geteuid() == 0:
        os.lchown(target.share / "host-file", NOBODY, NOBODY)
    with connect(stand_in, target.share) as client:
        client.symlink("guest", "../outside")
        client.symlink("guest-file", target.secret.as_posix())
        client.symlink("self", "/proc/self/fd")
        for name in ("host", "guest", "host-file", "guest-file", "self"):
            link = client.walk(name)
            assert stat.S_ISLNK(client.getattr(link).mode)
            refused("ENOTDIR ENOENT", lambda name=name: client.walk(name, "secret"))  # type: ignore[misc]
            refused("ENOTDIR", lambda link=link: client.walk("x", fid=link))  # type: ignore[misc]
            refused("EPERM", lambda link=link: client.open(link, O_RDWR))  # type: ignore[misc]
            refused("EPERM", lambda link=link: client.truncate(link, 0))  # type: ignore[misc]
            refused("EPERM", lambda link=link: client.chmod(link, 0o777))  # type: ignore[misc]
            refused("ENOTDIR", lambda link=link: client.mkdir("x", link))  # type: ignore[misc]
            refused("ENOTDIR", lambda link=link: client.rename("dir", "x", target=link))  # type: ignore[misc]
            new = client.walk()
            lcreate = struct.pack("<I", new) + text(name) + struct.pack("<III", O_WRONLY | O_TRUNC, 0o644, 0)
            refused("EPERM EEXIST", lambda lcreate=lcreate: client.request("lcreate", lcreate))  # type: ignore[misc]
        client.request("link", struct.pack("<II", ROOT, client.walk("host-file")) + text("again"))
    assert (target.share / "again").is_symlink()


def test_what_is_no_file_is_never_opened(target: Place, stand_in: Path) -> None:
    """FIFOs and sockets of the host are names; the guest makes its own, and no device."""
    os.mkfifo(target.share / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(target.share / "socket"))
        with connect(stand_in, target.share) as client:
            for name in ("fifo", "socket"):
                file = client.walk(name)
                refused("EPERM", lambda file=file: client.open(file))  # type: ignore[misc]
                refused("EPERM", lambda file=file: client.chmod(file, 0o777))  # type: ignore[misc]
            for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR, stat.S_IFLNK, 0, 0o170000):
                node = text("node") + struct.pack("<IIII", kind | 0o666, 1, 3, 0)
                request = struct.pack("<I", ROOT) + node
                refused("EPERM", lambda request=request: client.request("mknod", request))  # type: ignore[misc]
            fifo = text("mine") + struct.pack("<IIII", stat.S_IFIFO | 0o7777, 0, 0, 0)
            client.request("mknod", struct.pack("<I", ROOT) + fifo)
    assert stat.S_IMODE((target.share / "mine").stat().st_mode) == 0o1777
    assert not (target.share / "node").exists()


def test_no_bits_act_for_the_owner(target: Place, stand_in: Path) -> None:
    """Set-user-ID files would grant the rights of the host's user to others. The sticky bit is harmless."""
    with connect(stand_in, target.share) as client:
        file = client.create("file", mode=0o7777)
        client.mkdir("dir", mode=0o7777)
        for fid in (file, client.walk("file"), client.walk("dir")):
            client.chmod(fid, 0o7777)
            assert stat.S_IMODE(client.getattr(fid).mode) == 0o1777
    assert stat.S_IMODE((target.share / "file").stat().st_mode) == 0o1777
    assert stat.S_IMODE((target.share / "dir").stat().st_mode) == 0o1777


def test_procfs_within_the_share(stand_in: Path) -> None:
    """Even a share of everything does not expose the server itself: /proc/PID/mem is its memory."""
    with connect(stand_in, Path("/"), "--read-only") as client:
        refused("EACCES", lambda: client.walk("proc"))
        assert b"usr" in client.names(client.walk())


def mutations(client: Client) -> dict[str, Callable[[], object]]:
    """Return one attempt of each kind to change something."""
    file, folder = client.walk("dir", "file"), client.walk("dir")
    times = struct.pack("<IIIIIQQQQQ", file, 0x1B0, 0, 0, 0, 0, 1, 0, 1, 0)
    node = struct.pack("<I", ROOT) + text("n") + struct.pack("<IIII", stat.S_IFREG | 0o644, 0, 0, 0)
    return {
        "open to write": lambda: client.open(file, O_WRONLY),
        "open to read and write": lambda: client.open(file, O_RDWR),
        "truncate at open": lambda: client.open(file, O_TRUNC),
        "create": lambda: client.create("n"),
        "create for reading": lambda: client.create("n", 0),
        "mkdir": lambda: client.mkdir("n"),
        "symlink": lambda: client.symlink("n", "x"),
        "mknod": lambda: client.request("mknod", node),
        "link": lambda: client.request("link", struct.pack("<II", ROOT, file) + text("n")),
        "rename": lambda: client.rename("dir", "n"),
        "unlink": lambda: client.unlink("file", folder),
        "rmdir": lambda: client.unlink("dir", flags=REMOVEDIR),
        "chmod": lambda: client.chmod(file, 0o777),
        "truncate": lambda: client.truncate(file, 0),
        "times": lambda: client.request("setattr", times),
    }


def test_read_only_refuses_each_change(target: Place, stand_in: Path) -> None:
    file = target.make("dir/file")
    before = file.stat().st_mtime_ns
    with connect(stand_in, target.share, "--read-only") as client:
        for attempt in mutations(client).values():
            refused("EROFS", attempt)
        opened = client.walk("dir", "file")
        client.open(opened)
        assert client.read(opened) == b"inside"
        refused("EBADF", lambda: client.write(opened, b"x"))
        # Removing by fid clunks the fid and removes nothing.
        refused("EOPNOTSUPP ENOTSUP", lambda: client.request("remove", struct.pack("<I", client.walk("dir", "file"))))
    assert file.read_bytes() == b"inside" and file.stat().st_mtime_ns == before
    assert sorted(os.listdir(target.share)) == ["dir"]


def landlock_version() -> int:
    """Return this host's version of Landlock; 0: none."""
    libc = __import__("ctypes").CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(444, None, 0, 1)))


def test_the_server_is_confined(target: Place, stand_in: Path) -> None:
    """No privilege, no other descriptor, a filter of system calls, and the namespaces of a jail if there is one."""
    for options in ((), ("--jail",)):
        with connect(stand_in, target.share, *options) as client:
            pid = client.process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            (server,) = [child for child in children if Path(f"/proc/{child}/comm").read_text() == "nabla-run\n"]
            status = proc_status(int(server))
            assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1"
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
            if os.geteuid() == 0:
                assert status["Uid"].split() == [str(NOBODY)] * 4 and status["Groups"] == ""
                kinds = [os.readlink(f"/proc/{server}/fd/{fd}") for fd in os.listdir(f"/proc/{server}/fd")]
                kinds = sorted(kind.partition(":")[0] for kind in kinds)
                assert kinds == sorted([str(target.share), f"/proc/{server}/fd", "socket"]), kinds
                own = os.readlink("/proc/self/ns/net")
                assert (os.readlink(f"/proc/{server}/ns/net") != own) == bool(options)
                assert (os.listdir(f"/proc/{server}/root") == []) == bool(options)
        assert client.process.returncode == 0


def test_names_that_lead_to_another_file(target: Place, stand_in: Path) -> None:
    """A file that the host has replaced is ESTALE: neither are its times set nor its link read."""
    old = target.make("old")
    target.make("link").unlink()
    (target.share / "link").symlink_to("one")
    with connect(stand_in, target.share) as client:
        file, link = client.walk("old"), client.walk("link")
        for name in ("old", "link"):
            (target.share / name).rename(target.share / f"kept-{name}")
        target.make("old")
        os.utime(old, (1, 1))
        (target.share / "link").symlink_to("two")
        times = struct.pack("<IIIIIQQQQQ", file, 0x1B0, 0, 0, 0, 0, 7, 0, 7, 0)
        refused("ESTALE", lambda: client.request("setattr", times))
        refused("ESTALE", lambda: client.request("readlink", struct.pack("<I", link)))
    assert old.stat().st_mtime == 1


def test_directories_that_the_host_moves_away(target: Place, stand_in: Path) -> None:
    """The server holds descriptors of directories; with Landlock, one that has left the share is closed to guests."""
    target.make("dir/file")
    with connect(stand_in, target.share) as client:
        folder, file = client.walk("dir"), client.walk("dir", "file")
        client.names(client.walk("dir"))
        (target.share / "dir").rename(target.outside.parent / "moved")
        try:
            if landlock_version() >= 2:
                refused("EACCES ESTALE", lambda: client.open(file, O_RDWR))
                refused("EACCES ESTALE", lambda: client.mkdir("new", folder))
            refused("ENOENT ESTALE", lambda: client.getattr(folder))
            refused("ENOENT", lambda: client.walk("dir"))
        finally:
            (target.outside.parent / "moved").rename(target.share / "dir")


@contextlib.contextmanager
def swapping(path: Path, target: Path) -> Iterator[None]:
    """Keep exchanging a directory and a link to `target`."""
    done = threading.Event()
    link, aside = path.with_name("link"), path.with_name("aside")

    def swap() -> None:
        while not done.is_set():
            path.rename(aside)
            link.symlink_to(target)
            link.rename(path)
            path.unlink()
            aside.rename(path)
            # Several requests in a row see the directory, so that writers get as far as their last request.
            done.wait(0.001)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_links_that_appear_during_requests(target: Place, stand_in: Path) -> None:
    """The oldest attack on file servers: a directory becomes a link between check and use."""
    target.make("dir/secret", b"inside")
    attempts = {"read": 0, "written": 0, "refused": 0}
    with connect(stand_in, target.share) as client, swapping(target.share / "dir", target.outside):
        for number in itertools.count():
            if number >= 3000 and min(attempts.values()) > 0:
                break
            fid = None
            try:
                if number % 3 == 0:
                    client.walk("dir", f"new{number}")
                elif number % 3 == 1:
                    folder = client.walk("dir")
                    fid = client.create(f"new{number}", fid=folder)
                    client.clunk(folder)
                    client.unlink(f"new{number}", fid=client.walk("dir"))
                    attempts["written"] += 1
                else:
                    fid = client.walk("dir", "secret")
                    client.open(fid, O_RDWR)
                    assert client.read(fid) == b"inside"
                    attempts["read"] += 1
            except Refused:
                attempts["refused"] += 1
            if fid is not None:
                client.clunk(fid)


def test_a_server_that_cannot_start(target: Place, stand_in: Path) -> None:
    """The launcher prints the reason, in one line, before the VM starts."""
    if os.geteuid() != 0:
        pytest.skip("only root can give up the right to read a directory")
    os.chown(target.share, 0, 0)
    target.share.chmod(0o700)
    with connect(stand_in, target.share, hello=False) as client:
        assert client.process.stderr is not None
        message = client.process.stderr.read().decode()
        assert client.process.wait(60) == OWN_ERROR
    assert message.count("\n") == 1 and "cannot read it" in message and "--run-as" in message
