# SPDX-License-Identifier: Apache-2.0
"""Real servers for stores: nginx with DAV, and a server that can give any wrong answer."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

Answer = Callable[[BaseHTTPRequestHandler], bool]

_NGINX = """
{user}
daemon off;
worker_processes 1;
pid {base}/nginx.pid;
error_log {base}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log {base}/access.log;
    client_body_temp_path {base}/body;
    proxy_temp_path {base}/proxy;
    fastcgi_temp_path {base}/fastcgi;
    uwsgi_temp_path {base}/uwsgi;
    scgi_temp_path {base}/scgi;
    client_max_body_size 0;
    server {{
        listen {address} {tls};
        root {root};
        {server}
        location / {{
            dav_methods PUT;
            create_full_put_path on;
            {location}
        }}
    }}
}}
"""


def free_port() -> int:
    """An unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _nginx_program() -> str:
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    assert path, "nginx is missing: apt-get install nginx-light"
    return path


@contextmanager
def nginx(base: Path, root: Path, *, server: str = "", location: str = "", tls: str = "") -> Iterator[str]:
    """Run nginx with DAV on a folder; yields host and port."""
    while True:
        address = f"127.0.0.1:{free_port()}"
        try:
            with nginx_process(base, root, address, server=server, location=location, tls=tls):
                yield address
                return
        except PortTakenError:
            continue


class PortTakenError(Exception):
    """Another process has taken the port."""


@contextmanager
def nginx_process(
    base: Path,
    root: Path,
    address: str,
    prefix: Sequence[str] = (),
    *,
    server: str = "",
    location: str = "",
    tls: str = "",
) -> Iterator[None]:
    """Run nginx with DAV on a folder, at an address; `prefix` is a command that starts commands."""
    base.mkdir(parents=True, exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    # As root, its workers would change to another user, who cannot enter the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    text = _NGINX.format(user=user, base=base, root=root, address=address, server=server, location=location, tls=tls)
    (base / "nginx.conf").write_text(text)
    argv = [*prefix, _nginx_program(), "-e", base / "error.log", "-p", base, "-c", base / "nginx.conf"]
    with subprocess.Popen([str(word) for word in argv], stderr=subprocess.PIPE) as process:
        try:
            # nginx writes this file when it listens.
            while process.poll() is None and not (base / "nginx.pid").exists():
                time.sleep(0.01)
            if process.poll() is None:
                yield
                return
            errors = process.stderr.read().decode() if process.stderr else ""
            assert "in use" in errors + (base / "error.log").read_text(), errors
            raise PortTakenError
        finally:
            process.terminate()


def complete_log(base: Path, last: str) -> str:
    """Return nginx's log of requests with the `last` one, which nginx writes after it has answered."""
    deadline = time.monotonic() + 60
    while last not in (text := (base / "nginx/access.log").read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.01)
    return text


@contextmanager
def odd_server(root: Path, answer: Answer, log: list[str]) -> Iterator[str]:
    """Serve a folder; `answer` may answer a request itself (and returns True). Yields the address."""
    release = Event()

    class Handler(SimpleHTTPRequestHandler):
        stopped = release

        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(root))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            log.append(f"GET {self.path}")
            try:
                if not answer(self):
                    super().do_GET()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def do_PUT(self) -> None:
            log.append(f"PUT {self.path}")
            self.send_error(405)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the overridden method)
            return

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    thread = Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_address[1]}"
    finally:
        release.set()
        listener.shutdown()
        listener.server_close()
        thread.join()
