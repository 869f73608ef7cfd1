# SPDX-License-Identifier: Apache-2.0
"""What a broker, and a guest through it, may say to the Python package: the worst is a `SandboxError`.

Conversations are frames that fit, frames that do not, and damaged bytes, in pieces of any size. Those that reached new
lines of the package are kept and changed further.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

from nabla.core.paths import PYTHON_PACKAGE

from .engine import Finding, Fuzzer

sys.path.insert(0, str(PACKAGE := PYTHON_PACKAGE.parent))
from nabla_linux import CommandResult, SandboxError, commands, connection, files, interpreter, session, wire

T = TypeVar("T")
CONVERSATIONS, SOCKETS = 3000, 20
OUTPUT_MAX = 100_000
STEPS_MAX = 100_000
STDIN = bytes(200_000)


class Replay:
    """A peer that sends its prepared data and ignores what it receives."""

    def __init__(self, said: bytes, draw: random.Random) -> None:
        self._said = said
        self._draw = draw
        self._parser = wire.Parser()

    def drive(self, steps: session.Steps[T]) -> T:
        """As `Connection.drive`."""
        try:
            request = next(steps)
            for _ in range(STEPS_MAX):
                request = steps.send(self._frame()) if request is None else next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        raise RuntimeError("a conversation without end")

    def _frame(self) -> wire.Frame:
        while (frame := self._parser.next()) is None:
            size = self._draw.choice([1, 7, 8, 9, 4096, 1 << 17])
            self._parser.feed(self._said[:size])
            self._said = self._said[size:]
        return frame


def some_frame(draw: random.Random) -> bytes:
    """Return a frame that may have a place in a conversation."""
    number = draw.choice([0, 1, 9, 126, 127, 256, 0x7F, 0x80, 0xFF00, 0xFFFF, 0x10000, 0xFFFFFFFF]).to_bytes(
        4, "little"
    )
    stats: Any = draw.choice([{"cpu_us": 1, "x": "y", "z": True, "n": -1}, [], None, 5, {"a": 1e999}])
    text = draw.choice([json.dumps(stats), "[" * draw.randrange(20_000), "{", "9" * 5000, "\ud800", "a\0b", "-0"])
    line = " ".join(str(draw.choice([0, 1, 5, 10**9, 10**30])) for _ in range(draw.choice([3, 4, 4, 4, 5])))
    answer = f"{line}\n" + "ä" * draw.randrange(20)
    data = draw.choice([b"x", answer.encode(), draw.randbytes(draw.randrange(200)), bytes(60_000), b"a\0b\0.\0\xff\0"])
    return draw.choice(
        [
            wire.frame(wire.STARTED, number),
            wire.frame(wire.STARTED, number),
            wire.frame(wire.FAILED, number + number),
            wire.frame(wire.FAILED, number),
            *[wire.frame(wire.DATA, data, draw.choice([0, 1, 1, 2, 3]))] * 4,
            wire.frame(wire.CLOSE, b"", draw.randrange(4)),
            wire.frame(wire.CREDIT, number),
            wire.frame(wire.EXIT, number),
            wire.frame(wire.EXIT, bytes(4)),
            wire.frame(wire.ANSWER, text.encode(errors="surrogatepass")),
            wire.frame(wire.ERROR, draw.choice([b"", b"\5", b"\xff"])),
            wire.frame(draw.randrange(256), draw.randbytes(draw.randrange(9)), draw.randrange(256)),
            wire.HEADER.pack(draw.choice([0, 9, 65536, 65537, 0xFFFFFFFF]), wire.DATA, 1, 7),
        ]
    )


def damaged(said: bytes, draw: random.Random) -> bytes:
    """Return the bytes with some changed, or without their end."""
    out = bytearray(said)
    for _ in range(draw.randrange(4) if out else 0):
        out[draw.randrange(len(out))] = draw.choice([0, 1, 0x7F, 0xFF, draw.randrange(256)])
    return bytes(out[: draw.randrange(len(out) + 1)] if draw.randrange(8) == 0 else out)


def command(peer: Any, stdin: bytes = b"") -> CommandResult:
    """Run a command; return its result."""
    received: list[bytes] = []
    running = session.Session(OUTPUT_MAX)
    commands.check_started(["x"], peer.drive(running.start(b"")))
    running.take[1] = received.append
    if stdin:
        peer.drive(running.write(stdin))
        peer.drive(running.close_input())
    peer.drive(running.wait())
    assert sum(map(len, running.output[1])) <= OUTPUT_MAX
    assert received == running.output[1]
    result = commands.result_of(running)
    assert 0 <= result.exit_code <= 255
    return result


def stats(peer: Any) -> None:
    """Ask for numbers."""
    values = session.numbers_of(peer.drive(session.ask(wire.ASK_STATS)))
    assert all(type(value) is int for value in values.values())


def code(peer: Any) -> None:
    """Run Python code."""
    interpreter.decode(command(peer, b"1"))


def read(peer: Any) -> None:
    """Read a file."""
    assert len(files.read_of(peer.drive(session.transfer(wire.READ, b"", b"", OUTPUT_MAX)), "/x")) <= OUTPUT_MAX


def write(peer: Any) -> None:
    """Write a file, from which nothing may come back."""
    assert files.read_of(peer.drive(session.transfer(wire.WRITE, b"", STDIN, 0)), "/x") == b""


def names(peer: Any) -> None:
    """List a folder."""
    files.names_of(files.output_of(command(peer), "/x"))


USES: tuple[Callable[[Any], object], ...] = (stats, code, read, write, names, command)


@contextlib.contextmanager
def said_by(said: bytes) -> Iterator[connection.Connection]:
    """Yield a connection whose other end sends this data, and reads all messages."""
    ours, theirs = socket.socketpair()

    def talk() -> None:
        with contextlib.suppress(OSError):
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)
            while theirs.recv(1 << 17):
                pass

    thread = threading.Thread(target=talk)
    thread.start()
    peer = connection.Connection(ours)
    try:
        yield peer
    finally:
        ours.close()
        thread.join()
        theirs.close()


class Lines:
    """The lines of the package that were reached."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int, int]] = set()
        self._before = 0
        self._last = 0

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """For `sys.settrace`: note pairs of lines."""
        if not frame.f_code.co_filename.startswith(str(PYTHON_PACKAGE)):
            return None
        if event == "line":
            self.seen.add((frame.f_code.co_filename, self._last, frame.f_lineno))
            self._last = frame.f_lineno
        return self.trace

    def is_new(self) -> bool:
        """Has the last conversation reached something new?"""
        grown = len(self.seen) > self._before
        self._before = len(self.seen)
        return grown


def conversations(seed: int) -> Finding | None:
    """Conversations of one seed; the later ones are mutations of those that reached most code."""
    draw = random.Random(seed)
    corpus, lines = [b""], Lines()
    for number in range(CONVERSATIONS + SOCKETS):
        said = draw.choice(corpus) + b"".join(some_frame(draw) for _ in range(draw.randrange(6)))
        if draw.randrange(2):
            said = damaged(said, draw)
        use = draw.choice(USES)
        try:
            with contextlib.suppress(SandboxError):
                if number >= CONVERSATIONS:
                    with said_by(said) as peer:
                        use(peer)
                else:
                    sys.settrace(lines.trace)
                    use(Replay(said, draw))
        except Exception as error:
            sys.settrace(None)
            return Finding("sandboxes", seed, f"conversation {number}, {use.__name__}: {error!r}", (said[:300].hex(),))
        finally:
            sys.settrace(None)
        if lines.is_new() and len(said) < 300_000:
            corpus.append(said)
    return None


FUZZERS = (Fuzzer("sandboxes", "conversations", CONVERSATIONS, conversations),)
