# SPDX-License-Identifier: Apache-2.0
"""A recipe changes to another version only if everything is fetched and verified; otherwise it stays unchanged."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nabla.core.errors import FetchError
from nabla.sources import recipe
from nabla.sources.recipe import DebianOrigin, Origin, Signature, Source, UrlOrigin
from nabla.update import bump, recipe_edit, try_patches
from nabla.update.bump import Result
from tests.conftest import ROOT, Checkout
from tests.unit import server as http
from tests.unit.sources.test_fetch import files_in
from tests.unit.sources.test_openpgp import DATA, FIRST, SECOND
from tests.unit.wheels import make_wheel

SIGNED = (DATA / "signed.txt").read_bytes()
ZEROS = "0" * 64
DEAD = "http://127.0.0.2:9"

HEAD = """\
# The head.
name = "thing"
version = "1.2"   # of upstream
license = "MIT"
summary = "a file"

[[source]]
name = "thing"
unpack = false
"""
ORIGIN = """
# Where it is.
[[source.origin]]
type = "url"
url = ["{url}/1.2/thing-1.2.txt"]   # the only one
sha256 = "{zeros}"
size = 5
"""
SIGNATURE = """
[source.origin.signature]
key = "first.asc"
fingerprint = "{fingerprint}"
url = [
    "{url}/1.2/thing-1.2.txt.asc",
]
"""
TAIL = """
# How.
[package]
revision = 3
package = "install -D thing-1.2.txt $DESTDIR/thing"
"""


def test_every_recipe_survives_reading_and_writing() -> None:
    for name in recipe.names():
        loaded = recipe.load(name)
        text = loaded.path.read_text()
        if loaded.package is not None:
            text = re.sub(r"(?m)^revision = \d+$", "revision = 0", text)
        for number, source in enumerate(loaded.source):
            if source.origin:
                assert recipe_edit.rewrite(text, number, source.origin, loaded.version) == text


def test_addresses_of_every_recipe_follow_the_version() -> None:
    for name in recipe.names():
        loaded = recipe.load(name)
        for origin in (origin for source in loaded.source for origin in source.origin if isinstance(origin, UrlOrigin)):
            for address in (*origin.url, *(origin.signature.url if origin.signature else ())):
                other = another(loaded.version)
                changed = bump.renamed(address, loaded.version, other)
                assert changed != address and bump.renamed(changed, other, loaded.version) == address


def another(version: str) -> str:
    """Return another version of the same form."""
    return version.replace("1", "7").replace("2", "8").replace("3", "9").replace("5", "6").replace("0", "4")


@pytest.mark.parametrize(
    ("text", "old", "new", "expected"),
    [
        ("https://x/R_2_8_3.tar.gz", "2.8.3", "2.10.0", "https://x/R_2_10_0.tar.gz"),
        ("https://x/v6.x/l-6.1.176.tar.xz", "6.1.176", "7.2.3", "https://x/v7.x/l-7.2.3.tar.xz"),
        ("https://x/3.13.5/P-3.13.5.tar.xz", "3.13.5", "3.14.0", "https://x/3.14.0/P-3.14.0.tar.xz"),
        ("https://x/1.2/a-1.2.3.tar", "1.2.3", "1.3.0", "https://x/1.3/a-1.3.0.tar"),
        ("https://x/n-6.5-20250216.tgz", "6.5_p20250216", "6.6_p20260101", "https://x/n-6.6-20260101.tgz"),
        ("https://x/a-11.2.tar", "1.2", "1.3", None),
        ("https://x/a-1.2.1.tar", "1.2", "1.3", None),
    ],
)
def test_address_of_another_version(text: str, old: str, new: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(FetchError, match="does not contain its version"):
            bump.renamed(text, old, new)
    else:
        assert bump.renamed(text, old, new) == expected


@pytest.mark.parametrize(
    ("upstream", "version"),
    [
        ("1.3.dfsg+really1.3.2", "1.3.2"),
        ("1.5.8+dfsg", "1.5.8"),
        ("8.6.18+dfsg1", "8.6.18"),
        ("6.6+20260608", "6.6_p20260608"),
        ("8.0.6", "8.0.6"),
    ],
)
def test_version_in_debian(upstream: str, version: str) -> None:
    assert bump._is_version(upstream, "1.0", version)
    assert not bump._is_version(upstream, "1.0", f"{version}1")


@pytest.mark.parametrize(("fingerprint", "stays"), [(FIRST, True), (None, False)])
def test_origin_that_cannot_be_asked(fingerprint: str | None, stays: bool) -> None:
    """It is kept if the signature of another origin's file proves that the file is upstream's."""
    signature = Signature(key="first.asc", fingerprint=FIRST, url=("https://x/a-1.2.tar.asc",))
    old = UrlOrigin(url=("https://x/a-1.2.tar",), sha256="a" * 64, size=1, signature=signature)
    by_debian = Signature(key="first.asc", fingerprint=FIRST, file="a.asc") if fingerprint else None
    debian = DebianOrigin(
        suite="sid", package="a", version="1.2-1", file="a.tar", sha256="a" * 64, size=1, signature=by_debian
    )
    asked = [Result(old, None, "down"), Result(debian, msgspec.structs.replace(debian, sha256="b" * 64, size=2))]
    updated = bump._keep(asked[0], asked, "1.2", "1.3")
    assert (updated.new is not None) == stays
    if isinstance(updated.new, UrlOrigin):
        assert (updated.new.url, updated.new.sha256, updated.new.size) == (("https://x/a-1.3.tar",), "b" * 64, 2)
        assert updated.new.signature is not None and updated.new.signature.url == ("https://x/a-1.3.tar.asc",)


def test_old_version_elsewhere() -> None:
    assert recipe_edit.mentions("a = '6.6.1'\nb = '6.6'\nc-6.6.tar\n16.6\n", "6.6") == ["2: b = '6.6'", "3: c-6.6.tar"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,127.0.0.2")
    with http.running() as running:
        running.files["/1.3/thing-1.3.txt"] = SIGNED
        running.files["/1.3/thing-1.3.txt.asc"] = (DATA / "signed.txt.asc").read_bytes()
        yield running


@pytest.fixture
def bumping(checkout: Checkout) -> Checkout:
    """A checkout with the task."""
    shutil.copy(ROOT / "nabla/update/tasks.py", checkout.root / "nabla/update")
    for name in ("verify", "toolchain"):
        shutil.copytree(ROOT / name, checkout.root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout.root / "recipes/keys").mkdir()
    for name in ("first.asc", "second.asc"):
        shutil.copy(DATA / name, checkout.root / "recipes/keys")
    return checkout


def put(checkout: Checkout, text: str) -> Path:
    return checkout.write("recipes/thing/recipe.toml", text)


def test_bump(server: http.Server, bumping: Checkout) -> None:
    text = HEAD + (ORIGIN + SIGNATURE).format(url=server.url, zeros=ZEROS, fingerprint=FIRST) + TAIL
    path = put(bumping, text)
    output = bumping.doit("bump:thing", "1.3")
    expected = text.replace('"1.2"', '"1.3"').replace(ZEROS, hashlib.sha256(SIGNED).hexdigest())
    expected = expected.replace("size = 5", f"size = {len(SIGNED)}").replace("revision = 3", "revision = 0")
    expected = expected.replace("/1.2/thing-1.2", "/1.3/thing-1.3")
    assert path.read_text() == expected
    assert 'still contains 1.2 in line 28: package = "install -D thing-1.2.txt $DESTDIR/thing"' in output
    assert "already has version 1.3" in bumping.doit("bump:thing", "1.3", status=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["1.4"], "error: thing: no origin has version 1.4"),
        ([], "error: a bump needs the new version"),
        (["1.3-beta"], "error: '1.3-beta' is not a version that apk can compare"),
    ],
)
def test_wrong_version(server: http.Server, bumping: Checkout, words: list[str], message: str) -> None:
    text = HEAD + ORIGIN.format(url=server.url, zeros=ZEROS) + TAIL
    path = put(bumping, text)
    assert message in bumping.doit("bump:thing", *words, status=2)
    assert path.read_text() == text


@pytest.mark.parametrize("fault", ["other file", "other key", "no signature", "offline", "two sources"])
def test_nothing_is_written(server: http.Server, bumping: Checkout, cache: Path, fault: str) -> None:
    text = HEAD + (ORIGIN + SIGNATURE).format(url=server.url, zeros=ZEROS, fingerprint=FIRST)
    message, variables = "", {}
    if fault == "other file":
        server.files["/1.3/thing-1.3.txt"] = b"something else"
        message = "error: the OpenPGP signature of thing-1.3.txt is bad: BAD signature"
    elif fault == "other key":
        text = text.replace(FIRST, SECOND)
        message = f"is signed by {FIRST}, not by {SECOND}"
    elif fault == "no signature":
        del server.files["/1.3/thing-1.3.txt.asc"]
        message = "error: thing: no origin has version 1.3"
    elif fault == "offline":
        message, variables = "error: connections are forbidden (offline)", {"NABLA_OFFLINE": "1"}
    else:
        text += HEAD.partition("\n\n")[2].replace("thing", "other") + ORIGIN.format(url=server.url, zeros=ZEROS)
        message = "error: thing has 2 sources with origins"
    path = put(bumping, text)
    assert message in bumping.doit("bump:thing", "1.3", status=2, **variables)
    assert path.read_text() == text
    assert [entry for entry in path.parent.iterdir() if entry != path] == []
    assert files_in(cache) == []


def test_origin_that_is_lost(server: http.Server, bumping: Checkout) -> None:
    text = HEAD + ORIGIN.format(url=DEAD, zeros=ZEROS) + ORIGIN.format(url=server.url, zeros=ZEROS)
    path = put(bumping, text)
    output = bumping.doit("bump:thing", "1.3")
    assert f"warning: thing: removed the origin {DEAD}/1.2/thing-1.2.txt" in output
    (origin,) = recipe.load_file(path).source[0].origin
    assert isinstance(origin, UrlOrigin) and origin.url == (f"{server.url}/1.3/thing-1.3.txt",)


def test_wheel(bumping: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = {version: make_wheel(tmp_path / "links", version) for version in ("1.2", "1.3")}
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    origin = f"""
[[source.origin]]
type = "pypi"
package = "nabla-sample"
version = "1.2"
file = "{wheels["1.2"].name}"
sha256 = "{hashlib.sha256(wheels["1.2"].read_bytes()).hexdigest()}"
size = {wheels["1.2"].stat().st_size}
"""
    path = put(bumping, HEAD + origin)
    bumping.doit("bump:thing", "1.3")
    (now,) = recipe.load_file(path).source[0].origin
    assert (now.file, now.sha256) == (wheels["1.3"].name, hashlib.sha256(wheels["1.3"].read_bytes()).hexdigest())
    bumping.doit("bump:thing", "1.2")
    assert path.read_text() == HEAD + origin


PATCHES = {
    "0001-first.patch": ("a", "one", "uno"),
    "0002-second.patch": ("b", "two", "due"),
    "0003-third.patch": ("a", "three", "tre"),
    "0004-fourth.patch": ("b", "due", "dos"),
}


def archive(path: Path, **files: str) -> Path:
    """Write a tarball with a folder on top."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"thing/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def series(folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    for name, (file, old, new) in PATCHES.items():
        (folder / name).write_text(f"--- a/{file}\n+++ b/{file}\n@@ -1 +1 @@\n-{old}\n+{new}\n")
    (folder / "0003-third.patch").write_text("--- a/a\n+++ b/a\n@@ -2 +2 @@\n-three\n+tre\n")
    return sorted(folder.iterdir())


def test_names_each_patch_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> None:
    monkeypatch.setenv("NABLA_CACHE", str(user_cache))  # the build root's cache
    source = Source(name="thing")
    patches = series(tmp_path / "patches")
    assert try_patches.failures(archive(tmp_path / "x.tgz", a="one\nthree\n", b="two\n"), source, patches) == []
    problems = try_patches.failures(archive(tmp_path / "y.tgz", a="one\nthree\n", b="zwei\n"), source, patches)
    assert [problem.message.rpartition("/")[2] for problem in problems] == [
        "0002-second.patch does not apply",
        "0004-fourth.patch does not apply",
    ]
    assert all("b: Hunk #1 FAILED at 1." in problem.hint for problem in problems)


def test_patches_decide(
    server: http.Server, bumping: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_cache: Path
) -> None:
    monkeypatch.setenv("NABLA_CACHE", str(user_cache))  # the build root's cache
    series(bumping.root / "patches/thing")
    text = HEAD.replace("unpack = false\n", "") + ORIGIN.format(url=server.url, zeros=ZEROS)
    path = put(bumping, text)
    server.files["/1.3/thing-1.3.txt"] = archive(tmp_path / "y.tgz", a="one\nthree\n", b="zwei\n").read_bytes()
    output = bumping.doit("bump:thing", "1.3", status=2)
    assert "error: 2 of 4 patches do not apply to thing 1.3" in output
    assert "patches/thing/0002-second.patch does not apply" in output and "0001-first" not in output
    assert path.read_text() == text
    output = bumping.doit("bump:thing", "--keep", "1.3")
    assert "warning: 2 of 4 patches do not apply to thing 1.3" in output
    assert recipe.load_file(path).version == "1.3"
    server.files["/1.4/thing-1.4.txt"] = archive(tmp_path / "x.tgz", a="one\nthree\n", b="two\n").read_bytes()
    assert "thing: all 4 patches apply to 1.4" in bumping.doit("bump:thing", "1.4")
    assert recipe.load_file(path).version == "1.4"


@pytest.mark.online
@pytest.mark.parametrize(("name", "version"), [("py3-tornado", "6.6"), ("readline", "8.3")])
def test_for_real(name: str, version: str, cache: Path) -> None:
    """Another version and the pinned one again, from the index and from Debian: the pins come out as committed."""
    loaded = recipe.load(name)
    _, source = bump.the_source(loaded)
    assert any(update.new for update in bump.find(loaded, source, version))
    earlier = msgspec.structs.replace(loaded, version=version)
    other = msgspec.structs.replace(source, origin=tuple(at(origin, version) for origin in source.origin[-1:]))
    (again,) = bump.find(earlier, other, loaded.version)
    assert again.new is not None and again.new.sha256 == source.origin[-1].sha256


def at(origin: Origin, version: str) -> Origin:
    """Return an origin as it would be at another version, in the compared fields."""
    return (
        origin if isinstance(origin, UrlOrigin | recipe.DebOrigin) else msgspec.structs.replace(origin, version=version)
    )
