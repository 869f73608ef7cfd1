# SPDX-License-Identifier: Apache-2.0
"""Fetching from a real server, with real pip and real apt: after any error the cache contains only right files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nabla.core.errors import ChecksumError, DiskFullError, FetchError, NablaError, OfflineError, SignatureError
from nabla.sources import archives, fetch, recipe
from nabla.sources.origins import url
from nabla.sources.recipe import DebOrigin, Origin, PypiOrigin, Signature, Source, UrlOrigin
from tests.conftest import ROOT, Checkout, wait_for_lock
from tests.unit import server as http
from tests.unit.engine.pipeline import ran, wait_for
from tests.unit.sources.conftest import CONTENT, SHA256
from tests.unit.sources.test_openpgp import DATA, FIRST
from tests.unit.wheels import make_wheel


def origin(*urls: str, sha256: str = SHA256, size: int | None = len(CONTENT)) -> UrlOrigin:
    return UrlOrigin(url=urls, sha256=sha256, size=size)


def source(*origins: Origin) -> Source:
    return Source(name="thing", origin=origins)


def files_in(cache: Path) -> list[str]:
    """Names of all complete files in the cache."""
    return sorted(path.name for path in (cache / "sha256").rglob("*") if path.is_file())


def test_file_enters_the_cache_once(server: http.Server, cache: Path) -> None:
    wanted = source(origin(f"{server.url}/file.tar"))
    path = fetch.fetch(wanted)
    assert path.read_bytes() == CONTENT
    assert path == cache / "sha256" / SHA256[:2] / SHA256
    assert fetch.fetch(wanted) == path
    assert server.requests == ["/file.tar"]
    assert list((cache / "partial").iterdir()) == []


def test_mirrors_and_origins_are_tried_in_order(server: http.Server, cache: Path) -> None:
    first = origin(f"{server.url}/gone", f"{server.url}/gone-too")
    second = origin(f"{server.url}/nowhere", f"{server.url}/file.tar")
    assert fetch.fetch(source(first, second)).read_bytes() == CONTENT
    assert server.requests == ["/gone", "/gone-too", "/nowhere", "/file.tar"]


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_broken_connection_is_resumed(server: http.Server, cache: Path, size: int | None) -> None:
    wanted = source(origin(f"{server.url}/file.tar", size=size))
    server.stop_after = 300_000
    with pytest.raises(FetchError, match="no origin could deliver it") as caught:
        fetch.fetch(wanted)
    assert "the connection broke after" in caught.value.hint
    have = next((cache / "partial").iterdir()).stat().st_size
    assert 0 < have <= 300_000
    server.stop_after = None
    assert fetch.fetch(wanted).read_bytes() == CONTENT
    assert server.requests == ["/file.tar", f"/file.tar bytes={have}-"]


def test_server_without_ranges_starts_over(server: http.Server, cache: Path) -> None:
    wanted = source(origin(f"{server.url}/file.tar"))
    server.stop_after, server.ranges = 300_000, False
    with pytest.raises(FetchError):
        fetch.fetch(wanted)
    server.stop_after = None
    assert fetch.fetch(wanted).read_bytes() == CONTENT


def test_wrong_hash_is_refused_and_forgotten(server: http.Server, cache: Path) -> None:
    server.files["/file.tar"] = CONTENT[:-1] + b"?"
    wanted = source(origin(f"{server.url}/file.tar"))
    with pytest.raises(ChecksumError, match=f"instead of {SHA256}"):
        fetch.fetch(wanted)
    assert files_in(cache) == []
    assert list((cache / "partial").iterdir()) == []
    server.files["/file.tar"] = CONTENT
    assert fetch.fetch(wanted).read_bytes() == CONTENT


def test_wrong_hash_falls_through_to_the_next_origin(server: http.Server, cache: Path) -> None:
    server.files["/bad"] = bytes(len(CONTENT))
    good = source(origin(f"{server.url}/bad"), origin(f"{server.url}/file.tar"))
    assert fetch.fetch(good).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [len(CONTENT) - 10, len(CONTENT) + 10])
def test_wrong_size_is_refused(server: http.Server, cache: Path, length: int) -> None:
    server.files["/file.tar"] = (CONTENT + bytes(10))[:length]
    with pytest.raises(FetchError, match="no origin could deliver it") as caught:
        fetch.fetch(source(origin(f"{server.url}/file.tar")))
    assert f" {len(CONTENT)} bytes" in caught.value.hint
    assert files_in(cache) == []


def test_damaged_cache_entry_is_put_aside_and_fetched_again(
    server: http.Server, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = source(origin(f"{server.url}/file.tar"))
    path = fetch.fetch(wanted)
    path.chmod(0o644)
    path.write_bytes(bytes(len(CONTENT)))
    with monkeypatch.context() as offline:
        offline.setenv("NABLA_OFFLINE", "1")
        with pytest.raises(ChecksumError, match="damaged") as caught:
            fetch.fetch(wanted)
    assert f"rm '{path}'" in caught.value.hint
    assert path.exists()
    assert fetch.fetch(wanted).read_bytes() == CONTENT
    aside = cache / "damaged" / f"{SHA256}.1"
    assert aside.read_bytes() == bytes(len(CONTENT))
    assert f"it is now {aside} and is fetched again" in capsys.readouterr().err
    path.chmod(0o644)
    path.write_bytes(b"short")
    assert fetch.fetch(wanted).read_bytes() == CONTENT
    assert (cache / "damaged" / f"{SHA256}.2").read_bytes() == b"short"


@pytest.mark.parametrize("damage", [bytes(len(CONTENT)), b"?", None], ids=["same size", "short", "missing"])
def test_source_that_is_damaged_or_missing(
    server: http.Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    """The fetch task is out of date, so it runs before a build; a build that is running reports the file."""
    text = RECIPE.format(url=f"{server.url}/file.tar", sha256=SHA256, size=len(CONTENT))
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "recipe.toml").write_text(text)
    loaded = recipe.load_file(tmp_path / "thing" / "recipe.toml")
    record = tmp_path / "record.json"
    record.write_text(json.dumps([{"source": "thing", "file": "file.tar", "sha256": SHA256, "size": len(CONTENT)}]))
    for module in (archives, fetch):
        monkeypatch.setattr(module, "source_record", lambda name: record)
    path = fetch.fetch(loaded.source[0])
    up_to_date = fetch.InCache("thing")
    assert up_to_date(None, {})
    path.chmod(0o644)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert not up_to_date(None, {})
    with pytest.raises(NablaError, match="is damaged" if damage else "is no longer in the download cache"):
        archives.fetched(loaded)
    fetch.fetch(loaded.source[0])
    assert up_to_date(None, {})
    assert archives.fetched(loaded) == {"thing": path}
    assert path.read_bytes() == CONTENT


def test_offline_never_connects(server: http.Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = source(origin(f"{server.url}/file.tar"))
    monkeypatch.setenv("NABLA_OFFLINE", "1")
    with pytest.raises(OfflineError, match="thing is not in the cache"):
        fetch.fetch(wanted)
    assert server.requests == []
    fetch.fetch(wanted, offline=False)
    assert fetch.fetch(wanted).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_dead_host_is_asked_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url, "_dead", {})
    dead = [origin(f"http://nowhere.invalid/{name}") for name in ("a", "b", "c")]
    with pytest.raises(FetchError) as caught:
        fetch.fetch(source(*dead))
    assert caught.value.hint.count("not tried again") == 2
    assert caught.value.hint.count("nowhere.invalid") >= 3


def test_signature_is_fetched_and_checked(server: http.Server, cache: Path) -> None:
    data = (DATA / "signed.txt").read_bytes()
    server.files["/signed.txt"] = data
    server.files["/signed.txt.asc"] = (DATA / "signed.txt.asc").read_bytes()
    server.files["/other.asc"] = b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"

    def signed(name: str, fingerprint: str = FIRST) -> Source:
        signature = Signature(key="k", fingerprint=fingerprint, url=(f"{server.url}/{name}",))
        digest = hashlib.sha256(data).hexdigest()
        return source(UrlOrigin(url=(f"{server.url}/signed.txt",), sha256=digest, signature=signature))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nabla.sources.recipe.KEYS", DATA)
        patch.setattr(Signature, "key_path", DATA / "first.asc")
        with pytest.raises(FetchError, match="no origin") as caught:
            fetch.fetch(signed("absent.asc"))
        assert "404" in caught.value.hint
        with pytest.raises(SignatureError):
            fetch.fetch(signed("other.asc"))
        with pytest.raises(SignatureError, match="not by"):
            fetch.fetch(signed("signed.txt.asc", "0" * 40))
        assert files_in(cache) == []
        assert fetch.fetch(signed("signed.txt.asc")).read_bytes() == data


def test_two_processes_download_once(server: http.Server, cache: Path) -> None:
    server.stall_after = 500_000
    processes = [fetching(server, cache) for _ in range(2)]
    wait_for_lock([process.pid for process in processes])
    deadline = time.monotonic() + 60
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.02)
    # Only one process may send a request while the first download stalls.
    assert len(server.requests) == 1
    server.stall_after = None
    server.release.set()
    for process in processes:
        process.communicate(timeout=60)
    assert files_in(cache) == [SHA256]


def fetching(server: http.Server, cache: Path, *prefix: str) -> subprocess.Popen[str]:
    """Start a process that fetches the file, prints its path or the error, and exits with 0 or 2."""
    script = f"""
import sys
from nabla.sources import fetch
from nabla.core.errors import NablaError
from nabla.sources.recipe import Source, UrlOrigin
origin = UrlOrigin(url=({server.url + "/file.tar"!r},), sha256={SHA256!r}, size={len(CONTENT)})
try:
    print(fetch.fetch(Source(name="thing", origin=(origin,))))
except NablaError as error:
    print(type(error).__name__, error.render())
    sys.exit(2)
"""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", script], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle_leaves_no_bad_file(server: http.Server, cache: Path, number: signal.Signals) -> None:
    server.stall_after = 400_000
    part = cache / "partial" / f"{SHA256}.part"
    with fetching(server, cache) as process:
        wait_for(part)
        while part.stat().st_size < 300_000:
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == -number
    assert files_in(cache) == []
    server.stall_after = None
    with fetching(server, cache) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert files_in(cache) == [SHA256]
    assert server.requests[-1].startswith("/file.tar bytes=")


def test_file_size_limit(server: http.Server, cache: Path) -> None:
    with fetching(server, cache, "prlimit", "--fsize=500000") as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert output.startswith("DiskFullError error: no room left while writing")
    assert files_in(cache) == []


def test_full_disk(server: http.Server, cache: Path) -> None:
    cache.mkdir()
    sandbox = ["bwrap", "--die-with-parent", "--bind", "/", "/", "--dev", "/dev", "--size", "600000", "--tmpfs"]
    with fetching(server, cache, *sandbox, str(cache)) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "DiskFullError error: no room left while writing" in output
    assert "NABLA_CACHE" in output


def test_pip_fetches_the_wheel_named(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path / "links", "1.0", "cp399-cp399-musllinux_1_2_x86_64")
    name = wheel.name
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    data = wheel.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    wanted = PypiOrigin(package="nabla-sample", version="1.0", file=name, sha256=digest, size=len(data))
    assert fetch.fetch(source(wanted)).read_bytes() == data
    wrong = PypiOrigin(package="nabla-sample", version="1.0", file=name, sha256="0" * 64, size=len(data))
    with pytest.raises(FetchError, match="no origin") as caught:
        fetch.fetch(source(wrong))
    assert "to repeat:" in caught.value.hint


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="this host has no apt")
def test_apt_fetches_a_package_by_its_path(server: http.Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NABLA_DEBIAN_MIRROR", f"{server.url}/debian")
    pool = "pool/main/t/thing/thing_1.0_amd64.deb"
    server.files[f"/debian/{pool}"] = CONTENT
    wanted = DebOrigin(pool=pool, sha256=SHA256, size=len(CONTENT))
    assert fetch.fetch(source(wanted)).read_bytes() == CONTENT
    server.files[f"/debian/{pool}x.deb"] = bytes(len(CONTENT))
    wrong = DebOrigin(pool=f"{pool}x.deb", sha256="0" * 64, size=len(CONTENT))
    with pytest.raises(FetchError):
        fetch.fetch(source(wrong))
    assert files_in(cache) == [SHA256]


@pytest.mark.online
@pytest.mark.parametrize("name", ["musl", "busybox"])
def test_debian_origin_of_a_recipe(cache: Path, name: str) -> None:
    wanted = recipe.load(name).source[0]
    fetched = fetch.obtain(Source(name=name, origin=(wanted.origin[-1],)))
    assert fetched.path.stat().st_size == wanted.origin[-1].size


RECIPE = """
name = "thing"
version = "1"
license = "MIT"
summary = "a file"

[[source]]
name = "thing"

[[source.origin]]
type = "url"
url = ["{url}"]
sha256 = "{sha256}"
size = {size}
"""


def test_fetch_task(server: http.Server, checkout: Checkout, cache: Path) -> None:
    shutil.copy(ROOT / "nabla/sources/tasks.py", checkout.root / "nabla/sources")
    text = RECIPE.format(url=f"{server.url}/file.tar", sha256=SHA256, size=len(CONTENT))
    checkout.write("recipes/thing/recipe.toml", text)
    offline = checkout.doit("fetch:thing", status=2, NABLA_OFFLINE="1")
    assert "error: thing is not in the cache and connections are forbidden (offline)" in offline
    assert "is not in the cache" in checkout.doit("offline=1", "fetch:thing", status=2)
    assert server.requests == []
    assert ran(checkout.doit("fetch:thing")) == ["fetch:thing"]
    record = json.loads((checkout.root / "out/state/sources/thing.json").read_text())
    assert record == [{"source": "thing", "file": "file.tar", "sha256": SHA256, "size": len(CONTENT)}]
    assert ran(checkout.doit("fetch:thing", NABLA_OFFLINE="1")) == []
    (stored,) = cache.glob("sha256/*/*")
    stored.chmod(0o644)
    stored.write_bytes(bytes(len(CONTENT)))
    assert ran(checkout.doit("fetch:thing")) == ["fetch:thing"]
    assert stored.read_bytes() == CONTENT
    # Another process emptied the cache.
    shutil.rmtree(cache)
    assert ran(checkout.doit("fetch:thing")) == ["fetch:thing"]
    wrong = text.replace(SHA256, "0" * 64)
    checkout.write("recipes/thing/recipe.toml", wrong)
    output = checkout.doit("fetch:thing", status=2)
    assert f"has sha256 {SHA256} instead of {'0' * 64}" in output
    assert "Traceback" not in output
    assert files_in(cache) == [SHA256]


def test_the_record_does_not_depend_on_the_origin_that_delivered(
    server: http.Server, checkout: Checkout, cache: Path
) -> None:
    """Another machine takes the file from a store, under the digest of the first origin."""
    shutil.copy(ROOT / "nabla/sources/tasks.py", checkout.root / "nabla/sources")
    text = RECIPE.format(url=f"{server.url}/absent/thing-1.tar", sha256=SHA256, size=len(CONTENT))
    _, mark, first = text.partition("[[source.origin]]")
    second = f"{mark}{first}".replace("absent/thing-1.tar", "file.tar")
    checkout.write("recipes/thing/recipe.toml", f"{text}\n{second}")
    checkout.doit("fetch:thing")
    assert "/file.tar" in server.requests
    record = json.loads((checkout.root / "out/state/sources/thing.json").read_text())
    assert record == [{"source": "thing", "file": "thing-1.tar", "sha256": SHA256, "size": len(CONTENT)}]


def test_unwritable_cache_is_told(server: http.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path / "a file" / "cache"))
    with pytest.raises(NablaError, match="cannot"):
        fetch.fetch(source(origin(f"{server.url}/file.tar")))
    assert not isinstance(DiskFullError("x"), FetchError)
    assert os.listdir(tmp_path) == ["a file"]
