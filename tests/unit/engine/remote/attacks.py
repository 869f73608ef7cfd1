# SPDX-License-Identifier: Apache-2.0
"""Attacks of a store: changed records, signatures and blobs, and servers with odd answers."""

from __future__ import annotations

import io
import shutil
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec
import zstandard

from nabla.core import digest
from nabla.engine.remote import action_result, keys, record
from tests.unit.engine.remote.conftest import Signer, new_signer


@dataclass
class Scene:
    """The served folder of a good store with one result, and the ways to serve and read it."""

    served: Path
    signer: Signer
    stranger: Signer
    answer: Callable[[BaseHTTPRequestHandler], bool] = lambda _: False
    settings: str = ""
    head: str = ""
    url: str = ""
    elsewhere: list[str] = field(default_factory=list)

    @property
    def entry(self) -> Path:
        """The only entry of the store."""
        (record,) = (self.served / "ac").iterdir()
        return record

    @property
    def blobs(self) -> list[Path]:
        """All blobs."""
        return sorted((self.served / "cas").iterdir())

    def signed(self) -> record.Record:
        """The record in the entry."""
        return msgspec.json.decode(action_result.decode(self.entry.read_bytes())[0], type=record.Record)

    def sign(self, changed: record.Record, signer: Signer | None = None, namespace: str = record.NAMESPACE) -> None:
        """Write another record with a valid signature."""
        text = digest.canonical(msgspec.to_builtins(changed)).encode()
        signature = keys.sign(text, (signer or self.signer).key, namespace).encode()
        self.entry.write_bytes(action_result.encode(text, signature, []))

    def give_blob(self, name: str, data: bytes, **changes: object) -> None:
        """Replace the blob of one output, with a valid signature."""
        sha256, old = digest.sha256_bytes(data), self.signed()
        (self.served / "cas" / sha256).write_bytes(data)
        output = msgspec.structs.replace(old.outputs[name], blob=sha256, size=len(data), **changes)
        self.sign(msgspec.structs.replace(old, outputs={**old.outputs, name: output}))


Attack = Callable[[Scene], None]


def _edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _each_blob(scene: Scene, change: Callable[[bytes], bytes]) -> None:
    for blob in scene.blobs:
        _edit(blob, change)


def _flip_record(scene: Scene) -> None:
    _edit(scene.entry, lambda data: _flip(data, data.index(b'"digest":"') + 12))


def _flip_signature(scene: Scene) -> None:
    _edit(scene.entry, lambda data: _flip(data, data.index(b"SIGNATURE-----") + 120))


def _unsigned(scene: Scene) -> None:
    _edit(scene.entry, lambda data: action_result.encode(action_result.decode(data)[0], b"", []))


def _swapped_entry(scene: Scene) -> None:
    scene.sign(msgspec.structs.replace(scene.signed(), key="e" * 64))


def _old_entry(scene: Scene) -> None:
    scene.sign(msgspec.structs.replace(scene.signed(), created=int(time.time()) - 40 * 86400))
    scene.head = "max_age_days = 30\n"


def _entry_before_the_first_day(scene: Scene) -> None:
    scene.sign(msgspec.structs.replace(scene.signed(), created=1_700_000_000))
    scene.head = "not_before = 2026-01-01\n"


def _expired_signer(scene: Scene) -> None:
    former = new_signer(scene.served.parent, "former", 'valid-before="20250101"')
    scene.sign(scene.signed(), former)
    scene.signer = Signer(scene.signer.key, former.allowed)


def _output_with_a_path(scene: Scene) -> None:
    old = scene.signed()
    scene.sign(msgspec.structs.replace(old, outputs={**old.outputs, "../../escaped": old.outputs["0"]}))


def fewer_outputs(scene: Scene) -> None:
    old = scene.signed()
    scene.sign(msgspec.structs.replace(old, outputs={"0": old.outputs["0"]}))


def _swapped_blobs(scene: Scene) -> None:
    one, two = scene.blobs
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def _missing_blobs(scene: Scene) -> None:
    shutil.rmtree(scene.served / "cas")


def _bomb(scene: Scene) -> None:
    scene.give_blob("0", zstandard.compress(bytes(1 << 30)))


def _escaping_archive(scene: Scene) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../../../escaped"))
    scene.give_blob("1", zstandard.compress(raw.getvalue()), unpacked=len(raw.getvalue()))


def _status(status: int, where: str = "") -> Attack:
    def attack(scene: Scene) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> bool:
            if where in handler.path:
                handler.send_error(status)
            return where in handler.path

        scene.answer = answer

    return attack


def _redirect(where: str) -> Attack:
    """To a good store, which must not be contacted: its address was not allowed."""

    def attack(scene: Scene) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> bool:
            if handler.path.startswith("/good/") or where not in handler.path:
                handler.path = handler.path.replace("/good/", "/")
                if "good" in str(handler.requestline):
                    scene.elsewhere.append(handler.path)
                return False
            handler.send_response(302)
            handler.send_header("Location", f"/good{handler.path}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True

        scene.answer = answer

    return attack


def _raw(send: Callable[[BaseHTTPRequestHandler], None], where: str = "", settings: str = "") -> Attack:
    """Write bytes to the connection, then wait until the client closes it or the test ends."""

    def attack(scene: Scene) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> bool:
            if where not in handler.path:
                return False
            handler.close_connection = True
            send(handler)
            handler.wfile.flush()
            return True

        scene.answer, scene.settings = answer, settings

    return attack


_IMPATIENT = "timeout = 0.5\n"
_OK = b"HTTP/1.1 200 OK\r\n"


def _stopped(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.flush()
    handler.stopped.wait(60)  # type: ignore[attr-defined]


def _hang(handler: BaseHTTPRequestHandler) -> None:
    _stopped(handler)


def _hang_in_body(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(_OK + b"Content-Length: 100\r\n\r\nab")
    _stopped(handler)


def _drip(head: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        while not handler.stopped.wait(0.1):  # type: ignore[attr-defined]
            handler.wfile.write(b"a")
            handler.wfile.flush()

    return send


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(_OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while not handler.stopped.is_set():  # type: ignore[attr-defined]
        handler.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def _bytes(data: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)

    return send


_PAGE = _OK + b"Content-Length: 18\r\n\r\n<html>login</html>"

ATTACKS: dict[str, Attack] = {
    "bit of the record": _flip_record,
    "bit of the signature": _flip_signature,
    "truncated entry": lambda scene: _edit(scene.entry, lambda data: data[: len(data) // 2]),
    "empty entry": lambda scene: _edit(scene.entry, lambda _: b""),
    "page instead of the entry": lambda scene: _edit(scene.entry, lambda _: b"<html>welcome</html>"),
    "huge entry": lambda scene: _edit(scene.entry, lambda data: data + bytes(1 << 20)),
    "unsigned entry": _unsigned,
    "foreign signer": lambda scene: scene.sign(scene.signed(), scene.stranger),
    "expired signer": _expired_signer,
    "signature of a release": lambda scene: scene.sign(scene.signed(), namespace="file"),
    "entry of another key": _swapped_entry,
    "old entry": _old_entry,
    "entry before the first day": _entry_before_the_first_day,
    "entry of the future": lambda s: s.sign(msgspec.structs.replace(s.signed(), created=int(time.time()) + 9 * 86400)),
    "output with a path": _output_with_a_path,
    "bit of the blobs": lambda scene: _each_blob(scene, lambda data: _flip(data, len(data) // 2)),
    "truncated blobs": lambda scene: _each_blob(scene, lambda data: data[:-1]),
    "empty blobs": lambda scene: _each_blob(scene, lambda _: b""),
    "longer blobs": lambda scene: _each_blob(scene, lambda data: data + b"x"),
    "other blobs of the same size": lambda scene: _each_blob(scene, lambda data: bytes(len(data))),
    "missing blobs": _missing_blobs,
    "swapped blobs": _swapped_blobs,
    "signed blob of other content": lambda scene: scene.give_blob("0", zstandard.compress(b"evil"), unpacked=4),
    "bomb": _bomb,
    "escaping archive": _escaping_archive,
    "500": _status(500),
    "503 for blobs": _status(503, "/cas/"),
    "401": _status(401),
    "redirect": _redirect("/ac/"),
    "redirect of blobs": _redirect("/cas/"),
    "login page": _raw(_bytes(_PAGE)),
    "login page for blobs": _raw(_bytes(_PAGE), "/cas/"),
    "hanging server": _raw(_hang, settings=_IMPATIENT),
    "hanging in a blob": _raw(_hang_in_body, "/cas/", _IMPATIENT),
    "slow head": _raw(_drip(b""), settings=_IMPATIENT),
    "slow body": _raw(_drip(_OK + b"Content-Length: 99999\r\n\r\n"), settings=_IMPATIENT),
    "slow blobs": _raw(_drip(_OK + b"\r\n"), "/cas/", _IMPATIENT),
    "endless entry": _raw(_endless),
    "endless blobs": _raw(_endless, "/cas/"),
    "promise of a terabyte": _raw(_bytes(_OK + b"Content-Length: 1099511627776\r\n\r\nx")),
    "compressed answer": _raw(_bytes(_OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")),
    "part that nobody asked for": _raw(_bytes(b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-2/9\r\n\r\nabc")),
    "closed connection": _raw(_bytes(b"")),
    "another protocol": _raw(_bytes(b"SSH-2.0-OpenSSH_9.2\r\n\x00\xff\r\n")),
    "endless header": _raw(_bytes(_OK + b"X: y\r\n" * 5000 + b"\r\n")),
    "control characters": _raw(_bytes(b"HTTP/1.1 599 \x1b[31m\x07owned\r\n\r\n")),
}
