# SPDX-License-Identifier: Apache-2.0
"""Recipes: the committed ones are valid, broken ones are reported with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from nabla.core import toml
from nabla.core.errors import RecipeError
from nabla.core.paths import RECIPES, ROOT
from nabla.sources import recipe

GOOD = """\
name = "thing"
version = "1.0"
license = "MIT"
summary = "a thing"

[[source]]
name = "thing"

[[source.origin]]
type = "url"
url = [
    "https://example.org/thing.tar.gz",
]
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
size = 12

[[source]]
name = "docs"
unpack = false

[[source.origin]]
type = "debian"
suite = "trixie"
package = "thing"
version = "1.0-1"
file = "thing_1.0.orig.tar.gz"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
size = 13

[build]
configure = '''
./configure
[[not a table]]
'''
env = { CFLAGS = "-O2" }
"""


def load(tmp_path: Path, text: str) -> recipe.Recipe:
    path = tmp_path / "thing" / "recipe.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return recipe.load_file(path)


def test_committed_recipes_are_valid() -> None:
    assert {"linux", "musl", "busybox", "alpine-base"} <= set(recipe.names())
    for name in recipe.names():
        loaded = recipe.load(name)
        assert loaded.name == name
        assert loaded.path == RECIPES / name / "recipe.toml"


def test_good_recipe(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert [source.name for source in loaded.source] == ["thing", "docs"]
    assert loaded.source[0].strip == 1
    assert loaded.source[0].origin[0].file == "thing.tar.gz"
    assert loaded.find_source("docs").unpack is False
    assert loaded.build is not None
    assert loaded.build.env == {"CFLAGS": "-O2"}
    assert loaded.patches == ()
    with pytest.raises(RecipeError, match="no source named 'absent'"):
        loaded.find_source("absent")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version = "1.0"\n', "version = 1.0\n", "2: version: expected str, got float"),
        ('license = "MIT"\n', 'licens = "MIT"\n', "3: licens: there is no such key"),
        ('license = "MIT"\n', "", "1: the key `license` is missing"),
        ('name = "thing"\n', 'name = "Thing"\n', "1: name: the value must match"),
        ('name = "thing"\n', 'name = "other"\n', "1: name: the recipe's name 'other' differs from its folder 'thing'"),
        ('type = "url"', 'type = "ftp"', "10: source[1].origin[1].type: the value 'ftp' is not allowed"),
        ('"https://example.org', '"ftp://example.org', "11: source[1].origin[1].url[1]: the value must match"),
        ("size = 12\n", 'size = "12"\n', "15: source[1].origin[1].size: expected int, got str"),
        ("size = 12\n", "", "9: source[1].origin[1]: the key `size` is missing"),
        ("size = 13\n", "size = 0\n", "28: source[2].origin[1].size: expected `int` >= 1"),
        ('suite = "trixie"\n', "", "21: source[2].origin[1]: the key `suite` is missing"),
        ('name = "docs"', 'name = "thing"', "18: source[2].name: two sources are named 'thing'"),
        ("unpack = false\n", 'unpack = false\nlocal = "nabla"\n', "17: source[2]: a source has either"),
        ('CFLAGS = "-O2"', "CFLAGS = 2", "35: build.env"),
        ("[build]\n", "[biuld]\n", "30: biuld: there is no such key"),
        ("size = 12\n", 'size = 12\nsignature = { key = "no.asc" }\n', "16: source[1].origin[1].signature: the key"),
        ("[build]\n", "[build\n", "30: not valid TOML"),
        ("summary = ", "summary = = ", "4: not valid TOML"),
        ("[build]\n", '[fixes]\n"CVE-99" = ["a"]\n[build]\n', "30: fixes"),
        ("[build]\n", '[fixes]\n"CVE-2024-1234" = []\n[build]\n', "30: fixes: expected `array` of length >= 1"),
        ("[build]\n", '[fixes]\n"CVE-2024-1234" = ["0001-a.patch"]\n[build]\n', "31: fixes.CVE-2024-1234: there is"),
        ("[build]\n", '[not-affected.CVE-2024-1234]\nreason = "a"\n[build]\n', "30: not-affected: the key `just"),
        (
            "[build]\n",
            '[not-affected.CVE-2024-1234]\njustification = "because"\nreason = "a"\n[build]\n',
            "30: not-affected.justification: invalid enum value 'because'",
        ),
        ("[build]\n", '[fixes]\n[build]\nlicense_files = ["../a"]\n', "32: build.license_files: there is no such key"),
        ('license = "MIT"\n', 'license = "MIT"\nlicense_files = ["../a"]\n', "4: license_files[1]: the value must"),
    ],
)
def test_broken_recipe(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert str(caught.value).startswith(f"{tmp_path}/thing/recipe.toml:{message}")
    assert "\n" not in str(caught.value)


PACKAGE = (
    GOOD[: GOOD.index("[build]")]
    + """\
[package]
revision = 2
depends = ["busybox", "so:libz.so.1", "zlib>=1.3"]
makedepends = ["zlib-dev"]
env = { A = "b" }
build = "make"
package = "make install"

[[package.subpackage]]
name = "thing-dev"

[[package.subpackage]]
name = "libthing"
files = ["usr/lib/*.so.*"]
"""
)


def test_package_table(tmp_path: Path) -> None:
    package = load(tmp_path, PACKAGE).package
    assert package is not None
    assert package.revision == 2
    assert [part.name for part in package.subpackage] == ["thing-dev", "libthing"]
    assert load(tmp_path, GOOD).package is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("revision = 2", "revision = -1", "package.revision: expected `int` >= 0"),
        ("revision = 2", "release = 2", "package.release: there is no such key"),
        ('package = "make install"\n', "", "package: the key `package` is missing"),
        ('"usr/lib/*.so.*"', '"/usr/lib"', "package.subpackage[2].files[1]: the value must match"),
        ('"usr/lib/*.so.*"', '"usr/../etc"', "package.subpackage[2].files[1]: the value must match"),
        ('files = ["usr/lib/*.so.*"]\n', "", "package.subpackage[2]: the key `files` is missing"),
        ('name = "libthing"', 'name = "thing"', "package.subpackage[2].name: two packages are named 'thing'"),
        ('"busybox"', '"Busy Box"', "package.depends[1]: the value must match"),
        ('version = "1.0"', 'version = "1.0-beta"', "version: '1.0-beta' is not a version that apk can compare"),
        ("[package]\n", '[package]\nscripts = { post-install = "absent" }\n', "there is no file absent beside"),
        ("[package]\n", '[package]\nscripts = { often = "x" }\n', "package.scripts"),
    ],
)
def test_broken_package_table(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PACKAGE
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, PACKAGE.replace(old, new, 1))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_signature_rules(tmp_path: Path) -> None:
    key = next((ROOT / "recipes/keys").glob("*.asc")).name
    signature = f'signature = {{ key = "{key}", fingerprint = "{"A" * 40}" }}'
    with pytest.raises(RecipeError, match="the signature of a url origin needs `url`"):
        load(tmp_path, GOOD.replace("size = 12\n", f"size = 12\n{signature}\n"))
    with pytest.raises(RecipeError, match="the signature of a debian origin needs `file`"):
        load(tmp_path, GOOD.replace("size = 13\n", f"size = 13\n{signature}\n"))
    with pytest.raises(RecipeError, match=r"there is no key file recipes/keys/absent.asc"):
        load(tmp_path, GOOD.replace("size = 12\n", f"size = 12\n{signature.replace(key, 'absent.asc')}\n"))


def test_local_source_must_exist(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("[[source.origin]]")] + 'local = "no-such-folder"\n'
    with pytest.raises(RecipeError, match=r":9: source\[1\].local: there is no folder 'no-such-folder'"):
        load(tmp_path, text)


def test_unknown_recipe() -> None:
    with pytest.raises(RecipeError, match="there is no recipe 'absent'") as caught:
        recipe.load("absent")
    assert "musl" in caught.value.hint


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(b'a = "\xff"\n')
    with pytest.raises(RecipeError, match="is not UTF-8 text"):
        toml.read(path, RecipeError)


def test_configuration_leaves_out_what_does_not_decide_the_result(tmp_path: Path) -> None:
    first = load(tmp_path, GOOD).config()
    assert (
        load(tmp_path, GOOD.replace("a thing", "another summary").replace("size = 12", "size = 14")).config() == first
    )
    assert load(tmp_path, GOOD.replace("-O2", "-O3")).config() != first


def test_documented_example_is_valid_and_every_key_is_documented(tmp_path: Path) -> None:
    text = (ROOT / "docs/recipes.md").read_text()
    example = text.split("```toml\n")[1].split("```")[0]
    path = tmp_path / "musl" / "recipe.toml"
    path.parent.mkdir()
    path.write_text(example)
    assert recipe.load_file(path).source[0].origin[1].file == "musl_1.2.5.orig.tar.gz"
    kinds = (recipe.Signature, recipe.UrlOrigin, recipe.DebianOrigin, recipe.DebOrigin, recipe.PypiOrigin)
    for kind in (*kinds, recipe.Source, recipe.Build, recipe.Recipe):
        for key in {*kind.__struct_fields__} - {"path"}:
            assert f"`{key.replace('not_affected', 'not-affected')}`" in text, f"{kind.__name__}.{key}"
