# SPDX-License-Identifier: Apache-2.0
"""serve.py http|https PORT FOLDER: a file server with threads, for curl and wget inside the guest."""

import http.server
import ssl
import sys
from functools import partial
from pathlib import Path


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Keeps connections open and does not log."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Accepts many connections at once; with the default backlog of five, the others would have to retry."""

    request_queue_size = 128


def main() -> None:
    """Serve until killed."""
    scheme, port, folder = sys.argv[1:]
    server = Server(("127.0.0.1", int(port)), partial(Quiet, directory=folder))
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(Path(__file__).with_name("localhost.pem"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


main()
