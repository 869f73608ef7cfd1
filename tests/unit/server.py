# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server for tests, which can stall, disconnect, misreport ranges or answer with errors."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """Files by path, and the way they are served."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    stop_after: int | None = None  # bytes of a body after which the connection breaks
    stall_after: int | None = None  # bytes after which the server stalls
    requests: list[str] = field(default_factory=list)  # "path range"
    release: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Serve one request."""
        wanted = handler.headers.get("Range", "")
        self.requests.append(f"{handler.path} {wanted}".strip())
        if handler.path not in self.files:
            handler.send_error(404)
            return
        data = self.files[handler.path]
        match = re.fullmatch(r"bytes=(\d+)-", wanted)
        begin = int(match.group(1)) if match and self.ranges else 0
        if begin >= len(data):
            handler.send_error(416)
            return
        handler.send_response(206 if begin else 200)
        handler.send_header("Content-Length", str(len(data) - begin))
        handler.end_headers()
        body = data[begin:]
        limit = self.stop_after if self.stop_after is not None else self.stall_after
        handler.wfile.write(body if limit is None else body[:limit])
        handler.wfile.flush()
        if self.stall_after is not None:
            self.release.wait(60)
        if limit is not None:
            handler.close_connection = True


@contextmanager
def running() -> Iterator[Server]:
    """Run a server on a free port of this host."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                server.answer(self)
            except (BrokenPipeError, ConnectionResetError):
                return

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the overridden method)
            return

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server.url = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        listener.shutdown()
        listener.server_close()
        thread.join()
