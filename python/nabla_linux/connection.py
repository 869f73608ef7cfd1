# SPDX-License-Identifier: Apache-2.0
"""Connections to the broker of a VM: one request or one session each."""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import TypeVar

from .errors import ProtocolError, SandboxTimeout
from .session import Steps
from .wire import Frame, Parser

T = TypeVar("T")
PIECE = 1 << 17
ENDED = (BrokenPipeError, ConnectionResetError)


class Connection:
    """A connected socket. `deadline` is a time of `time.monotonic()`, after which everything is a `SandboxTimeout`."""

    def __init__(self, connected: socket.socket, deadline: float | None = None) -> None:
        self.socket = connected
        self.deadline = deadline
        self._parser = Parser()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def drive(self, steps: Steps[T]) -> T:
        """Do what is to be said and heard; return the result."""
        try:
            request = next(steps)
            while True:
                if request is None:
                    request = steps.send(self.receive())
                else:
                    self.send(request)
                    request = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result

    def send(self, content: bytes) -> None:
        """Send bytes. Nothing is reported if the peer has ended: what it sent before can still be received."""
        self._limit()
        try:
            self.socket.sendall(content)
        except TimeoutError:
            raise SandboxTimeout("the sandbox did not take a request in time") from None
        except ENDED:
            pass
        except OSError as error:
            raise ProtocolError(f"the connection to the sandbox has ended: {error.strerror}") from None

    def receive(self) -> Frame:
        """Return the next frame. Raises `ProtocolError` for ERROR and at the end."""
        while (frame := self._parser.next()) is None:
            self._limit()
            try:
                self._parser.feed(self.socket.recv(PIECE))
            except TimeoutError:
                raise SandboxTimeout("the sandbox did not answer in time") from None
            except OSError as error:
                raise ProtocolError(f"the connection to the sandbox has ended: {error.strerror}") from None
        return frame

    def _limit(self) -> None:
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise SandboxTimeout("the sandbox did not answer in time")
        self.socket.settimeout(left)
