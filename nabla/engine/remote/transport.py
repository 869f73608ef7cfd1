# SPDX-License-Identifier: Apache-2.0
"""Files of one store: on a server by HTTP, or in a folder, which any static web server can serve.

Names are `ac/<key>` and `cas/<sha256>`. A server's answers are not trusted here: redirections are not followed, and an
answer has a limit in bytes and in time. A server that cannot be reached is not asked again for a minute.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from nabla.core import files
from nabla.core.progress import Bar
from nabla.engine.remote.settings import StoreSettings

CONNECT_TIMEOUT = 4.0  # seconds
DEAD_FOR = 60.0  # seconds
_CHUNK = 1 << 16
_OK = (200, 201, 204)

_T = TypeVar("_T")


class StoreError(Exception):
    """A store did not answer as expected; the text contains the reason."""


class UnreachableError(StoreError):
    """A server that could not be reached a moment ago was not asked again."""


class Transport(Protocol):
    """One store."""

    settings: StoreSettings

    def fetch(self, name: str, target: Path, limit: int, title: str) -> bool:
        """Append a file of the store to the bytes in `target`; return False if it is absent.

        Raises `StoreError`, also for more than `limit` bytes, and `DiskFullError`.
        """

    def has(self, name: str) -> bool:
        """Return whether the store has a file. Raises `StoreError`."""

    def send(self, name: str, source: Path, title: str) -> None:
        """Write a file into the store. Raises `StoreError`."""


def open_store(settings: StoreSettings) -> Transport:
    """Return the transport of a store; it opens no connection yet."""
    if settings.is_local:
        return Folder(settings)
    return Server(settings)


class Folder:
    """A store in a folder of this host."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self.root = Path(unquote(urlsplit(settings.url).path))

    def fetch(self, name: str, target: Path, limit: int, title: str) -> bool:
        """See `Transport`."""
        try:
            with (self.root / name).open("rb") as stream:
                data_left = limit + 1
                with _writing(target, "wb") as output:
                    while chunk := stream.read(min(_CHUNK, data_left)):
                        data_left -= len(chunk)
                        output.write(chunk)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"cannot read {_short(name)}: {os.strerror(error.errno or 0)}") from None
        if data_left <= 0:
            target.unlink()
            raise StoreError(f"{_short(name)} has more than {limit} bytes")
        return True

    def has(self, name: str) -> bool:
        """See `Transport`."""
        return (self.root / name).is_file()

    def send(self, name: str, source: Path, title: str) -> None:
        """See `Transport`."""
        path = self.root / name
        partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb") as stream, partial.open("wb") as output:
                while chunk := stream.read(_CHUNK):
                    output.write(chunk)
            partial.chmod(0o644)
            partial.rename(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise StoreError(f"cannot write {_short(name)}: {os.strerror(error.errno or 0)}") from None


class Server:
    """A store on a server."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self._sessions: queue.LifoQueue[Any] = queue.LifoQueue()
        self._owner = os.getpid()
        self._dead_until = 0.0

    def fetch(self, name: str, target: Path, limit: int, title: str) -> bool:
        """See `Transport`."""
        return self._limited(limit, lambda session, stop: self._fetch(session, name, target, limit, title, stop))

    def has(self, name: str) -> bool:
        """See `Transport`."""
        return self._limited(0, lambda session, stop: self._has(session, name))

    def send(self, name: str, source: Path, title: str) -> None:
        """See `Transport`."""
        size = source.stat().st_size
        self._limited(size, lambda session, stop: self._send(session, name, source, title, stop))

    def _limited(self, size: int, work: Callable[[Any, threading.Event], _T]) -> _T:
        """Do `work` within the time limit for `size` bytes, since a server may send single bytes slowly."""
        if time.monotonic() < self._dead_until:
            raise UnreachableError("it could not be reached a moment ago")
        results: list[_T] = []
        errors: list[Exception] = []
        stop = threading.Event()
        done = threading.Event()

        def worker() -> None:
            try:
                results.append(self._with_session(lambda session: work(session, stop)))
            except Exception as error:  # raised again below
                errors.append(error)
            done.set()

        threading.Thread(target=worker, daemon=True).start()
        limit = self.settings.timeout + size / self.settings.min_rate
        if not done.wait(limit):
            stop.set()
            self._dead_until = time.monotonic() + DEAD_FOR
            raise StoreError(f"no complete answer within {limit:.0f} s")
        if errors:
            raise errors[0]
        return results[0]

    def _with_session(self, work: Callable[[Any], _T]) -> _T:
        # Imported on demand: requests takes longer to load than doit itself.
        import http.client

        import requests
        import urllib3

        if self._owner != os.getpid():
            # A connection must not be used by two processes.
            self._sessions, self._owner = queue.LifoQueue(), os.getpid()
        try:
            session = self._sessions.get_nowait()
        except queue.Empty:
            session = self._session()
        try:
            result = work(session)
        except (requests.ConnectionError, requests.Timeout, TimeoutError) as error:
            session.close()
            self._dead_until = time.monotonic() + DEAD_FOR
            raise StoreError(f"it cannot be reached or stopped answering ({_cause(error)})") from None
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
            ValueError,
        ) as error:
            session.close()
            raise StoreError(f"the transfer failed ({_cause(error)})") from None
        except StoreError:
            session.close()
            raise
        self._sessions.put(session)
        return result

    def _session(self) -> Any:
        import requests

        settings, session = self.settings, requests.Session()
        session.headers["Accept-Encoding"] = "identity"
        session.auth = settings.login
        session.cert = (str(settings.certificate[0]), str(settings.certificate[1])) if settings.certificate else None
        return session

    def _request(self, session: Any, method: str, name: str, **options: Any) -> Any:
        return session.request(
            method,
            f"{self.settings.url}/{name}",
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_TIMEOUT, self.settings.timeout),
            # As an argument: REQUESTS_CA_BUNDLE takes precedence over the session's value.
            verify=str(self.settings.ca) if self.settings.ca else None,
            **options,
        )

    def _fetch(self, session: Any, name: str, target: Path, limit: int, title: str, stop: threading.Event) -> bool:
        have = target.stat().st_size if target.exists() else 0
        if have >= limit:
            have = 0
        with self._request(session, "GET", name, headers={"Range": f"bytes={have}-"} if have else {}) as response:
            if response.status_code in (404, 410):
                return False
            if response.status_code == 416 and have:
                target.unlink()
                raise StoreError(f"{_short(name)} is shorter than the part that was already fetched")
            if response.status_code not in ((200, 206) if have else (200,)):
                raise StoreError(_refusal(response.status_code, name))
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise StoreError(f"{_short(name)} is encoded, which was not requested")
            if response.status_code == 206:
                begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
                if begins is None or int(begins[1]) != have:
                    raise StoreError(f"{_short(name)} does not start at the requested position")
            else:
                have = 0
            length = response.headers.get("Content-Length", "")
            if length.isdigit() and have + int(length) > limit:
                raise StoreError(f"{_short(name)} has more than {limit} bytes")
            _save(response, target, have, limit, title, stop)
        return True

    def _has(self, session: Any, name: str) -> bool:
        with self._request(session, "HEAD", name) as response:
            if response.status_code in (404, 410):
                return False
            if response.status_code not in _OK:
                raise StoreError(_refusal(response.status_code, name))
        return True

    def _send(self, session: Any, name: str, source: Path, title: str, stop: threading.Event) -> None:
        size = source.stat().st_size
        with source.open("rb") as stream, Bar(title, size) as bar:
            body = _Body(stream, size, bar, stop)
            # Without a body, requests would send it in chunks, which some servers refuse.
            with self._request(session, "PUT", name, data=body if size else b"") as response:
                if response.status_code not in _OK:
                    raise StoreError(_refusal(response.status_code, name))


class _Body:
    """A file to send, with a length, a progress bar, and an end at the time limit."""

    def __init__(self, stream: Any, size: int, bar: Bar, stop: threading.Event) -> None:
        self._stream, self._size, self._bar, self._stop = stream, size, bar, stop

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        if self._stop.is_set():
            raise StoreError("given up")
        data = bytes(self._stream.read(size))
        self._bar.advance(len(data))
        return data


def _save(response: Any, target: Path, have: int, limit: int, title: str, stop: threading.Event) -> None:
    received = have
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else None
    with _writing(target, "r+b" if have else "wb") as output, Bar(title, total, done=have) as bar:
        output.seek(have)
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            if stop.is_set():
                return
            received += len(chunk)
            if received > limit:
                output.truncate(0)
                raise StoreError(f"the answer has more than {limit} bytes")
            output.write(chunk)
            bar.advance(len(chunk))


class _Output:
    """A file whose write errors are `NablaError`s, to distinguish them from network errors."""

    def __init__(self, path: Path, mode: str) -> None:
        self._path = path
        self._stream: Any = None
        self._mode = mode

    def __enter__(self) -> _Output:
        try:
            self._stream = self._path.open(self._mode)
        except OSError as error:
            files.raise_full(error, self._path)
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._stream.close()
        except OSError as problem:
            files.raise_full(problem, self._path)

    def seek(self, position: int) -> None:
        """Move to a position."""
        self._stream.seek(position)

    def truncate(self, size: int) -> None:
        """Truncate the file."""
        self._stream.truncate(size)

    def write(self, data: bytes) -> None:
        """Write bytes."""
        try:
            self._stream.write(data)
        except OSError as error:
            files.raise_full(error, self._path)


def _writing(path: Path, mode: str) -> _Output:
    return _Output(path, mode)


def _short(name: str) -> str:
    folder, _, digest = name.partition("/")
    return f"{folder}/{digest[:12]}…"


def _refusal(status: int, name: str) -> str:
    if 300 <= status < 400:
        return f"the server redirects {_short(name)} elsewhere ({status}), which is not followed"
    hint = {401: ", a login is needed", 403: ", it is forbidden"}.get(status, "")
    return f"the server answered {status} for {_short(name)}{hint}"


def _cause(error: BaseException) -> str:
    """Return the innermost cause of requests' nested errors as a short text that contains no bytes from the server."""
    inner: object = error
    text: BaseException = error
    for _ in range(10):
        if not isinstance(inner, BaseException):
            break
        text = inner
        inner = getattr(inner, "reason", None) or next(
            (item for item in reversed(inner.args) if isinstance(item, BaseException)), None
        )
    number = getattr(text, "errno", None)
    if isinstance(text, OSError) and isinstance(number, int) and type(text).__module__ == "builtins":
        return os.strerror(number)
    return type(text).__name__
