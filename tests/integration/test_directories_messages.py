# SPDX-License-Identifier: Apache-2.0
"""The file server of shared directories against malformed and lying messages, and against greed; see nine.py."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import stat
import struct
from pathlib import Path

import pytest

from .attacked import SECRET, Place, refused, target
from .nine import NOFID, TYPES, HungUp, Refused, connect, text

__all__ = ["target"]
O_RDWR = os.O_RDWR
ROOT = 0


def raw(kind: int, content: bytes, size: int | None = None, tag: int = 1) -> bytes:
    """Return a message with any size in its header."""
    return struct.pack("<IBH", len(content) + 7 if size is None else size, kind & 0xFF, tag) + content


HANGS_UP = {
    "size 0": raw(TYPES["clunk"], b"", 0),
    "size 6": raw(TYPES["clunk"], b"", 6),
    "larger than agreed": raw(TYPES["write"], b"", 262145),
    "4 GB": raw(TYPES["write"], b"", 0xFFFFFFFF),
    "2 GB": raw(TYPES["write"], b"", 0x80000000),
}


@pytest.mark.parametrize("message", HANGS_UP.values(), ids=HANGS_UP.keys())
def test_messages_that_end_the_connection(target: Place, stand_in: Path, message: bytes) -> None:
    with connect(stand_in, target.share) as client:
        client.send(message)
        with pytest.raises(HungUp):
            client.receive()
        assert client.process.stderr is not None
        assert client.process.wait(60) == 0
        assert b"the guest sent an invalid message" in client.process.stderr.read()


def test_a_message_before_the_session(target: Place, stand_in: Path) -> None:
    for message in (raw(TYPES["attach"], bytes(20)), raw(TYPES["walk"], bytes(10)), raw(255, b"")):
        with connect(stand_in, target.share, hello=False) as client:
            client.send(message)
            with pytest.raises(HungUp):
                client.receive()


def test_a_half_message(target: Place, stand_in: Path) -> None:
    """The VM ends in the middle of a message: the server ends too, and nabla-run exits with the VM's status."""
    for message in (b"\x0b", raw(TYPES["clunk"], b"", 11), raw(TYPES["write"], bytes(100), 4096)):
        with connect(stand_in, target.share) as client:
            client.send(message)
            assert client.process.stdin is not None and client.process.stderr is not None
            client.process.stdin.close()
            assert client.process.stderr.read() == b""
        assert client.process.returncode == 0


def test_a_server_that_does_not_end(target: Place, stand_in: Path) -> None:
    """It waits for a disk of the host, for instance: nabla-run does not wait forever, and prints the consequence."""
    with connect(stand_in, target.share) as client:
        pid = client.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        (server,) = [int(child) for child in children if Path(f"/proc/{child}/comm").read_text() == "nabla-run\n"]
        os.kill(server, signal.SIGSTOP)
        assert client.process.stdin is not None and client.process.stderr is not None
        client.process.stdin.close()
        message = client.process.stderr.read().decode()
    assert f"the file server of {target.share} was killed because it did not end within 5 seconds" in message
    assert "data may be missing" in message and client.process.returncode == 0


def test_messages_that_lie(target: Place, stand_in: Path) -> None:
    """A request that is truncated at any length, or has numbers that are too large, is only an error."""
    target.make("file")
    contents = {
        "walk": struct.pack("<IIH", 0, 50, 1) + text("file"),
        "attach": struct.pack("<II", 60, NOFID) + text("root") + text("") + struct.pack("<I", 0),
        "lopen": struct.pack("<II", 1, 0),
        "lcreate": struct.pack("<I", 1) + text("n") + struct.pack("<III", 2, 0o644, 0),
        "symlink": struct.pack("<I", 0) + text("l") + text("t") + struct.pack("<I", 0),
        "mknod": struct.pack("<I", 0) + text("m") + struct.pack("<IIII", stat.S_IFIFO, 0, 0, 0),
        "readlink": struct.pack("<I", 0),
        "getattr": struct.pack("<IQ", 0, 0),
        "setattr": struct.pack("<IIIIIQQQQQ", 1, 0x1FF, 0, 0, 0, 0, 0, 0, 0, 0),
        "readdir": struct.pack("<IQI", 0, 0, 100),
        "fsync": struct.pack("<II", 1, 0),
        "lock": struct.pack("<IBIQQI", 1, 0, 0, 0, 0, 0) + text("c"),
        "getlock": struct.pack("<IBQQI", 1, 0, 0, 0, 0) + text("c"),
        "link": struct.pack("<II", 0, 1) + text("k"),
        "mkdir": struct.pack("<I", 0) + text("d") + struct.pack("<II", 0o755, 0),
        "renameat": struct.pack("<I", 0) + text("file") + struct.pack("<I", 0) + text("file"),
        "unlinkat": struct.pack("<I", 0) + text("none") + struct.pack("<I", 0),
        "read": struct.pack("<IQI", 1, 0, 100),
        "write": struct.pack("<IQI", 1, 0, 3) + b"abc",
        "statfs": struct.pack("<I", 0),
        "clunk": struct.pack("<I", 99),
        "remove": struct.pack("<I", 99),
        "xattrwalk": struct.pack("<II", 0, 70) + text("user.x"),
        "auth": struct.pack("<I", 0) + text("") + text("") + struct.pack("<I", 0),
    }
    with connect(stand_in, target.share) as client:
        file = client.walk("file")
        for kind, content in contents.items():
            for cut in range(len(content)):
                client.send(raw(TYPES[kind], content[:cut]))
                answer, _, rest = client.receive()
                assert answer == TYPES["lerror"], (kind, cut)
                assert struct.unpack("<I", rest)[0] > 0
        for count in (1, 17, 0xFFFF):
            client.send(raw(TYPES["walk"], struct.pack("<IIH", 0, 77, count)))
            assert client.receive()[0] == TYPES["lerror"]
        refused("EINVAL", lambda: client.open(file, 3))
        refused("EINVAL", lambda: client.create("n", 3))
        client.open(file, O_RDWR | os.O_PATH)
        assert client.read(file) == b"inside"
        for offset in (1 << 63, (1 << 64) - 1):
            refused("EINVAL EFBIG", lambda offset=offset: client.read(file, 1, offset))  # type: ignore[misc]
            refused("EINVAL EFBIG", lambda offset=offset: client.write(file, b"x", offset))  # type: ignore[misc]
            refused("EINVAL EFBIG", lambda offset=offset: client.truncate(file, offset))  # type: ignore[misc]
        lying = raw(TYPES["write"], struct.pack("<IQI", file, 0, 0xFFFFFFFF) + b"abc")
        client.send(lying)
        assert client.receive()[0] == TYPES["lerror"]
        assert client.read(file, 0xFFFFFFFF) == b"inside"


def test_fids_of_nobody(target: Place, stand_in: Path) -> None:
    """A fid exists once, from the request that creates it to the one that clunks it."""
    target.make("file")
    with connect(stand_in, target.share) as client:
        file = client.walk("file")
        for kind in ("getattr", "lopen", "read", "write", "clunk", "statfs", "fsync", "readlink"):
            content = struct.pack("<IQI", 12345, 0, 0) if kind in ("read", "write") else struct.pack("<IQ", 12345, 0)
            refused("EBADF", lambda kind=kind, content=content: client.request(kind, content))  # type: ignore[misc]
        refused("EBADF", lambda: client.request("walk", struct.pack("<IIH", 0, file, 0)))
        refused("EBADF", lambda: client.attach(file))
        client.open(file)
        refused("EINVAL", lambda: client.open(file))
        refused("EBADF", lambda: client.request("walk", struct.pack("<IIH", file, file, 0)))
        client.clunk(file)
        refused("EBADF", lambda: client.clunk(file))
        client.version()
        refused("EBADF", lambda: client.getattr(ROOT))


def test_a_guest_that_takes_everything(target: Place, stand_in: Path) -> None:
    """Fids and open files are limited; existing ones keep working, and everything is free in the next session."""
    target.make("file")
    with connect(stand_in, target.share) as client:
        opened = []
        with pytest.raises(Refused) as caught:
            for _ in range(100_000):
                fid = client.walk("file")
                client.open(fid)
                opened.append(fid)
        assert str(caught.value) in ("ENFILE", "EMFILE"), caught.value
        assert len(opened) > 100
        assert client.read(opened[0]) == b"inside"
        client.clunk(opened[1])
        again = client.walk("file")
        client.open(again)
        client.version()
        client.attach()
        fid = client.walk("file")
        client.open(fid)
        assert client.read(fid) == b"inside"


def test_random_conversations(target: Place, stand_in: Path) -> None:
    """Valid requests in any order, on few names and fids: the server survives, and nothing leaves the share."""
    chosen = random.Random(15)
    names = ["a", "b", "c", "..", ".", "a/b", ""]
    with connect(stand_in, target.share) as client:
        for _ in range(6000):
            name, other = chosen.choice(names), chosen.choice(names)
            fid, new = chosen.randrange(8), chosen.randrange(1, 8)
            kind, content = chosen.choice(
                [
                    ("walk", struct.pack("<IIH", fid, new, 1) + text(name)),
                    ("walk", struct.pack("<IIH", fid, new, 2) + text(name) + text(other)),
                    ("walk", struct.pack("<IIH", fid, new, 0)),
                    ("clunk", struct.pack("<I", fid or 1)),
                    ("lopen", struct.pack("<II", fid or 1, chosen.choice([0, 1, 2, 0o1002, 0o2002, 3]))),
                    ("lcreate", struct.pack("<I", fid or 1) + text(name) + struct.pack("<III", 2, 0o644, 0)),
                    ("mkdir", struct.pack("<I", fid) + text(name) + struct.pack("<II", 0o755, 0)),
                    ("symlink", struct.pack("<I", fid) + text(name) + text("../outside") + struct.pack("<I", 0)),
                    ("renameat", struct.pack("<I", fid) + text(name) + struct.pack("<I", new) + text(other)),
                    ("unlinkat", struct.pack("<I", fid) + text(name) + struct.pack("<I", chosen.choice([0, 512]))),
                    ("link", struct.pack("<II", fid, new) + text(name)),
                    ("getattr", struct.pack("<IQ", fid, 0)),
                    ("setattr", struct.pack("<IIIIIQQQQQ", fid, 0x1F9, 0o755, 0, 0, 9, 0, 0, 0, 0)),
                    ("readdir", struct.pack("<IQI", fid, 0, 500)),
                    ("read", struct.pack("<IQI", fid, 0, 500)),
                    ("write", struct.pack("<IQI", fid, 0, 3) + b"abc"),
                ]
            )
            with contextlib.suppress(Refused):
                assert SECRET not in client.request(kind, content)
        assert client.getattr(ROOT).mode & stat.S_IFDIR
    assert client.process.returncode == 0
