# SPDX-License-Identifier: Apache-2.0
"""Newer versions from the origins: parsed correctly; a missing answer never counts as "nothing new"."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nabla.sources import apt, recipe
from nabla.sources.recipe import DebianOrigin, DebOrigin
from nabla.update import outdated
from nabla.update.outdated import Answer
from tests.conftest import ROOT, Checkout
from tests.unit import server as http
from tests.unit.wheels import make_wheel

PAGE = """
<a href="../">up</a> <a href="thing-1.2.tar.gz">thing-1.2.tar.gz</a> <a href="thing-1.10.tar.gz">new</a>
<a href="thing-1.10.tar.gz.asc">signature</a> <a href="thing-2.0rc1.tar.gz">early</a>
<a href="something-9.tar.gz">another</a> <a href="R_2_8_3.tar.gz">R</a> <a href="R_2_10_0.tar.gz">R</a>
<a href="thing-6.5-20250216.tgz">x</a> <a href="thing-6.5-20260101.tgz">y</a>
"""


@pytest.mark.parametrize(
    ("file", "version", "newest"),
    [
        ("thing-1.2.tar.gz", "1.2", "1.10"),
        ("R_2_8_3.tar.gz", "2_8_3", "2_10_0"),
        ("thing-6.5-20250216.tgz", "6.5-20250216", "6.5-20260101"),
        ("other-1.2.tar.gz", "1.2", ""),
        ("thing-1.2.tar.xz", "1.2", ""),
        ("thing.tar.gz", "1.2", ""),
    ],
)
def test_reads_a_listing(file: str, version: str, newest: str) -> None:
    assert outdated.newest_listed(PAGE, file, version) == newest


@pytest.mark.parametrize(
    ("pool", "package", "version"),
    [
        ("pool/main/i/iperf3/iperf3_3.20.orig.tar.gz", "iperf3", "3.20"),
        ("pool/main/g/gcc-12/gcc-12-source_12.2.0-14+deb12u1_all.deb", "gcc-12", "12.2.0"),
        ("pool/main/d/docker.io/golang-x_20.10.24+dfsg1-1_all.deb", "docker.io", "20.10.24+dfsg1"),
    ],
)
def test_name_of_a_path_in_the_pool(pool: str, package: str, version: str) -> None:
    known = outdated.debian_name(DebOrigin(pool=pool, sha256="0" * 64, size=1))
    assert (known.package, known.version) == (package, version)


def test_name_of_every_recipe_in_debian() -> None:
    """Debian's version of the source package is the recipe's, in one spelling or another."""
    for name in recipe.names():
        for source in recipe.load(name).source:
            for origin in source.origin:
                if isinstance(origin, DebianOrigin):
                    known = outdated.debian_name(origin)
                    assert known.version in origin.file and ":" not in known.version


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        ("5:8.0.2-3+deb13u2", "8.0.2"),
        ("1.2", "1.2"),
        ("1:1.3.dfsg+really1.3.1-1", "1.3.dfsg+really1.3.1"),
        ("1-2-3", "1-2"),
    ],
)
def test_upstream_version(version: str, upstream: str) -> None:
    assert apt.upstream_version(version) == upstream


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="this host has no dpkg")
def test_newest_source_package_first() -> None:
    text = "".join(
        f"Package: {name}\nVersion: {version}\nChecksums-Sha256:\n {'a' * 64} 5 x_{version}.dsc\nDirectory: pool/x\n\n"
        for name, version in (("b", "1.9-1"), ("b", "1.10-1"), ("a", "1~rc1-1"), ("a", "1-1"), ("b", "1:0-1"))
    )
    packages = [(each.name, each.version) for each in apt.parse_sources(text, "sid")]
    assert packages == [("a", "1-1"), ("a", "1~rc1-1"), ("b", "1:0-1"), ("b", "1.10-1"), ("b", "1.9-1")]


def test_table() -> None:
    answers = [
        Answer("a", "1", "Debian trixie"),
        Answer("a", "1", "Debian forky", "2"),
        Answer("a", "1", "Debian sid", "2"),
        Answer("a", "1", "a.example", problem="no answer"),
        Answer("b", "1", "Debian sid"),
        Answer("b", "1", "PyPI"),
        Answer("c", "1", "a.example", problem="no answer"),
    ]
    assert outdated.rows(answers) == [
        ("a", "1", "2", "Debian forky"),
        ("b", "1", "-", "Debian sid, PyPI"),
        ("c", "1", "?", "no answer"),
    ]
    assert outdated.problems(answers) == ["a.example: no answer (a, c)"]


RECIPE = """
name = "{name}"
version = "1.2"
license = "MIT"
summary = "a file"

[[source]]
name = "{name}"
{unpack}
[[source.origin]]
{origin}
sha256 = "{zeros}"
size = 5
"""

WHEEL = """\
type = "pypi"
package = "nabla-sample"
version = "1.2"
file = "nabla_sample-1.2-py3-none-any.whl\""""
DEB = """\
type = "debian"
suite = "sid"
package = "deb"
version = "1.2-1"
file = "deb_1.2.orig.tar.gz\""""


def test_task(checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a real server, the real pip and the real apt, which finds no archive."""
    shutil.copy(ROOT / "nabla/update/tasks.py", checkout.root / "nabla/update")
    shutil.copytree(ROOT / "verify", checkout.root / "verify", ignore=shutil.ignore_patterns("__pycache__"))
    for version in ("1.2", "1.3"):
        make_wheel(tmp_path / "links", version)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.running() as server:
        server.files["/files/"] = PAGE.encode()
        origins = {
            "thing": f'type = "url"\nurl = ["{server.url}/files/thing-1.2.tar.gz"]',
            "gone": f'type = "url"\nurl = ["{server.url}/gone/thing-1.2.tar.gz"]',
            "wheel": WHEEL,
            "deb": DEB,
        }
        for name, origin in origins.items():
            text = RECIPE.format(name=name, origin=origin, zeros="0" * 64, unpack="unpack = false\n")
            checkout.write(f"recipes/{name}/recipe.toml", text)
        mirror = f"{server.url}/debian"
        output = checkout.doit("outdated", NABLA_DEBIAN_MIRROR=mirror)
        lines = [line.split() for line in output.splitlines()]
        assert ["thing", "1.2", "1.10", "127.0.0.1"] in lines
        assert ["wheel", "1.2", "1.3", "PyPI"] in lines
        assert ["gone", "1.2", "?", "no", "answer"] in lines
        assert ["deb", "1.2", "?", "no", "answer"] in lines
        assert "Debian sid: Debian's sid lists could not be fetched (deb)" in output
        assert "the server answered 404" in output
        data = checkout.doit("outdated", "--json", "wheel")
        assert json.loads(data[data.index("[\n") : data.rindex("]") + 1]) == [
            {"newest": "1.3", "current": "1.2", "problem": "", "recipe": "wheel", "where": "PyPI"}
        ]
        output = checkout.doit("outdated", "gone", status=2)
        assert "error: no origin listed its versions" in output
        assert "error: there is no recipe 'none'" in checkout.doit("outdated", "none", status=2)
        asked = len(server.requests)
        output = checkout.doit("outdated", status=2, NABLA_OFFLINE="1")
        assert "error: connections are forbidden (offline)" in output
        assert len(server.requests) == asked


@pytest.mark.online
def test_debian_and_the_index_for_real(cache: Path) -> None:
    answers = outdated.query(["zlib", "py3-tornado"])
    debian = [answer for answer in answers if answer.recipe == "zlib"]
    assert [answer.where for answer in debian] == ["Debian trixie", "Debian forky", "Debian sid"]
    assert not any(answer.problem for answer in answers)
