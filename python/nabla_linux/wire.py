# SPDX-License-Identifier: Apache-2.0
"""Frames of the control channel, as launcher/control_wire.h describes them. Nothing here does input or output."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from .errors import ProtocolError

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


class Frame(NamedTuple):
    """A frame of the broker: its type, its stream (0: none), its content of at most 64 KiB."""

    kind: int
    stream: int
    content: bytes


def frame(kind: int, content: bytes = b"", stream: int = 0) -> bytes:
    """Return the bytes of a frame."""
    return HEADER.pack(len(content), kind, stream, 0) + content


def start_content(
    kind: int, flags: int, user: str, path: str, words: Sequence[str], variables: Sequence[str], mode: int = 0o644
) -> bytes:
    """Return the content of a START frame. Raises `ValueError` if it is too long or a string contains NUL."""
    texts = [user, path, *words, *variables]
    if any("\0" in text for text in texts):
        raise ValueError("a string for the guest contains a NUL character")
    content = b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in texts)
    size = 12 + len(content)
    if size > CONTENT_MAX:
        raise ValueError(f"the command and its environment have {size} bytes, at most {CONTENT_MAX} are possible")
    return struct.pack("<BBHHHHH", kind, flags, 0, 0, len(words), len(variables), mode) + content


class Parser:
    """Takes bytes of a peer that is not trusted apart. Keeps one frame and what was fed with it at most."""

    def __init__(self) -> None:
        self._unread = bytearray()

    def feed(self, more: bytes) -> None:
        """Add bytes. Raises `ProtocolError` at the end of the connection, which are no bytes."""
        if not more:
            raise ProtocolError("the sandbox has ended")
        self._unread += more

    def next(self) -> Frame | None:
        """Return the next frame, None if it is not complete. Raises `ProtocolError` for ERROR, and for a long frame."""
        if len(self._unread) < HEADER.size:
            return None
        length, kind, stream, _ = HEADER.unpack_from(self._unread)
        if length > CONTENT_MAX:
            raise ProtocolError(f"the sandbox sent a frame of {length} bytes")
        end = HEADER.size + length
        if len(self._unread) < end:
            return None
        content = bytes(self._unread[HEADER.size : end])
        del self._unread[:end]
        if kind == ERROR:
            raise ProtocolError(ERRORS.get(content[0] if content else 0, "the broker reported an unknown error"))
        return Frame(kind, stream, content)


def number(content: bytes, at: int = 0) -> int:
    """Return the u32 at an offset. Raises `ProtocolError` if there is none."""
    if len(content) < at + 4:
        raise ProtocolError("the sandbox sent a frame that is too short")
    return int.from_bytes(content[at : at + 4], "little")


def error_text(error: int) -> str:
    """Return the text of an error number that a guest chose."""
    return os.strerror(error) if error < 4096 else f"unknown error {error}"


def exit_code(status: int) -> int:
    """Return the exit code of a wait status that a guest chose, 128+N after signal N. Raises `ProtocolError`."""
    code, signal = status >> 8, status & 0x7F
    if status > 0xFFFF or (signal and code) or signal == 0x7F:
        raise ProtocolError(f"the sandbox sent the wait status {status:#x}")
    return 128 + signal if signal else code
