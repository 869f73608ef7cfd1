# SPDX-License-Identifier: Apache-2.0
"""A client of 9P2000.L and of our dialect that can send anything, for tests of the file server.

The VM's kernel is replaced by the stand-in, which passes bytes on between its standard streams and the share's stream.
"""

from __future__ import annotations

import contextlib
import errno
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nabla.core.paths import NABLA_RUN

FIRST_STREAM = 15
NOFID = 0xFFFFFFFF
ROOT = 0
PLAIN, DIALECT = "9P2000.L", "9P2000.L.nabla"
GETATTR = "<Q B I Q I I I Q Q Q Q Q".replace(" ", "")
TYPES = {
    "lerror": 7,
    "statfs": 8,
    "lopen": 12,
    "lcreate": 14,
    "symlink": 16,
    "mknod": 18,
    "rename": 20,
    "readlink": 22,
    "getattr": 24,
    "setattr": 26,
    "xattrwalk": 30,
    "readdir": 40,
    "fsync": 50,
    "lock": 52,
    "getlock": 54,
    "look": 56,
    "forget": 58,
    "reopen": 60,
    "make": 62,
    "link": 70,
    "mkdir": 72,
    "renameat": 74,
    "unlinkat": 76,
    "version": 100,
    "auth": 102,
    "attach": 104,
    "flush": 108,
    "walk": 110,
    "read": 116,
    "write": 118,
    "clunk": 120,
    "remove": 122,
}


class Refused(Exception):
    """The server answered with an error number."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, str(number)))
        self.number = number


class HungUp(Exception):
    """The server ended the connection."""


def text(value: bytes | str) -> bytes:
    """Return a string of the protocol."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<H", len(data)) + data


@dataclass
class Attributes:
    """The answer to getattr, as far as tests need it."""

    mode: int
    uid: int
    links: int
    size: int
    number: int


@dataclass
class Client:
    """A connection; fid 0 is the root after `attach`."""

    process: subprocess.Popen[bytes]
    next_fid: int = 1
    msize: int = 8192
    qids: dict[int, bytes] = field(default_factory=dict)

    def send(self, data: bytes) -> None:
        """Write arbitrary bytes."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise HungUp from None

    def receive(self) -> tuple[int, int, bytes]:
        """Return type, tag and content of the next answer."""
        assert self.process.stdout is not None
        header = self.process.stdout.read(7)
        if len(header) < 7:
            raise HungUp
        size, kind, tag = struct.unpack("<IBH", header)
        return kind, tag, self.process.stdout.read(size - 7)

    def request(self, kind: str, content: bytes = b"", tag: int = 1) -> bytes:
        """Send a request; return the content of its answer."""
        self.send(struct.pack("<IBH", len(content) + 7, TYPES[kind], tag) + content)
        got, answered, rest = self.receive()
        assert answered == tag
        if got == TYPES["lerror"]:
            raise Refused(struct.unpack("<I", rest)[0])
        assert got == TYPES[kind] + 1, (kind, got)
        return rest

    def version(self, msize: int = 262144, dialect: str = DIALECT) -> None:
        """Begin a session."""
        answer = self.request("version", struct.pack("<I", msize) + text(dialect), 0xFFFF)
        self.msize = int(struct.unpack("<I", answer[:4])[0])
        assert answer[4:] == text(dialect), answer

    def attach(self, fid: int = ROOT) -> None:
        """Create a fid for the root."""
        self.request("attach", struct.pack("<II", fid, NOFID) + text("root") + text("") + struct.pack("<I", 0))

    def new(self) -> int:
        """Return an unused fid."""
        self.next_fid += 1
        return self.next_fid

    def walk(self, *names: bytes | str, fid: int = ROOT) -> int:
        """Return a fid for the file at this path."""
        new = self.new()
        parts = b"".join(text(name) for name in names)
        answer = self.request("walk", struct.pack("<IIH", fid, new, len(names)) + parts)
        if struct.unpack("<H", answer[:2])[0] != len(names):
            raise Refused(errno.ENOENT)
        return new

    def look(self, name: bytes | str, fid: int = ROOT, depth: int = 0) -> tuple[int, Attributes]:
        """Return a fid for the file with this name, and its attributes."""
        new = self.new()
        answer = self.request("look", struct.pack("<HII", depth, fid, new) + text(name))
        return new, self.attributes(answer)

    def look_at(self, fid: int, depth: int = 0) -> Attributes:
        """Examine a file; its directories must not have moved."""
        return self.attributes(self.request("look", struct.pack("<HII", depth, fid, NOFID) + text("")))

    def reopen(self, fid: int, flags: int = 0) -> int:
        """Return another, open fid for a file."""
        new = self.new()
        self.request("reopen", struct.pack("<III", fid, new, flags))
        return new

    def make(
        self, name: bytes | str, flags: int = 2, mode: int = 0o644, fid: int = ROOT
    ) -> tuple[int, int, Attributes]:
        """Create a file; return its fid that is open, another one, and its attributes."""
        opened, new = self.new(), self.new()
        content = struct.pack("<III", fid, opened, new) + text(name) + struct.pack("<III", flags, mode, 0)
        return opened, new, self.attributes(self.request("make", content)[4:])

    def forget(self, *fids: int) -> None:
        """Forget fids; there is no answer."""
        self.send(struct.pack(f"<IBH{len(fids)}I", 7 + 4 * len(fids), TYPES["forget"], 0xFFFF, *fids))

    def getattr(self, fid: int) -> Attributes:
        """Examine a file."""
        return self.attributes(self.request("getattr", struct.pack("<IQ", fid, 0x7FF)))

    @staticmethod
    def attributes(answer: bytes) -> Attributes:
        """Return the contents of an answer."""
        values = struct.unpack_from("<QBIQIIIQQQ", answer)
        return Attributes(values[4], values[5], values[7], values[9], values[3])

    def open(self, fid: int, flags: int = 0) -> None:
        """Open a file."""
        self.request("lopen", struct.pack("<II", fid, flags))

    def read(self, fid: int, count: int = 4096, offset: int = 0) -> bytes:
        """Read from an open file."""
        answer = self.request("read", struct.pack("<IQI", fid, offset, count))
        return answer[4:]

    def write(self, fid: int, data: bytes, offset: int = 0) -> int:
        """Write to an open file."""
        answer = self.request("write", struct.pack("<IQI", fid, offset, len(data)) + data)
        return int(struct.unpack("<I", answer)[0])

    def create(self, name: bytes | str, flags: int = 2, mode: int = 0o644, *, fid: int = ROOT) -> int:
        """Create a file and open it; returns its fid."""
        new = self.walk(fid=fid)
        self.request("lcreate", struct.pack("<I", new) + text(name) + struct.pack("<III", flags, mode, 0))
        return new

    def symlink(self, name: bytes | str, target: bytes | str, fid: int = ROOT) -> None:
        """Create a symbolic link."""
        self.request("symlink", struct.pack("<I", fid) + text(name) + text(target) + struct.pack("<I", 0))

    def mkdir(self, name: bytes | str, fid: int = ROOT, mode: int = 0o755) -> None:
        """Create a directory."""
        self.request("mkdir", struct.pack("<I", fid) + text(name) + struct.pack("<II", mode, 0))

    def rename(self, old: bytes | str, new: bytes | str, source: int = ROOT, target: int = ROOT) -> None:
        """Rename a file."""
        self.request("renameat", struct.pack("<I", source) + text(old) + struct.pack("<I", target) + text(new))

    def unlink(self, name: bytes | str, fid: int = ROOT, flags: int = 0) -> None:
        """Remove a name."""
        self.request("unlinkat", struct.pack("<I", fid) + text(name) + struct.pack("<I", flags))

    def clunk(self, fid: int) -> None:
        """Clunk a fid."""
        self.request("clunk", struct.pack("<I", fid))

    def chmod(self, fid: int, mode: int) -> None:
        """Set the permissions."""
        self.request("setattr", struct.pack("<IIIIIQQQQQ", fid, 1, mode, 0, 0, 0, 0, 0, 0, 0))

    def truncate(self, fid: int, size: int) -> None:
        """Set the size."""
        self.request("setattr", struct.pack("<IIIIIQQQQQ", fid, 8, 0, 0, 0, size, 0, 0, 0, 0))

    def names(self, fid: int) -> list[bytes]:
        """Open a directory and return all names in it."""
        self.open(fid, 0)
        names: list[bytes] = []
        offset = 0
        while True:
            answer = self.request("readdir", struct.pack("<IQI", fid, offset, 4000))[4:]
            if not answer:
                return names
            while answer:
                offset, _, length = struct.unpack_from("<QBH", answer, 13)
                names.append(answer[24 : 24 + length])
                answer = answer[24 + length :]


@contextlib.contextmanager
def connect(
    stand_in: Path, folder: Path, *options: str, prefix: tuple[str, ...] = (), hello: bool = True, **settings: object
) -> Iterator[Client]:
    """Start nabla-run with the stand-in and `folder` as the root, and connect to its file server."""
    words = [*prefix, str(NABLA_RUN), "--kernel", str(stand_in), "--init", "/", *options, str(folder)]
    process = subprocess.Popen(  # type: ignore[call-overload]
        [*words, "--", f"bridge={FIRST_STREAM}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings,
    )
    client = Client(process)
    try:
        if hello:
            client.version()
            client.attach()
        yield client
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait(60)
        process.stdout.close()
        process.stderr.close()
