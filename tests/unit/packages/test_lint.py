# SPDX-License-Identifier: Apache-2.0
"""The linters of recipes and of packages' files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nabla.core.errors import RecipeError
from nabla.images import package_tests
from nabla.images.package_tests import PackageTestError
from nabla.packages import catalog
from nabla.packages.catalog import BinaryPackage, BuildRecord, PackageError
from nabla.packages.lint import contents, recipes
from nabla.packages.lint.tasks import LintError, lint
from nabla.sources.recipe import PackageRecipe, load_file

GOOD = """\
name = "tree"
version = "2.1.0"
license = "GPL-2.0-or-later"
summary = "List folders as a tree"
homepage = "https://tree.example/"

[[source]]
name = "tree"

[[source.origin]]
type = "debian"
suite = "bookworm"
package = "tree"
version = "2.1.0-1"
file = "tree_2.1.0.orig.tar.gz"
sha256 = "0160c535bff2b0dc6a830b9944e981e3427380f63e748da96ced7071faebabf6"
size = 59189

[package]
build = "make"
package = "make install"
"""


def make(folder: Path, *changes: tuple[str, str]) -> PackageRecipe:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "tree" / "recipe.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    loaded = load_file(path)
    assert isinstance(loaded, PackageRecipe)
    return loaded


def test_all_recipes_pass() -> None:
    """Each has a test in a VM, too."""
    finding = [each for loaded in catalog.all_recipes() for each in recipes.examine(loaded)]
    assert finding == []


def test_tests_belong_to_recipes() -> None:
    names = {path.stem for path in package_tests.FOLDER.glob("*.toml")}
    assert names == {loaded.name for loaded in catalog.all_recipes()}
    for name in names:
        assert package_tests.load(name).test


@pytest.mark.parametrize(
    ("change", "rule", "sentence"),
    [
        (('"GPL-2.0-or-later"', '"GPL of some kind"'), "license", "is not an SPDX expression"),
        (('"GPL-2.0-or-later"', '"Own"'), "license", "SPDX has no license Own"),
        (("List folders as a tree", "lists folders."), "summary", "starts with a capital"),
        (("List folders as a tree", "A" * 101), "summary", "101 characters"),
        (('homepage = "https://tree.example/"\n', ""), "homepage", "is missing"),
        (("0160c535bff2b0dc6a830b9944e981e3427380f63e748da96ced7071faebabf6", "0" * 64), "sources", "of the template"),
        (('version = "2.1.0"\n', 'version = "2.2.0"\n'), "version", "2.2.0 is not in the name"),
        (('build = "make"', 'build = "make -j4"'), "scripts", "number of processes"),
        (('build = "make"', 'build = "curl -O x"'), "scripts", "add a source"),
        (('build = "make"', 'build = "make prefix=/usr/local"'), "scripts", "packages use /usr"),
        (('package = "make install"', 'package = "sudo make install"'), "scripts", "root owns all files"),
    ],
)
def test_recipes(change: tuple[str, str], rule: str, sentence: str, tmp_path: Path) -> None:
    assert list(recipes.examine(make(tmp_path))) == []
    (finding,) = recipes.examine(make(tmp_path, change))
    assert finding.rule == rule
    assert sentence in finding.sentence


def test_unsigned_addresses_and_unused_files(tmp_path: Path) -> None:
    address = """
type = "url"
url = ["http://tree.example/tree-2.1.0.tar.gz"]
sha256 = "0160c535bff2b0dc6a830b9944e981e3427380f63e748da96ced7071faebabf6"
size = 59189
"""
    loaded = make(tmp_path, (GOOD[GOOD.index('type = "debian"') : GOOD.index("\n[package]")], address.lstrip()))
    (loaded.folder / "forgotten.patch").touch()
    rules = {each.rule: each.sentence for each in recipes.examine(loaded)}
    assert rules.keys() == {"sources", "files"}
    assert "neither encrypted nor signed" in rules["sources"]
    assert "forgotten.patch" in rules["files"]


def test_a_recipe_without_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "TESTS", tmp_path)
    (finding,) = recipes.examine(make(tmp_path))
    assert (finding.rule, finding.component) == ("tests", "tree")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the key `test` is missing"),
        ('[[test]]\nscript = "true"\n', "the key `expected` is missing"),
        ('[[test]]\nscript = "true"\nexpected = "x"\npackages = ["absent"]\n', "there is no package 'absent'"),
        ('memory = "much"\n[[test]]\nscript = "true"\nexpected = "x"\n', "memory: the value must match"),
        ('[[test]]\nscript = "true"\nexpected = "x"\nother = 1\n', "other"),
    ],
)
def test_invalid_tests(text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_tests, "FOLDER", tmp_path)
    (tmp_path / "tree.toml").write_text(text)
    with pytest.raises(PackageTestError) as caught:
        package_tests.load("tree")
    path, _, rest = caught.value.message.partition(": ")
    assert "tree.toml" in path
    assert reason in rest


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built package of the recipe tree with one program; returns the folder of its files."""
    root = tmp_path / "files"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tree").write_bytes(b"program")
    monkeypatch.setattr(contents, "files_path", lambda _key, _part: root)

    def record(name: str) -> BuildRecord:
        paths = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or path.is_file()]
        part = BinaryPackage(
            name="tree",
            version="1-r0",
            summary="",
            depends=(),
            provides=(),
            replaces=(),
            files=tuple(paths),
            scripts={},
        )
        parts = (part,) if name == "tree" else ()
        return BuildRecord(recipe=name, license="MIT", homepage=None, key="k", tree="t", parts=parts)

    monkeypatch.setattr(catalog, "read_build_record", record)
    return root


@pytest.mark.parametrize(
    ("path", "content", "rule"),
    [
        ("usr/local/bin/x", b"x", "folders"),
        ("usr/cmake/x.cmake", b"x", "folders"),
        ("tmp/x", b"x", "folders"),
        ("usr/lib/libx.la", b"x", "leftovers"),
        ("usr/share/x.orig", b"x", "leftovers"),
        ("usr/share/config", b"prefix=/build/tree/out", "build paths"),
        ("usr/share/config", b"\0cc -L/sysroot/usr/lib\0", "build paths"),
    ],
)
def test_contents(installed: Path, path: str, content: bytes, rule: str) -> None:
    (installed / "usr/bin/tree").write_bytes(b"generated by Tools/build/x.py, ./build/x")
    assert list(contents.examine("tree")) == []
    (installed / path).parent.mkdir(parents=True, exist_ok=True)
    (installed / path).write_bytes(content)
    (finding,) = contents.examine("tree")
    assert finding.rule == rule
    assert finding.sentence.startswith(f"/{path}: ")


@pytest.mark.parametrize(("mode", "sentence"), [(0o777, "everyone may write"), (0o4755, "its owner's rights")])
def test_modes(installed: Path, mode: int, sentence: str) -> None:
    (installed / "usr/bin/tree").chmod(mode)
    (finding,) = contents.examine("tree")
    assert finding.rule == "modes" and sentence in finding.sentence


def test_links(installed: Path) -> None:
    for name, target in (("good", "tree"), ("absolute", "/usr/bin/tree"), ("folder", "/usr/bin")):
        os.symlink(target, installed / "usr/bin" / name)
    assert list(contents.examine("tree")) == []
    os.symlink("/build/tree", installed / "usr/bin/wrong")
    os.symlink("absent", installed / "usr/bin/dangling")
    assert sorted(each.sentence for each in contents.examine("tree")) == [
        "/usr/bin/dangling: the link leads to /usr/bin/absent, which neither its recipe nor a recipe that it depends "
        "on contains",
        "/usr/bin/wrong: the link leads to /build/tree, a folder of the build",
    ]


def test_command(installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.touch()
    monkeypatch.setattr("nabla.packages.lint.tasks.package_record", lambda _name: record)
    lint(["tree"])
    (installed / "tmp").mkdir()
    (installed / "tmp" / "x").touch()
    with pytest.raises(LintError, match="violations: 1; checked recipes: 1"):
        lint(["tree"])
    with pytest.raises(RecipeError, match="there is no recipe 'absent'"):
        lint(["absent"])
    shutil.rmtree(installed)
    with pytest.raises(PackageError, match="the files of tree are no longer in the cache"):
        lint(["tree"])
