# SPDX-License-Identifier: Apache-2.0
"""No single provider is required: without one, every source with another origin is the same file.

A server on this host plays upstream with the files of the cache, which `./doit.sh fetch` fills.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nabla.core import paths
from nabla.core.errors import ConfigError, FetchError
from nabla.sources import fetch, recipe
from nabla.sources.origins import url
from nabla.sources.recipe import DebianOrigin, Source, UrlOrigin
from nabla.sources.store import Store
from tests.conftest import ROOT, Checkout
from tests.unit import server as http
from tests.unit.engine.pipeline import ran
from tests.unit.sources.conftest import CONTENT, SHA256
from tests.unit.sources.test_fetch import RECIPE, files_in, origin, source

pytestmark = pytest.mark.buildroot

FILLED = Store(paths.cache_dir())
SIGNATURES = Path(__file__).parent / "data" / "signatures"
PROVIDERS = ("debian", "pypi", "upstream")

# Sources with a single origin in the form that is built; docs/recipes.md lists the reasons.
SINGLE = {
    **dict.fromkeys(("alpine-base", "krunner-python", "numpy", "py3-numpy", "py3-pip", "py3-tornado"), "pypi"),
    **dict.fromkeys(("py3-dateutil", "py3-pandas", "py3-tzdata"), "pypi"),
    **dict.fromkeys(("container-profiles", "libgcc", "libstdc++"), "debian"),
    **dict.fromkeys(("luajit", "sqlite", "sqlite-tests", "tcl", "zlib", "zstd"), "debian"),
    **dict.fromkeys(("bash", "dash", "git", "jq", "less", "libevent"), "debian"),
    **dict.fromkeys(("lz4", "popt", "rsync", "tmux", "tree"), "debian"),
    **dict.fromkeys(("cjson", "dumb-init", "entr", "grep", "hiredis", "htop", "inih", "jansson"), "debian"),
    **dict.fromkeys(("jo", "json-c", "libsodium", "libuv", "lzip", "lzo", "mawk", "memcached"), "debian"),
    **dict.fromkeys(("mksh", "ncdu", "ninja", "oniguruma", "openssh", "pigz", "sl", "snappy"), "debian"),
    **dict.fromkeys(("nabla-oci", "tini", "xxhash", "yajl", "yaml"), "debian"),
}

REMOTE = [(name, source) for name in recipe.names() for source in recipe.load(name).source if source.origin]
# Archives that Debian repacks have another digest.
REPACKED = {"linux"}


def several(provider: str) -> list[tuple[str, Source]]:
    """Return the sources, with their recipes' names, that have an origin of that provider and one of another."""
    chosen = []
    for name, each in REMOTE:
        providers = {fetch.provider(origin) for origin in each.origin}
        if provider in providers and len(providers) > 1:
            chosen.append((name, each))
    return chosen


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(url, "_dead", {})
    with http.running() as running:
        yield running


def test_which_sources_only_one_place_has() -> None:
    """Every source has a second origin, or a documented reason."""
    by_name = {}
    for name, each in REMOTE:
        providers = {fetch.provider(origin) for origin in each.origin}
        if len(providers) == 1:
            by_name[name] = providers.pop()
    assert by_name == SINGLE


def test_origins_of_one_file_agree() -> None:
    """Where Debian has upstream's unchanged file, both origins pin the same content."""
    for name, each in REMOTE:
        assert (len({origin.sha256 for origin in each.origin}) == 1) == (name not in REPACKED), name


@pytest.mark.parametrize("words", ["debian", "debian,pypi", " debian pypi "])
def test_words(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NABLA_WITHOUT", words)
    assert fetch.without() == frozenset(words.replace(",", " ").split())


def test_unknown_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NABLA_WITHOUT", "debain")
    with pytest.raises(ConfigError, match="without=debain: there are no such origins") as caught:
        fetch.fetch(source(origin("http://127.0.0.1:9/x")))
    assert caught.value.hint == "known are debian, pypi, upstream"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_left_out(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NABLA_WITHOUT", provider)
    for name, each in REMOTE:
        left = [fetch.provider(origin) for origin in fetch.usable(each)]
        assert left == [fetch.provider(origin) for origin in each.origin if fetch.provider(origin) != provider]
        assert bool(left) == (SINGLE.get(name) != provider)


def test_nothing_left(upstream: http.Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the network nor the cache is used: as if the recipe had no such origin."""
    upstream.files["/file.tar"] = CONTENT
    wanted = source(origin(f"{upstream.url}/file.tar"))
    fetch.fetch(wanted)
    monkeypatch.setenv("NABLA_WITHOUT", "upstream")
    with pytest.raises(FetchError, match="thing: no origin is left without upstream") as caught:
        fetch.fetch(wanted)
    assert caught.value.hint == f"it has upstream: {upstream.url}/file.tar"
    assert len(upstream.requests) == 1
    monkeypatch.setenv("NABLA_WITHOUT", "debian,pypi")
    assert fetch.fetch(wanted).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "wanted"),
    [pair for pair in several("debian") if pair[0] not in REPACKED],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_without_debian(
    name: str, wanted: Source, upstream: http.Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream's server provides the same files as Debian, signed where the recipe has a signature."""
    first = wanted.origin[0]
    assert isinstance(first, UrlOrigin)
    content = FILLED.path(first.sha256)
    assert content.exists(), f"{name} is not in the cache: ./doit.sh fetch:{name}"
    signature = first.signature
    if signature is not None and (SIGNATURES / f"{name}.asc").exists():
        upstream.files["/signature"] = (SIGNATURES / f"{name}.asc").read_bytes()
        signature = msgspec.structs.replace(signature, url=(f"{upstream.url}/signature",))
    else:
        signature = None
    upstream.files[f"/{first.file}"] = content.read_bytes()
    changed = msgspec.structs.replace(first, url=(f"{upstream.url}/{first.file}",), signature=signature)
    monkeypatch.setenv("NABLA_WITHOUT", "debian,pypi")
    fetched = fetch.obtain(msgspec.structs.replace(wanted, origin=(changed, *wanted.origin[1:])))
    assert fetched.origin == changed
    assert files_in(cache) == sorted({each.sha256 for each in wanted.origin})
    assert ("/signature" in upstream.requests) == (signature is not None)


def test_signature_of_another_file_is_refused(upstream: http.Server, cache: Path) -> None:
    first = recipe.load("xz").source[0].origin[0]
    assert isinstance(first, UrlOrigin) and first.signature is not None
    upstream.files["/xz.tar.xz"] = FILLED.path(first.sha256).read_bytes()
    upstream.files["/xz.tar.xz.sig"] = (SIGNATURES / "curl.asc").read_bytes()
    signature = msgspec.structs.replace(first.signature, url=(f"{upstream.url}/xz.tar.xz.sig",))
    changed = msgspec.structs.replace(first, url=(f"{upstream.url}/xz.tar.xz",), signature=signature)
    with pytest.raises(FetchError, match=r"signature of .* is bad"):
        fetch.obtain(source(changed))
    assert files_in(cache) == []


def test_task_runs_again_without(upstream: http.Server, checkout: Checkout) -> None:
    shutil.copy(ROOT / "nabla/sources/tasks.py", checkout.root / "nabla/sources")
    upstream.files["/file.tar"] = CONTENT
    checkout.write(
        "recipes/thing/recipe.toml", RECIPE.format(url=f"{upstream.url}/file.tar", sha256=SHA256, size=len(CONTENT))
    )
    assert ran(checkout.doit("fetch:thing")) == ["fetch:thing"]
    output = checkout.doit("fetch:thing", status=2, NABLA_WITHOUT="upstream")
    assert "error: thing: no origin is left without upstream" in output
    assert "no origin is left" in checkout.doit("without=upstream", "fetch:thing", status=2)
    assert "error: without=elsewhere: there are no such origins" in checkout.doit(
        "fetch:thing", status=2, NABLA_WITHOUT="elsewhere"
    )
    assert ran(checkout.doit("fetch:thing", NABLA_WITHOUT="debian")) == ["fetch:thing"]
    assert ran(checkout.doit("fetch:thing", NABLA_WITHOUT="debian")) == []


@pytest.mark.online
@pytest.mark.parametrize("provider", [provider for provider in PROVIDERS if several(provider)])
def test_same_content_from_the_others(provider: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Online: every source with another origin comes from there, the same file as from the excluded provider."""
    monkeypatch.setenv("NABLA_WITHOUT", provider)
    for name, each in several(provider):
        fetched = fetch.obtain(each)
        assert fetch.provider(fetched.origin) != provider
        same = fetched.path.name in {origin.sha256 for origin in each.origin if fetch.provider(origin) == provider}
        assert same == (name not in REPACKED), name


def test_signatures_beside_debians_files_are_pinned() -> None:
    """If Debian's source package contains upstream's signature, that origin verifies it too."""
    for name in sorted(path.stem for path in SIGNATURES.iterdir()):
        for each in recipe.load(name).source[0].origin:
            assert each.signature is not None, name
            assert not isinstance(each, DebianOrigin) or each.signature.file == f"{each.file}.asc"
