# SPDX-License-Identifier: Apache-2.0
"""Files from upstream's own servers, over http(s): several addresses, resumed after an interruption.

The unfinished file is named by the digest it shall have, so any address can go on where another one stopped.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import requests

from nabla.core import log
from nabla.core.errors import FetchError
from nabla.core.files import raise_full
from nabla.core.progress import Bar
from nabla.sources.origins import Delivery, Request
from nabla.sources.recipe import UrlOrigin

CONNECT_TIMEOUT = 4.0  # seconds; also for the name service
READ_TIMEOUT = 30.0  # seconds without a single byte
_CHUNK = 1 << 16
_MAX_SIGNATURE = 64 << 10
_MAX_LISTING = 4 << 20

# Hosts that did not answer: not asked again by this process, so that a missing network costs seconds, not minutes.
_dead: dict[str, str] = {}


def obtain(origin: UrlOrigin, request: Request) -> Delivery:
    """Download the file, and its signature where the recipe wants one. Raises `FetchError`, `DiskFullError`."""
    return _obtain(origin, request, request.cache.partial(origin.sha256), origin.size)


def obtain_unknown(origin: UrlOrigin, request: Request) -> Delivery:
    """Download a file whose sha256 and size nobody knows yet, those in `origin` do not count. Raises `FetchError`."""
    return _obtain(origin, request, request.folder / origin.file, None)


def _obtain(origin: UrlOrigin, request: Request, part: Path, size: int | None) -> Delivery:
    _first_that_works(origin.url, lambda url: _download(url, part, size, request.name))
    if origin.signature is None:
        return Delivery(part)
    signature = request.folder / "signature"
    _first_that_works(origin.signature.url, lambda url: signature.write_bytes(_small(url, _MAX_SIGNATURE)))
    return Delivery(part, signature)


def _first_that_works(urls: tuple[str, ...], attempt: Callable[[str], object]) -> None:
    reasons = []
    for url in urls:
        try:
            attempt(url)
            return
        except FetchError as error:
            reasons.append(error.message)
    raise FetchError("; ".join(reasons))


def _download(url: str, part: Path, size: int | None, title: str) -> None:
    """Fetch `url` into `part`, going on after the bytes that are there already."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have == size:
        return
    if size is not None and have > size:
        part.unlink()
        have = 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with _get(url, headers) as response:
        if have and response.status_code == 416:
            # Nothing beyond what we have: the digest will tell whether it is the whole file.
            return
        if response.status_code != 206:
            have = 0
        _save(response, part, have, size, title)


def _save(response: requests.Response, part: Path, have: int, size: int | None, title: str) -> None:
    length = response.headers.get("Content-Length", "")
    total = size or (have + int(length) if length.isdigit() else None)
    received = have
    try:
        with part.open("r+b" if have else "wb") as stream, Bar(title, total, done=have) as bar:
            stream.seek(have)
            for chunk in response.iter_content(_CHUNK):
                received += len(chunk)
                if size is not None and received > size:
                    stream.truncate(0)
                    raise FetchError(f"{response.url} sends more than the {size} bytes wanted")
                stream.write(chunk)
                bar.advance(len(chunk))
            stream.flush()
            os.fsync(stream.fileno())
    except requests.RequestException as error:
        raise FetchError(f"{response.url}: the connection broke after {received} bytes: {_reason(error)}") from error
    except OSError as error:
        part.unlink(missing_ok=True)
        raise_full(error, part)
    if total is not None and received < total:
        raise FetchError(f"{response.url}: the connection ended after {received} of {total} bytes")


def listing(url: str) -> str:
    """Return the page at `url`, where many servers list the files of a folder. Raises `FetchError`."""
    return _small(url, _MAX_LISTING).decode(errors="replace")


def _small(url: str, limit: int) -> bytes:
    with _get(url, {}) as response:
        try:
            data = bytes(response.raw.read(limit + 1, decode_content=True))
        except Exception as error:
            raise FetchError(f"{url}: {error}") from error
    if len(data) > limit:
        raise FetchError(f"{url}: more than the {limit} bytes expected of it")
    return data


def _get(url: str, headers: dict[str, str]) -> requests.Response:
    host = urlsplit(url).hostname or ""
    if host in _dead:
        raise FetchError(f"{host}: {_dead[host]} (not tried again)")
    try:
        if not requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)):
            _resolve(host)
        response = requests.get(url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
    except (requests.ConnectionError, requests.Timeout, OSError) as error:
        _dead[host] = _reason(error)
        log.info(f"{host} cannot be reached: {_dead[host]}")
        raise FetchError(f"{host}: {_dead[host]}") from error
    except requests.RequestException as error:
        raise FetchError(f"{url}: {_reason(error)}") from error
    if response.status_code not in (200, 206, 416):
        response.close()
        raise FetchError(f"{url}: the server answered {response.status_code} {response.reason}")
    return response


def _resolve(host: str) -> None:
    """Look the name up within the connect timeout: a silent name server would block for half a minute otherwise."""
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
    """Return the innermost cause of requests' nested errors, in few words."""
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
