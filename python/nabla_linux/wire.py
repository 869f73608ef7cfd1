# SPDX-License-Identifier: Apache-2.0
"""Frames of the control channel, as launcher/control_wire.h describes them, over the socket of a VM's broker."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass, field

from .errors import ProtocolError, SandboxTimeout

START, STARTED, FAILED, DATA, CLOSE, CREDIT, SIGNAL = range(2, 9)
EXIT, HANGUP, ASK, ANSWER, ERROR = range(10, 15)
ASK_STATS, ASK_PAUSE, ASK_RESUME, ASK_STOP, ASK_KILL = range(4, 9)
EXEC, READ, WRITE = range(3)
INPUT = 2
HEADER = struct.Struct("<IBBH")
CONTENT_MAX = 65536
OUT_WINDOW, IN_WINDOW = 256 << 10, 64 << 10
ERRORS = {
    1: "nothing in the guest answers",
    2: "the VM has too many sessions",
    3: "the VM is paused",
    4: "the guest did not follow the protocol",
    5: "the guest has ended",
    6: "the broker refused the request",
    7: "the guest did not answer in time",
}


def start_content(
    kind: int, flags: int, user: str, path: str, words: list[str], variables: list[str], mode: int = 0o644
) -> bytes:
    """Return the content of a START frame. Raises `ValueError` if it is too long or a string contains NUL."""
    texts = [user, path, *words, *variables]
    if any("\0" in text for text in texts):
        raise ValueError("a string for the guest contains a NUL character")
    head = struct.pack("<BBHHHHH", kind, flags, 0, 0, len(words), len(variables), mode)
    content = head + b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in texts)
    if len(content) > CONTENT_MAX:
        raise ValueError(
            f"the command and its environment have {len(content)} bytes, at most {CONTENT_MAX} are possible"
        )
    return content


@dataclass
class Connection:
    """A connection to a broker: one request or one session. `deadline` is a time of `time.monotonic()`."""

    socket: socket.socket
    deadline: float | None = None
    _unread: bytearray = field(default_factory=bytearray)

    def send(self, kind: int, content: bytes = b"", stream: int = 0) -> None:
        """Send a frame. Reports no error if the peer has ended: its earlier frames can still be received."""
        self._limit()
        try:
            self.socket.sendall(HEADER.pack(len(content), kind, stream, 0) + content)
        except TimeoutError:
            raise SandboxTimeout("the sandbox did not take a request in time") from None
        except (BrokenPipeError, ConnectionResetError):
            pass
        except OSError as error:
            raise ProtocolError(f"the connection to the sandbox has ended: {error.strerror}") from None

    def receive(self) -> tuple[int, int, bytes]:
        """Return type, stream and content of the next frame. Raises `ProtocolError` for ERROR and at the end."""
        self._fill(HEADER.size)
        length, kind, stream, _ = HEADER.unpack_from(self._unread)
        if length > CONTENT_MAX:
            raise ProtocolError(f"the sandbox sent a frame of {length} bytes")
        self._fill(HEADER.size + length)
        content = bytes(self._unread[HEADER.size : HEADER.size + length])
        del self._unread[: HEADER.size + length]
        if kind == ERROR:
            raise ProtocolError(ERRORS.get(content[0] if content else 0, "the broker reported an unknown error"))
        return kind, stream, content

    def _limit(self) -> None:
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise SandboxTimeout("the sandbox did not answer in time")
        self.socket.settimeout(left)

    def _fill(self, size: int) -> None:
        while len(self._unread) < size:
            self._limit()
            try:
                more = self.socket.recv(1 << 17)
            except TimeoutError:
                raise SandboxTimeout("the sandbox did not answer in time") from None
            except OSError as error:
                raise ProtocolError(f"the connection to the sandbox has ended: {error.strerror}") from None
            if not more:
                raise ProtocolError("the sandbox has ended")
            self._unread += more


def number(content: bytes, at: int = 0) -> int:
    """Return the u32 at an offset. Raises `ProtocolError` if there is none."""
    if len(content) < at + 4:
        raise ProtocolError("the sandbox sent a frame that is too short")
    return int.from_bytes(content[at : at + 4], "little")
