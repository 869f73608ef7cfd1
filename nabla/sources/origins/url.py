# SPDX-License-Identifier: Apache-2.0
"""Files from upstream's own servers, over http(s): several addresses, resumed after an interruption.

The digest verifies the file from each address: a server that answers with a login page, another file, another range, or
an encoding that was not requested, rules out only its own address. The name of the unfinished file is the expected
digest, so any address can continue where another one stopped; if the result is wrong, the address starts over.
"""

from __future__ import annotations

import gzip
import http.client
import os
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from nabla.core import log, manifest
from nabla.core.errors import ChecksumError, FetchError, SignatureError
from nabla.core.files import raise_full
from nabla.core.progress import Bar
from nabla.sources import openpgp
from nabla.sources.origins import Delivery, Request
from nabla.sources.recipe import UrlOrigin

CONNECT_TIMEOUT = 4.0  # seconds; also for the name service
READ_TIMEOUT = 30.0  # seconds without a single byte
DEAD_FOR = 60.0  # seconds
_CHUNK = 1 << 16
_MAX_SIGNATURE = 64 << 10
_MAX_LISTING = 4 << 20
_GZIP = ("gzip", "x-gzip")
_COMPRESSED = re.compile(r".*\.(t?gz|tgz|bz2|xz|zst|zip|whl|lz)", re.IGNORECASE)

# Unreachable servers, and the time until which they are not tried again: a missing network costs seconds, not minutes.
# A refused, late or broken answer does not count: the next file of that server may be good.
_dead: dict[str, tuple[str, float]] = {}


@dataclass(frozen=True)
class _Wanted:
    """The result of a download. Without a digest (an update to a new version) it cannot be resumed."""

    part: Path
    title: str
    sha256: str | None = None
    size: int | None = None


def obtain(origin: UrlOrigin, request: Request) -> Delivery:
    """Download the file, and its signature if the recipe has one. Raises `FetchError`, `DiskFullError`."""
    part = request.cache.partial(origin.sha256)
    return _obtain(origin, request, _Wanted(part, request.name, origin.sha256, origin.size))


def obtain_unknown(origin: UrlOrigin, request: Request) -> Delivery:
    """Download a file with an unknown sha256 and size; ignores those in `origin`. Raises `FetchError`."""
    return _obtain(origin, request, _Wanted(request.folder / origin.file, request.name))


def _obtain(origin: UrlOrigin, request: Request, wanted: _Wanted) -> Delivery:
    _first_that_works(origin.url, lambda url: _download(url, wanted))
    if origin.signature is None:
        return Delivery(wanted.part, sha256=wanted.sha256)
    pinned, signature = origin.signature, request.folder / "signature"

    def attempt(url: str) -> None:
        signature.write_bytes(_small(url, _MAX_SIGNATURE))
        openpgp.check(wanted.part, signature, pinned, request.folder)

    _first_that_works(pinned.url, attempt)
    return Delivery(wanted.part, signature, wanted.sha256)


def _first_that_works(urls: tuple[str, ...], attempt: Callable[[str], object]) -> None:
    problems: list[FetchError] = []
    for url in urls:
        try:
            attempt(url)
            return
        except FetchError as error:
            problems.append(error)
            if len(urls) > 1:
                log.info(error.message)
    # A wrong file is a better explanation than a server that did not answer.
    worst = next((error for error in problems if isinstance(error, ChecksumError | SignatureError)), problems[-1])
    raise type(worst)("; ".join(error.message for error in problems))


def _download(url: str, wanted: _Wanted) -> None:
    """Fetch `url`; then the file is complete and has the digest, if it is known."""
    have = wanted.part.stat().st_size if wanted.sha256 is not None and wanted.part.exists() else 0
    if have and _is_right(wanted):
        return
    if have and (wanted.size is None or have < wanted.size) and _resume(url, wanted, have):
        return
    _remove(wanted.part)
    with _get(url, {"Accept-Encoding": "identity"}) as response:
        if response.status_code != 200:
            raise FetchError(f"{url}: the server answered {response.status_code} {response.reason}")
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        length = response.headers.get("Content-Length", "")
        if wanted.size is not None and length.isdigit() and int(length) != wanted.size and not encoding:
            raise FetchError(f"{url}: the server sends {length} bytes instead of {wanted.size} bytes")
        # An encoded file can be somewhat longer than the file itself.
        limit = wanted.size and wanted.size + (wanted.size // 16 + _CHUNK if encoding in _GZIP else 0)
        _save(response, wanted, 0, limit)
    if _is_right(wanted):
        if wanted.sha256 is None and encoding in _GZIP and not _COMPRESSED.fullmatch(urlsplit(url).path):
            _decode(wanted.part, None)
        return
    if encoding in _GZIP and _decode(wanted.part, wanted.size) and _is_right(wanted):
        return
    size = wanted.part.stat().st_size
    actual = manifest.file_sha256(wanted.part)
    _remove(wanted.part)
    if wanted.size is not None and size != wanted.size:
        raise ChecksumError(f"{url}: the file has {size} bytes instead of {wanted.size}")
    raise ChecksumError(f"{url}: the file has sha256 {actual} instead of {wanted.sha256}")


def _resume(url: str, wanted: _Wanted, have: int) -> bool:
    """Continue after the present bytes; return False if that fails, and the download must start over.

    Raises `FetchError` if the server was interrupted: then the bytes are kept for the next address.
    """
    with _get(url, {"Accept-Encoding": "identity", "Range": f"bytes={have}-"}) as response:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        # Some servers leave the header out, and the digest decides.
        begins = int(match[1]) if match else have
        total = int(match[2]) if match and match[2].isdigit() else wanted.size
        if response.status_code != 206 or begins != have or total not in (None, wanted.size or total):
            return False
        if response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity", *_GZIP):
            return False
        try:
            _save(response, wanted, have, wanted.size)
        except _TooLong:
            return False
    return _is_right(wanted)


class _TooLong(FetchError):
    """The server sends more bytes than the file has."""


def _save(response: requests.Response, wanted: _Wanted, have: int, limit: int | None) -> None:
    """Write the undecoded body to the unfinished file, after its first `have` bytes."""
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else wanted.size
    received = have
    part = wanted.part
    try:
        with part.open("r+b" if have else "wb") as stream, Bar(wanted.title, total, done=have) as bar:
            stream.seek(have)
            for chunk in _body(response):
                received += len(chunk)
                if limit is not None and received > limit:
                    stream.truncate(0)
                    raise _TooLong(f"{response.url} sends more than the {limit} bytes wanted")
                stream.write(chunk)
                bar.advance(len(chunk))
            stream.flush()
            os.fsync(stream.fileno())
    except _Broken as error:
        raise FetchError(
            f"{response.url}: the connection broke after {received} bytes: {_reason(error.cause)}"
        ) from error.cause
    except OSError as error:
        part.unlink(missing_ok=True)
        raise_full(error, part)
    if length.isdigit() and received < have + int(length):
        raise FetchError(f"{response.url}: the connection ended after {received} of {total} bytes")


class _Broken(Exception):
    """The network failed, not the disk."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


def _body(response: requests.Response) -> Iterator[bytes]:
    chunks = response.raw.stream(_CHUNK, decode_content=False)
    while True:
        try:
            chunk = next(chunks, None)
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise _Broken(error) from error
        if chunk is None:
            return
        yield chunk


def _is_right(wanted: _Wanted) -> bool:
    """Return whether the file has the expected digest; always true if that is unknown."""
    if wanted.sha256 is None:
        return True
    if wanted.size is not None and wanted.part.stat().st_size != wanted.size:
        return False
    return manifest.file_sha256(wanted.part) == wanted.sha256


def _decode(part: Path, limit: int | None) -> bool:
    """Decode the transport's gzip encoding; return False, with the file unchanged, if it has none or is longer."""
    plain = part.with_name(f"{part.name}.plain")
    written = 0
    try:
        with gzip.open(part) as source, plain.open("wb") as target:
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                if limit is not None and written > limit:
                    return False
                target.write(chunk)
        plain.replace(part)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return False
    except OSError as error:
        raise_full(error, plain)
    finally:
        plain.unlink(missing_ok=True)
    return True


def _remove(part: Path) -> None:
    with suppress(FileNotFoundError):
        part.unlink()


def listing(url: str) -> str:
    """Return the page at `url`, for example the listing of a folder. Raises `FetchError`."""
    return _small(url, _MAX_LISTING).decode(errors="replace")


def _small(url: str, limit: int) -> bytes:
    with _get(url, {}) as response:
        if response.status_code != 200:
            raise FetchError(f"{url}: the server answered {response.status_code} {response.reason}")
        try:
            data = bytes(response.raw.read(limit + 1, decode_content=True))
        except Exception as error:
            raise FetchError(f"{url}: {error}") from error
    if len(data) > limit:
        raise FetchError(f"{url}: more than the {limit} bytes expected of it")
    return data


@contextmanager
def _get(url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    server = _server(url)
    reason, until = _dead.get(server, ("", 0.0))
    if time.monotonic() < until:
        raise FetchError(f"{server}: {reason} (not tried again)")
    try:
        if not requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)):
            _resolve(urlsplit(url).hostname or "")
        response = requests.get(url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
    except (TimeoutError, socket.gaierror, requests.ConnectTimeout) as error:
        # A redirection may lead to an unreachable server, while the first one works.
        asked = getattr(error, "request", None)
        server = _server(asked.url) if asked is not None and asked.url else server
        _dead[server] = (_reason(error), time.monotonic() + DEAD_FOR)
        log.info(f"{server} cannot be reached: {_reason(error)}")
        raise FetchError(f"{server}: {_reason(error)}") from error
    except (
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        OSError,
        ValueError,  # addresses in redirections that are none
    ) as error:
        raise FetchError(f"{url}: {_reason(error)}") from error
    with response:
        if response.status_code not in (200, 206, 416):
            raise FetchError(f"{url}: the server answered {response.status_code} {response.reason}")
        yield response


def _server(url: str) -> str:
    """Return the server of an address, with its port."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def _resolve(host: str) -> None:
    """Resolve the name within the connect timeout; a silent name server would block for half a minute."""
    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            socket.getaddrinfo(host, None)
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    worker = threading.Thread(target=ask, daemon=True)
    worker.start()
    worker.join(CONNECT_TIMEOUT)
    if not outcome:
        raise TimeoutError("the name service does not answer")
    if outcome[0] is not None:
        raise outcome[0]


def _reason(error: BaseException) -> str:
    """Return the innermost cause of requests' nested errors as a short text."""
    if isinstance(error, socket.gaierror):
        return "the name cannot be resolved"
    if isinstance(error, requests.ConnectTimeout | TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, requests.ReadTimeout):
        return f"no data for {READ_TIMEOUT:g} s"
    inner: object = error
    while isinstance(inner, BaseException):
        text = inner
        inner = getattr(inner, "reason", None) or next(
            (item for item in reversed(inner.args) if isinstance(item, BaseException)), None
        )
    return str(text).split(": ")[-1] or type(text).__name__
