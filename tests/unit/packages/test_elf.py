# SPDX-License-Identifier: Apache-2.0
"""Provided and required names of real packages of the repository, and of descriptions for pkg-config."""

from __future__ import annotations

import pytest

from nabla.core.errors import RecipeError
from nabla.packages import apkdb, catalog, elf, split
from nabla.packages.catalog import BinaryPackage, BuildRecord

PC = """\
prefix=/usr
major=3
version=${major}.5

Name: x
Version: ${version}
Requires: one >= 1.2, two-x
Requires.private: three four = 4
Libs: -L${prefix}/lib -lx
"""


def test_pkg_config_description() -> None:
    assert elf.pc_version(PC) == "3.5"
    assert elf.pc_requires(PC) == ["one", "two-x", "three", "four"]
    assert elf.pc_requires("Name: x\nRequires:\nLibs: -lx\n") == []
    assert elf.pc_version("Name: x\n") is None


@pytest.mark.parametrize(
    ("name", "provides", "depends"),
    [
        ("zlib", "so:libz.so.1=1.3.1", "so:libc.musl-x86_64.so.1"),
        ("zlib-dev", "pc:zlib=1.3.1", "so:libz.so.1"),
        ("libssl3", "so:libssl.so.3=3", "so:libcrypto.so.3"),
        ("xz", "cmd:xz=5.8.1-r0", "so:liblzma.so.5"),
        ("readline-dev", "pc:readline=8.2", "so:libreadline.so.8"),
    ],
)
def test_real_packages(name: str, provides: str, depends: str) -> None:
    part = next(p for p in catalog.read_build_record(catalog.owners()[name]).parts if p.name == name)
    assert provides in part.provides
    assert depends in part.depends
    assert not set(part.depends) & {text.split("=")[0] for text in part.provides}


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("usr/lib/libx.so", "usr/lib/*.so", True),
        ("usr/lib/deep/libx.so", "usr/lib/*.so", False),
        ("usr/include/deep/x.h", "usr/include", True),
        ("usr/includes/x.h", "usr/include", False),
        ("usr/include/x.h", "usr/include/", True),
        ("usr", "usr/include", False),
    ],
)
def test_patterns(path: str, pattern: str, fits: bool) -> None:
    assert split._fits(path, pattern) is fits


def built(*parts: BinaryPackage) -> BuildRecord:
    return BuildRecord(recipe="r", license="MIT", homepage=None, key="", tree="", parts=parts)


def part(name: str, files: tuple[str, ...] = (), **more: tuple[str, ...]) -> BinaryPackage:
    fields: dict[str, tuple[str, ...]] = {"depends": (), "provides": (), "replaces": (), **more}
    return BinaryPackage(name=name, version="1-r0", summary="x", files=files, scripts={}, **fields)


def test_conflicts() -> None:
    one, two = part("one", ("a", "b")), part("two", ("b", "c"))
    assert list(catalog.conflicts([built(one), built(two)], [])) == ["/b is in two packages, one and two"]
    assert list(catalog.conflicts([built(one), built(part("two", ("b",), replaces=("one",)))], [])) == []


def test_conflicts_with_the_base() -> None:
    """A file of another package of the base is a conflict; the package of the same name takes its place."""
    base = apkdb.parse("P:base\nV:1\nF:usr/bin\nR:tool\n\nP:one\nV:1\nF:usr/bin\nR:other\n")
    one = part("one", ("usr/bin/tool", "usr/bin/other"))
    assert list(catalog.conflicts([built(one)], base)) == ["/usr/bin/tool is in two packages, Alpine's base and one"]
    assert list(catalog.conflicts([built(part("one", ("usr/bin/tool",), replaces=("base",)))], base)) == []
    assert list(catalog.conflicts([built(one, part("base"))], base)) == []


def test_unmet() -> None:
    one = part("one", depends=("so:x.so.1", "two>=1", "!three", "base", "/bin/sh"))
    assert list(catalog.unmet([built(one)], {"base"})) == [
        "one needs so:x.so.1, which no package provides",
        "one needs two>=1, which no package provides",
    ]
    two = part("two", provides=("so:x.so.1=1.2",))
    assert list(catalog.unmet([built(one, two)], {"base"})) == []


def test_order() -> None:
    order = catalog.closure("readline")
    assert order.index("libgcc") < order.index("ncurses")
    assert "readline" not in order
    with pytest.raises(RecipeError):
        catalog.closure("absent")


@pytest.mark.parametrize(
    ("text", "version"),
    [("2.1.12-stable", "2.1.12"), ("1.2.3", "1.2.3"), ("1.0_rc1", "1.0_rc1"), ("v1", "0"), ("", "0"), ("1.2b", "1.2b")],
)
def test_versions_that_apk_cannot_write(text: str, version: str) -> None:
    """Projects put words into the version of a .pc file."""
    assert elf.apk_version(text) == version
