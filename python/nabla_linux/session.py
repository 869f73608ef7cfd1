# SPDX-License-Identifier: Apache-2.0
"""What is said on a connection, for `drive` and its asyncio counterpart: generators that yield what is to be sent, or
None for the next frame. Whatever the peer sends, the worst is a `SandboxError`."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import TypeVar

from . import wire
from .errors import OutputLimit, ProtocolError
from .wire import Frame

T = TypeVar("T")
Steps = Generator[bytes | None, Frame | None, T]
OUTPUT_MAX = 64 << 20  # bytes of each stream that are kept
PIECE = 32 << 10


def _receive() -> Steps[Frame]:
    got = yield None
    assert got is not None
    return got


def ask(what: int) -> Steps[bytes]:
    """Ask the broker something; return its answer."""
    yield wire.frame(wire.ASK, bytes([what]))
    got = yield from _receive()
    if got.kind != wire.ANSWER:
        raise ProtocolError(f"the broker answered with a frame of type {got.kind}")
    return got.content


def numbers_of(answer: bytes) -> dict[str, int]:
    """Return the numbers of an answer to ASK_STATS, which the launcher wrote."""
    try:
        values = json.loads(answer)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ProtocolError("the broker's answer is no JSON object")
    return {name: value for name, value in values.items() if type(value) is int}


class Session:
    """A session of a program or a file.

    `status` is its wait status or the error number of a file, None before its end. `output` has the pieces of streams 1
    and 2; a function in `take` gets each piece, too.
    """

    def __init__(self, output_max: int = OUTPUT_MAX) -> None:
        self.output: dict[int, list[bytes]] = {1: [], 2: []}
        self.take: dict[int, Callable[[bytes], object]] = {}
        self.status: int | None = None
        self._max = output_max
        self._kept = {1: 0, 2: 0}
        self._taken = {1: 0, 2: 0}
        self._credit = wire.IN_WINDOW

    def start(self, content: bytes) -> Steps[tuple[int, int]]:
        """Begin it; return the stage and the error number of a failure, or (0, 0)."""
        yield wire.frame(wire.START, content)
        got = yield from _receive()
        if got.kind == wire.FAILED:
            return wire.number(got.content), wire.number(got.content, 4)
        if got.kind != wire.STARTED:
            raise ProtocolError(f"the sandbox answered a request with a frame of type {got.kind}")
        return 0, 0

    def step(self) -> Steps[None]:
        """Receive the next frame."""
        kind, stream, content = yield from _receive()
        if kind == wire.DATA and stream in (1, 2):
            yield from self._data(stream, content)
        elif kind == wire.CREDIT:
            self._credit = min(self._credit + wire.number(content), wire.IN_WINDOW)
        elif kind == wire.EXIT:
            self.status = wire.number(content)
        elif kind != wire.CLOSE:
            raise ProtocolError(f"the sandbox sent a frame of type {kind} in a session")

    def _data(self, stream: int, content: bytes) -> Steps[None]:
        self._kept[stream] += len(content)
        if self._kept[stream] > self._max:
            raise OutputLimit(f"the sandbox sent more than {self._max} bytes")
        self.output[stream].append(content)
        if stream in self.take:
            self.take[stream](content)
        self._taken[stream] += wire.HEADER.size + len(content)
        if self._taken[stream] >= wire.OUT_WINDOW // 4:
            yield wire.frame(wire.CREDIT, self._taken[stream].to_bytes(4, "little"), stream)
            self._taken[stream] = 0

    def write(self, content: bytes) -> Steps[None]:
        """Send standard input. Data that the program no longer reads is dropped."""
        rest = memoryview(content)
        while rest and self.status is None:
            size = min(len(rest), self._credit - wire.HEADER.size, PIECE)
            if size <= 0:
                yield from self.step()
                continue
            yield wire.frame(wire.DATA, bytes(rest[:size]))
            self._credit -= wire.HEADER.size + size
            rest = rest[size:]

    def close_input(self) -> Steps[None]:
        """End standard input."""
        if self.status is None:
            yield wire.frame(wire.CLOSE)

    def wait(self) -> Steps[int]:
        """Return the status."""
        while self.status is None:
            yield from self.step()
        return self.status

    def text(self, stream: int) -> str:
        """Return what was kept of a stream. Bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self.output[stream]).decode(errors="replace")


def transfer(kind: int, content: bytes, data: bytes, most: int) -> Steps[tuple[int, bytes]]:
    """Read or write a file; return its error number and what was read."""
    session = Session(most)
    _, error = yield from session.start(content)
    if error:
        return error, b""
    if kind == wire.WRITE:
        yield from session.write(data)
        yield from session.close_input()
    error = yield from session.wait()
    return error, b"".join(session.output[1])
