# SPDX-License-Identifier: Apache-2.0
"""Servers with the faults of real ones: a wrong answer rules out one address and no other."""

from __future__ import annotations

import gzip
import hashlib
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nabla.core.errors import ChecksumError, FetchError, SignatureError
from nabla.sources import fetch
from nabla.sources.origins import Request, url
from nabla.sources.recipe import Signature, Source, UrlOrigin
from nabla.sources.store import cache as store
from tests.unit.sources.test_openpgp import DATA, FIRST

CONTENT = gzip.compress(random.Random(3).randbytes(400_000), mtime=0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = CONTENT[: len(CONTENT) // 2]
PAGE = b"<html>Please log in</html>"


class Handler(BaseHTTPRequestHandler):
    """The first part of the path is the manner."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.asked.append(f"{self.path} {wanted}".strip())
        begin = int(wanted[6:].rstrip("-")) if wanted else 0
        try:
            getattr(self, self.path.split("/")[1])(begin)
        except (BrokenPipeError, ConnectionResetError):
            return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the overridden method)
        return

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def good(self, begin: int) -> None:
        if not begin:
            self.reply(200, CONTENT)
        elif begin >= len(CONTENT):
            self.reply(416, b"", Content_Range=f"bytes */{len(CONTENT)}")
        else:
            total = len(CONTENT)
            self.reply(206, CONTENT[begin:], Content_Range=f"bytes {begin}-{total - 1}/{total}")

    def labeled(self, begin: int) -> None:  # the file, and a header as if it were compressed once more
        self.reply(200, CONTENT, Content_Encoding="x-gzip")

    def labeled_gzip(self, begin: int) -> None:
        self.reply(200, CONTENT, Content_Encoding="gzip")

    def compressed(self, begin: int) -> None:  # although nobody asked for it
        self.reply(200, gzip.compress(CONTENT, mtime=0), Content_Encoding="gzip")

    def brotli(self, begin: int) -> None:
        self.reply(200, random.Random(4).randbytes(len(CONTENT)), Content_Encoding="br")

    def no_ranges(self, begin: int) -> None:
        self.reply(200, CONTENT)

    def range_from_zero(self, begin: int) -> None:
        if begin:
            self.reply(206, CONTENT, Content_Range=f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            self.reply(200, CONTENT)

    def other_range(self, begin: int) -> None:  # of a file of another size
        self.reply(206, CONTENT[begin:], Content_Range=f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT) + 1}")

    def endless_range(self, begin: int) -> None:
        self.reply(206, CONTENT)

    def no_range_header(self, begin: int) -> None:
        self.reply(206 if begin else 200, CONTENT[begin:])

    def unsatisfied(self, begin: int) -> None:
        self.reply(416 if begin else 404, b"", Content_Range="bytes */100")

    def page(self, begin: int) -> None:
        self.reply(200, PAGE)

    def page_without_length(self, begin: int) -> None:
        self.close_connection = True
        self.reply(200, PAGE, Content_Length="")

    def page_as_a_range(self, begin: int) -> None:
        self.reply(206, PAGE)

    def longer(self, begin: int) -> None:
        self.reply(200, CONTENT + bytes(100))

    def longer_without_length(self, begin: int) -> None:
        self.close_connection = True
        self.reply(200, CONTENT + bytes(100), Content_Length="")

    def same_size(self, begin: int) -> None:
        self.reply(206 if begin else 200, bytes(len(CONTENT) - begin))

    def same_size_early(self, begin: int) -> None:  # wrong bytes, and then the connection breaks
        self.close_connection = True
        self.reply(200, bytes(150_000), Content_Length=str(len(CONTENT)))

    def early(self, begin: int) -> None:
        self.close_connection = True
        self.reply(200, HALF, Content_Length=str(len(CONTENT)))

    def silent(self, begin: int) -> None:  # closes before a single byte
        self.close_connection = True

    def garbage(self, begin: int) -> None:
        self.close_connection = True
        self.wfile.write(b"220 smtp.example ESMTP\r\n" + bytes(range(256)))

    def bad_chunks(self, begin: int) -> None:
        self.close_connection = True
        self.reply(200, b"zz\r\nnot a length\r\n", Content_Length="", Transfer_Encoding="chunked")

    def busy(self, begin: int) -> None:
        self.reply(503, b"busy")

    def forbidden(self, begin: int) -> None:
        self.reply(403, PAGE)

    def empty(self, begin: int) -> None:
        self.reply(200, b"")

    def no_content(self, begin: int) -> None:
        self.reply(204, b"")

    def loop(self, begin: int) -> None:
        self.reply(302, b"", Location=self.path)

    def elsewhere(self, begin: int) -> None:
        self.reply(302, b"", Location="/good")

    def nowhere(self, begin: int) -> None:  # to a server that refuses connections
        self.reply(302, b"", Location="http://127.0.0.1:1/file")

    def no_address(self, begin: int) -> None:
        self.reply(302, b"", Location="http://[::1/file")

    def no_name(self, begin: int) -> None:
        self.reply(302, b"", Location=f"http://{'x' * 80}..example/file")

    def other_protocol(self, begin: int) -> None:
        self.reply(302, b"", Location="gopher://127.0.0.1/file")

    def signed(self, begin: int) -> None:
        self.reply(200, (DATA / "signed.txt").read_bytes())

    def signature(self, begin: int) -> None:
        self.reply(200, (DATA / "signed.txt.asc").read_bytes())


# Manners of which the file itself comes, or does not.
USABLE = ["good", "labeled", "labeled_gzip", "compressed", "no_ranges", "range_from_zero", "no_range_header"]
USABLE += ["elsewhere"]
USELESS = sorted(
    name
    for name in vars(Handler)
    if not name.startswith(("_", "do_", "log_", "reply", "protocol_", "sign")) and name not in USABLE
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(url, "_dead", {})
    monkeypatch.setattr(Handler, "asked", [], raising=False)
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{listener.server_address[1]}"
    listener.shutdown()
    listener.server_close()
    thread.join()


def source(server: str, *manners: str) -> Source:
    addresses = tuple(f"{server}/{manner}/file.tar.gz" for manner in manners)
    return Source(name="thing", origin=(UrlOrigin(url=addresses, sha256=SHA256, size=len(CONTENT)),))


def begun(data: bytes) -> Path:
    """Leave an unfinished download."""
    part = store().partial(SHA256)
    part.write_bytes(data)
    return part


@pytest.mark.parametrize("manner", USABLE)
@pytest.mark.parametrize("have", [b"", HALF, b"?" * 5000, CONTENT, CONTENT + b"?", bytes(len(CONTENT))])
def test_what_can_be_used_is(server: str, cache: Path, manner: str, have: bytes) -> None:
    begun(have)
    assert fetch.fetch(source(server, manner)).read_bytes() == CONTENT
    assert list((cache / "partial").iterdir()) == []


@pytest.mark.parametrize("manner", USELESS)
@pytest.mark.parametrize("have", [b"", HALF, b"?" * 5000])
def test_a_useless_answer_costs_its_own_address(server: str, cache: Path, manner: str, have: bytes) -> None:
    begun(have)
    assert fetch.fetch(source(server, manner, manner, "good")).read_bytes() == CONTENT
    # The server is not shunned for the next file either.
    assert not url._dead


@pytest.mark.parametrize("manner", USELESS)
def test_alone_it_is_an_error_of_one_line(server: str, cache: Path, manner: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch.fetch(source(server, manner))
    assert "\n" not in caught.value.message
    assert f"{server}/{manner}" in caught.value.hint or "127.0.0.1:1" in caught.value.hint
    assert not (cache / "sha256").exists()
    assert fetch.fetch(source(server, "good")).read_bytes() == CONTENT


def test_a_wrong_file_is_reported_before_a_server_that_is_away(server: str, cache: Path) -> None:
    with pytest.raises(ChecksumError, match=f"instead of {SHA256}"):
        fetch.fetch(source(server, "busy", "same_size", "silent"))


def test_the_bytes_of_an_interrupted_download_are_used_at_the_next_address(server: str, cache: Path) -> None:
    fetch.fetch(source(server, "early", "good"))
    first, second = Handler.asked
    assert first == "/early/file.tar.gz"
    assert second.startswith("/good/file.tar.gz bytes=")


def test_wrong_bytes_are_not_continued_twice(server: str, cache: Path) -> None:
    fetch.fetch(source(server, "same_size_early", "good"))
    first, second, third = Handler.asked
    assert (first, third) == ("/same_size_early/file.tar.gz", "/good/file.tar.gz")
    assert second.startswith("/good/file.tar.gz bytes=")


def test_each_address_of_a_signature_is_tried(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (DATA / "signed.txt").read_bytes()

    def signed(*manners: str) -> Source:
        signature = Signature(key="k", fingerprint=FIRST, url=tuple(f"{server}/{manner}/x.asc" for manner in manners))
        digest = hashlib.sha256(data).hexdigest()
        origin = UrlOrigin(url=(f"{server}/signed/x",), sha256=digest, size=len(data), signature=signature)
        return Source(name="thing", origin=(origin,))

    monkeypatch.setattr(Signature, "key_path", DATA / "first.asc")
    with pytest.raises(SignatureError):
        fetch.fetch(signed("page", "silent"))
    assert fetch.fetch(signed("page", "forbidden", "signature")).read_bytes() == data


@pytest.mark.parametrize(("name", "right"), [("file.tar.gz", CONTENT), ("file.tar", gzip.decompress(CONTENT))])
def test_a_new_version_keeps_the_encoding_that_its_name_says(
    server: str, cache: Path, tmp_path: Path, name: str, right: bytes
) -> None:
    origin = UrlOrigin(url=(f"{server}/labeled/{name}",), sha256="0" * 64, size=1)
    assert url.obtain_unknown(origin, Request("thing", store(), tmp_path)).file.read_bytes() == right
