# SPDX-License-Identifier: Apache-2.0
"""A store that lies in every way costs a warning: the build makes the same bytes by itself."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec
import pytest
import zstandard

from nabla.core import digest, manifest
from nabla.remote import action_result, keys, record
from tests.conftest import Checkout
from tests.unit.engine.test_result_cache import TASKS, another, calls
from tests.unit.remote.conftest import Signer, new_signer
from tests.unit.remote.servers import free_port, nginx, odd_server
from tests.unit.remote.test_stores import configure


@dataclass
class Scene:
    """The served folder of a good store with one result, and how it is served and read."""

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
        (found,) = (self.served / "ac").iterdir()
        return found

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


def _fewer_outputs(scene: Scene) -> None:
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
    """To a good store, which must not be asked: its address was not allowed."""

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


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The served folder of the first build, and the keys; filled by the first test that needs it."""
    return {"folder": tmp_path_factory.mktemp("good")}


@pytest.fixture
def maker(checkout: Checkout) -> Checkout:
    checkout.task_module("made", TASKS)
    checkout.write("input", "one")
    return checkout


@pytest.fixture
def scene(maker: Checkout, good: dict[str, Path], tmp_path: Path) -> Scene:
    """A copy of the store of a good build, which happens once."""
    if "served" not in good:
        good["signer"] = new_signer(good["folder"], "builder").key
        new_signer(good["folder"], "stranger")
        signer = Signer(good["signer"], good["folder"] / "builder.allowed")
        config = configure(tmp_path / "push.toml", signer, f'url = "file://{good["folder"]}/served"\npush = true')
        maker.doit("made", NABLA_STORE="", NABLA_STORE_CONFIG=str(config), NABLA_CACHE=str(tmp_path / "first"))
        good["served"] = good["folder"] / "served"
    served = tmp_path / "served"
    shutil.copytree(good["served"], served)
    folder = good["folder"]
    return Scene(
        served,
        Signer(folder / "builder", folder / "builder.allowed"),
        Signer(folder / "stranger", folder / "stranger.allowed"),
    )


def build(scene: Scene, maker: Checkout, tmp_path: Path, log: list[str]) -> tuple[Checkout, str]:
    """Build in another checkout with an empty cache; returns it and doit's output."""
    with odd_server(scene.served, lambda handler: scene.answer(handler), log) as url:
        table = f'url = "{scene.url or url}"\n{scene.settings}'
        config = configure(tmp_path / "read.toml", scene.signer, table)
        config.write_text(scene.head + config.read_text())
        other = another(maker, "elsewhere")
        cache = str(tmp_path / "other cache")
        return other, other.doit("made", NABLA_STORE="", NABLA_STORE_CONFIG=str(config), NABLA_CACHE=cache)


def content(checkout: Checkout) -> dict[str, object]:
    """What the task makes."""
    out = checkout.root / "out"
    assert os.access(out / "file", os.X_OK)
    return {"file": (out / "file").read_bytes(), "folder": manifest.manifest(out / "folder")}


EXPECTED = {
    "file": b"one",
    "folder": f"f 644 {digest.sha256_bytes(b'one')} copy\nl - - link -> copy\n",
}


def test_second_checkout_takes_it(scene: Scene, maker: Checkout, tmp_path: Path) -> None:
    """Without an attack nothing is built."""
    log: list[str] = []
    other, output = build(scene, maker, tmp_path, log)
    assert calls(other) == 0 and "warning" not in output, output
    assert "made: taken from http://127.0.0.1" in output and "signed by builder" in output
    assert content(other) == EXPECTED
    assert [line.split("/")[1] for line in log] == ["ac", "cas", "cas"]


@pytest.mark.parametrize("name", ATTACKS)
def test_poisoned_store(scene: Scene, maker: Checkout, tmp_path: Path, name: str) -> None:
    ATTACKS[name](scene)
    other, output = build(scene, maker, tmp_path, [])
    assert content(other) == EXPECTED
    assert calls(other) == 1, "it was built here"
    warnings = [line for line in output.splitlines() if line.startswith("warning: the store http")]
    assert len(warnings) == 1, output
    assert output.count("warning") == 1 and not any(char in output for char in "\x1b\x07"), output
    assert scene.elsewhere == []
    assert not any(path.name == "escaped" for path in tmp_path.rglob("*"))
    results = list((tmp_path / "other cache/results").glob("??/*"))
    assert len(results) == 1 and "origin" not in (results[0] / "manifest.json").read_text()


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) > 40


def test_entry_with_fewer_outputs(scene: Scene, maker: Checkout, tmp_path: Path) -> None:
    """An allowed signer signed it for this key; it does not fit the step."""
    _fewer_outputs(scene)
    other, _ = build(scene, maker, tmp_path, [])
    assert content(other) == EXPECTED and calls(other) == 1


def test_server_that_is_not_there(scene: Scene, maker: Checkout, tmp_path: Path) -> None:
    scene.url = f"http://127.0.0.1:{free_port()}"
    other, output = build(scene, maker, tmp_path, [])
    assert content(other) == EXPECTED and calls(other) == 1
    assert output.count("warning") == 1 and "cannot be reached" in output


def test_failure_is_never_stored(maker: Checkout, tmp_path: Path, signer: Signer) -> None:
    with nginx(tmp_path / "nginx", tmp_path / "served") as address:
        config = configure(tmp_path / "push.toml", signer, f'url = "http://{address}"\npush = true')
        maker.write("input", "bad")
        maker.doit("made", status=1, NABLA_STORE="", NABLA_STORE_CONFIG=str(config))
        assert list((tmp_path / "served").iterdir()) == []
        maker.write("input", "good")
        maker.doit("made", NABLA_STORE="", NABLA_STORE_CONFIG=str(config))
        assert len(list((tmp_path / "served/ac").iterdir())) == 1


def test_offline_build_opens_nothing(scene: Scene, maker: Checkout, tmp_path: Path) -> None:
    log: list[str] = []
    with odd_server(scene.served, lambda _: False, log) as url:
        config = configure(tmp_path / "read.toml", scene.signer, f'url = "{url}"')
        other = another(maker, "elsewhere")
        output = other.doit("offline=1", "made", NABLA_STORE="", NABLA_STORE_CONFIG=str(config))
    assert log == [] and calls(other) == 1 and "warning" not in output
