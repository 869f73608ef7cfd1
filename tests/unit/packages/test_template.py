# SPDX-License-Identifier: Apache-2.0
"""The template of a recipe is valid except for the capitalized words; the graph shows every recipe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nabla.core.errors import RecipeError
from nabla.packages import catalog, tasks
from nabla.packages.templates import render
from nabla.sources import recipe
from nabla.sources.apt import SourcePackage, parse_sources
from nabla.sources.tasks import task_fetch as fetch_tasks

PRINTED = f"""\
Package: zz
Binary: zz, zz-dev
Version: 1:1.3-2
Files:
 {"0" * 32} 2000 zz_1.3-2.dsc
Checksums-Sha256:
 {"a" * 64} 2000 zz_1.3-2.dsc
 {"b" * 64} 1325737 zz_1.3.orig.tar.gz
 {"c" * 64} 833 zz_1.3.orig.tar.gz.asc
 {"d" * 64} 900 zz_1.3-2.debian.tar.xz
Directory: pool/main/z/zz

"""
PACKAGES = parse_sources(PRINTED, "trixie")


def test_takes_the_upstream_tarball() -> None:
    package = render.choose(PACKAGES, "1.3")
    assert package is PACKAGES[0] and (package.suite, package.name, package.version) == ("trixie", "zz", "1:1.3-2")
    assert package.tarball is not None and package.tarball.name == "zz_1.3.orig.tar.gz"
    assert render.choose(PACKAGES, "1.4") is None
    assert render.choose([], "1.3") is None


@pytest.mark.parametrize("package", [PACKAGES[0], None])
def test_is_a_valid_recipe(tmp_path: Path, package: SourcePackage | None) -> None:
    (tmp_path / "zz").mkdir()
    path = tmp_path / "zz" / "recipe.toml"
    path.write_text(render.render("zz", "1.3", package))
    loaded = recipe.load_file(path)
    assert loaded.package is not None
    assert [part.name for part in loaded.package.subpackage] == ["zz-dev"]
    assert loaded.source[0].origin[0].sha256 == ("b" * 64 if package else "0" * 64)
    assert re.findall(r"\b[A-Z]{5,}\b", path.read_text())


@pytest.mark.parametrize(("name", "version"), [("Zz", "1"), ("zz", "1-beta"), ("../zz", "1")])
def test_refused(name: str, version: str) -> None:
    with pytest.raises(RecipeError):
        render.render(name, version, None)


def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NABLA_OFFLINE", "1")
    assert render.look_up("zlib", "1.3.1") is None


def test_graph_of_all_packages() -> None:
    edges = {name: catalog.needs(name) for name in catalog.names()}
    dot, mermaid = render.as_dot(edges), render.as_mermaid(edges)
    assert dot.startswith("digraph") and dot.count("->") == sum(map(len, edges.values()))
    assert '"readline" -> "ncurses"' in dot
    assert all(f'["{name}"]' in mermaid for name in edges)


def test_optional_recipes_belong_to_no_group() -> None:
    """They have separate tasks, and the index, the bills of materials and releases do not include them."""
    names = {each.name for each in catalog.all_recipes() if each.optional}
    assert {"dash", "git", "jq"} <= names
    assert not names & set(catalog.names())
    assert names <= set(catalog.owners().values())
    for task in (*tasks.task_packages(), *fetch_tasks()):
        area, _, name = task["basename"].partition(":")
        assert area in ("packages", "fetch")
        assert (name in names) if name else (task["name"] not in names)
    assert not [path for path in catalog.all_apks() if path.name.startswith("dash-")]
