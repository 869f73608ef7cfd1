# SPDX-License-Identifier: Apache-2.0
"""Debian sources, by the real apt from a small archive on this host: pinned files and newer versions.

data/archive contains the lists of two suites, signed (gpg --clearsign) by a key that no longer exists: trixie has thing
1.2, forky has 1.3. The tarball of 1.3 is data/signed.txt, with its signature beside it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nabla.core.errors import FetchError, SignatureError
from nabla.sources import apt, fetch, recipe
from nabla.sources.origins import url
from nabla.sources.recipe import DebianOrigin, DebOrigin, Recipe, Signature, Source
from nabla.update import bump, outdated
from tests.unit import server as http
from tests.unit.sources.test_fetch import files_in
from tests.unit.sources.test_openpgp import DATA, FIRST, SECOND

ARCHIVE = DATA / "archive"
POOL = "pool/main/t/thing"
OLD = b"the older version\n"
NEW = (DATA / "signed.txt").read_bytes()

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="this host has no apt")


@pytest.fixture
def mirror(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[http.Server]:
    """The archive, trusted only by its own key."""
    monkeypatch.setattr(apt, "KEYRING", ARCHIVE / "key.asc")
    monkeypatch.setattr("nabla.sources.recipe.KEYS", DATA)
    monkeypatch.setattr(url, "_dead", {})
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.running() as server:
        for suite in ("trixie", "forky"):
            server.files[f"/debian/dists/{suite}/InRelease"] = (ARCHIVE / f"{suite}.InRelease").read_bytes()
            server.files[f"/debian/dists/{suite}/main/source/Sources"] = (ARCHIVE / f"{suite}.Sources").read_bytes()
        server.files[f"/debian/{POOL}/thing_1.2.orig.tar.gz"] = OLD
        server.files[f"/debian/{POOL}/thing_1.3.orig.tar.gz"] = NEW
        server.files[f"/debian/{POOL}/thing_1.3.orig.tar.gz.asc"] = (DATA / "signed.txt.asc").read_bytes()
        monkeypatch.setenv("NABLA_DEBIAN_MIRROR", f"{server.url}/debian")
        yield server


def origin(version: str = "1.2", debian: str = "1:1.2-1+deb13u2", signer: str | None = None) -> DebianOrigin:
    data = OLD if version == "1.2" else NEW
    name = f"thing_{version}.orig.tar.gz"
    return DebianOrigin(
        suite="trixie" if version == "1.2" else "forky",
        package="thing",
        version=debian,
        file=name,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        signature=Signature(key="first.asc", fingerprint=signer, file=f"{name}.asc") if signer else None,
    )


def thing(tmp_path: Path, *origins: recipe.Origin) -> tuple[Recipe, Source]:
    """Return a recipe of version 1.2 and its source."""
    source = Source(name="thing", origin=origins)
    path = tmp_path / "thing" / "recipe.toml"
    return Recipe(path=path, name="thing", version="1.2", license="MIT", summary="x", source=(source,)), source


@pytest.mark.parametrize("debian", ["1:1.2-1+deb13u2", "1:1.2-1+deb13u1"])
def test_package_that_a_point_release_replaced(mirror: http.Server, debian: str) -> None:
    """Upstream's tarball is the same in both."""
    assert fetch.fetch(Source(name="thing", origin=(origin(debian=debian),))).read_bytes() == OLD


def test_package_that_the_suite_has_not(mirror: http.Server, cache: Path) -> None:
    other = msgspec.structs.replace(origin(debian="1:1.1-1"), sha256="0" * 64)
    with pytest.raises(FetchError) as caught:
        fetch.fetch(Source(name="thing", origin=(other,)))
    assert "Debian's trixie has no source package thing 1:1.1-1\nit has 1:1.2-1+deb13u2" in caught.value.hint
    assert "the pool no longer has thing_1.2.orig.tar.gz\nupdate: doit bump:thing 1.2" in caught.value.hint
    missing = msgspec.structs.replace(origin(), file="thing_1.2.orig.tar.xz")
    with pytest.raises(FetchError) as caught:
        fetch.fetch(Source(name="thing", origin=(missing,)))
    assert "contains no thing_1.2.orig.tar.xz, but thing_1.2-1+deb13u2.dsc, thing_1.2.orig.tar.gz" in caught.value.hint
    assert files_in(cache) == []


def test_file_that_only_the_pool_still_has(mirror: http.Server, cache: Path) -> None:
    """A suite moved to another version; its lists no longer contain the tarball or the signature."""
    data = b"of another day\n"
    name = "thing_1.1.orig.tar.gz"
    gone = msgspec.structs.replace(
        origin(debian="1:1.1-1"), file=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data)
    )
    mirror.files[f"/debian/{POOL}/{name}"] = b"of another dax\n"
    with pytest.raises(FetchError):
        fetch.fetch(Source(name="thing", origin=(gone,)))
    assert files_in(cache) == []
    mirror.files[f"/debian/{POOL}/{name}"] = data
    assert fetch.fetch(Source(name="thing", origin=(gone,))).read_bytes() == data


def test_signature_that_only_the_pool_still_has(mirror: http.Server, cache: Path) -> None:
    """An upload without upstream's signature; the pool's is checked like any other."""
    unnamed = msgspec.structs.replace(
        origin("1.3", "1:1.3-1"), signature=Signature(key="first.asc", fingerprint=FIRST, file="thing_1.3.asc")
    )
    mirror.files[f"/debian/{POOL}/thing_1.3.asc"] = (DATA / "signed.txt.asc").read_bytes().replace(b"A", b"B", 1)
    with pytest.raises(SignatureError):
        fetch.fetch(Source(name="thing", origin=(unnamed,)))
    assert files_in(cache) == []
    mirror.files[f"/debian/{POOL}/thing_1.3.asc"] = (DATA / "signed.txt.asc").read_bytes()
    assert fetch.fetch(Source(name="thing", origin=(unnamed,))).read_bytes() == NEW


def test_path_in_the_pool() -> None:
    assert apt.pool_path("expat", "x") == "pool/main/e/expat/x"
    assert apt.pool_path("libffi", "x") == "pool/main/libf/libffi/x"


def test_signature_beside_the_tarball(mirror: http.Server, cache: Path) -> None:
    with pytest.raises(SignatureError, match=f"signed by {FIRST}, not by {SECOND}"):
        fetch.fetch(Source(name="thing", origin=(origin("1.3", "1:1.3-1", SECOND),)))
    assert files_in(cache) == []
    assert fetch.fetch(Source(name="thing", origin=(origin("1.3", "1:1.3-1", FIRST),))).read_bytes() == NEW


def test_lists_of_another_signer(mirror: http.Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "KEYRING", DATA / "first.asc")
    with pytest.raises(FetchError) as caught:
        fetch.fetch(Source(name="thing", origin=(origin(),)))
    assert "Debian's trixie lists could not be fetched" in caught.value.hint
    assert files_in(cache) == []


def test_newer_version_is_found(mirror: http.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded, _ = thing(tmp_path, origin())
    monkeypatch.setattr(recipe, "load", lambda name: loaded)
    answers = outdated.query(["thing"])
    assert outdated.rows(answers) == [("thing", "1.2", "1.3", "Debian forky")]
    assert [answer.where for answer in answers if answer.problem] == ["Debian sid"]


def test_bump(mirror: http.Server, tmp_path: Path) -> None:
    """By Debian's lists and upstream's signature; upstream's server, which is down, served that file before."""
    dead = recipe.UrlOrigin(
        url=("http://127.0.0.2:9/thing-1.2.tar.gz",),
        sha256=origin().sha256,
        size=len(OLD),
        signature=Signature(key="first.asc", fingerprint=FIRST, url=("http://127.0.0.2:9/thing-1.2.tar.gz.asc",)),
    )
    loaded, source = thing(tmp_path, dead, origin(signer=FIRST))
    first, second = bump.find(loaded, source, "1.3")
    assert second.new == origin("1.3", "1:1.3-1", FIRST)
    assert isinstance(first.new, recipe.UrlOrigin) and first.new.url == ("http://127.0.0.2:9/thing-1.3.tar.gz",)
    assert first.new.sha256 == second.new.sha256 and first.problem
    assert fetch.fetch(Source(name="thing", origin=(second.new,)), offline=True).read_bytes() == NEW


def test_bump_to_a_version_that_is_not_signed(mirror: http.Server, cache: Path, tmp_path: Path) -> None:
    loaded, source = thing(tmp_path, origin("1.3", "1:1.3-1", FIRST))
    with pytest.raises(SignatureError, match="has no signature of upstream"):
        bump.find(msgspec.structs.replace(loaded, version="1.3"), source, "1.2")
    assert files_in(cache) == []


def test_bump_of_a_path_in_the_pool(mirror: http.Server, tmp_path: Path) -> None:
    pool = DebOrigin(pool=f"{POOL}/thing_1.2.orig.tar.gz", sha256=origin().sha256, size=len(OLD))
    loaded, source = thing(tmp_path, pool)
    (update,) = bump.find(loaded, source, "1.3")
    assert isinstance(update.new, DebOrigin) and update.new.pool == f"{POOL}/thing_1.3.orig.tar.gz"
    with pytest.raises(FetchError) as caught:
        bump.find(loaded, source, "1.4")
    assert "Debian has no thing 1.4, but 1.2 (trixie), 1.3 (forky)" in caught.value.hint
