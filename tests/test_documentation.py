# SPDX-License-Identifier: Apache-2.0
"""The documentation as a whole: its links resolve, the tests that it names exist, its terms are the glossary's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nabla.report import benchmarks
from tests import prose
from tests.conftest import ROOT
from tests.repository import committed
from tests.test_linters import text_of

PAGES = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SPECIFICATION", "SECURITY", "CHANGELOG")]
PAGES += sorted((ROOT / "docs").glob("*.md"))

# Folders and files whose text keeps to the glossary of CONTRIBUTING.md.
CLEAN = (
    *("README.md", "CONTRIBUTING.md", "SPECIFICATION.md", "SECURITY.md", "CHANGELOG.md", "docs/", "bench/", "demo/"),
    *("nabla/", "verify/", "tests/", "launcher/", "init/", "oci/", "rootfs/", "kernel-config/", "toolchain/"),
    *("python/", "matrices/", "recipes/"),
    *("patches/busybox/", "patches/musl/", "doit.sh", "dodo.py", ".github/", ".ci/"),
    *("requirements.in", "pyproject.toml"),
)
GENERATED = ("docs/busybox-testsuite.md",)
# The first two contain the forbidden words; a text of the others is part of the patch series or of a summed artifact.
EXEMPT = (
    *("tests/prose.py", "tests/test_documentation.py", "nabla/policy/compiler.py", "nabla/sbom/spdx.py"),
    *("recipes/busybox/busybox.config", "recipes/redis/redis.conf"),
)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as repository sites make them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?s)```.*?```|`[^`\n]*`", "", text_of(page))):
        if re.match(r"[a-z]+://", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


def test_every_page_is_listed_in_the_readme() -> None:
    readme = text_of(ROOT / "README.md")
    assert [page.name for page in PAGES[1:] if f"({page.relative_to(ROOT)})" not in readme] == []


def named_tests(text: str) -> list[str]:
    """Return the files that a text of the specification names as tests, braces expanded."""
    names = []
    for name in re.findall(r"`((?:(?:unit|integration|guest|fuzz)/|test_)[^`]+)`", text):
        before, braces, after = re.fullmatch(r"([^{}]*)(?:\{(.*)\})?([^{}]*)", name).groups()  # type: ignore[union-attr]
        names += [f"{before}{choice}{after}" for choice in (braces or "").split(",")]
    return names


def test_every_test_named_in_the_specification_exists() -> None:
    names = named_tests(text_of(ROOT / "SPECIFICATION.md"))
    assert len(names) > 80
    assert [name for name in names if not any((ROOT / "tests").glob(name))] == []


def test_every_test_named_in_the_self_assessment_exists() -> None:
    names = re.findall(r"`((?:tests|nabla)/[^`]+)`", text_of(ROOT / "docs" / "osps-baseline.md"))
    assert len(names) > 15
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_numbers_of_upstreams_tests_are_the_measured_ones() -> None:
    tests = {each.recipe: f"{each.tests:,}" for each in benchmarks.read_upstream(benchmarks.UPSTREAM)}
    assert f"; {tests['python3']} of Python's own tests pass |" in text_of(ROOT / "README.md")
    numbers = f"| {tests['python3']} of Python, {tests['redis']} of redis, {tests['sqlite']} of SQLite pass |"
    assert numbers in text_of(ROOT / "SPECIFICATION.md")


def test_every_promise_names_a_test() -> None:
    rows = [line for line in text_of(ROOT / "SPECIFICATION.md").splitlines() if line.startswith("| ")]
    promises = [row for row in rows[: rows.index("| property | measured | command |")] if row != "| promise | test |"]
    assert len(promises) > 70
    assert [row for row in promises if not named_tests(row.rsplit("|", 2)[1])] == []


def test_words_of_the_glossary_are_used() -> None:
    """No word of the list in tests/prose.py occurs in a clean folder, in prose, comments, docstrings or messages."""
    guilty = [
        f"{name}:{finding}"
        for path in committed()
        if (name := str(path.relative_to(ROOT))).startswith(CLEAN)
        and name not in EXEMPT
        and path.suffix not in (".png", ".lock", ".asc")
        and path.name != "cases.toml"  # scripts and their output
        for finding in prose.findings(path)
    ]
    assert guilty == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.md", "It is told `told` [x](told).\n```\nwhom\n```\nThe behaviour.\n", ["1: 'told'", "5: 'behaviour'"]),
        ("a.c", "/* whoever\n * calls */ int told_by;\n", ["1: 'whoever'"]),
        (
            "a.py",
            '"""A docstring.\n\nTells it."""\ntold = 1\nprint("the licence")  # anew\n',
            ["5: 'anew'", "3: 'Tells'"],
        ),
        ("a.toml", 'color = "favorite"\nanalyses = "optimized"\n', []),
        (
            "a.patch",
            "It goes on.\nThis allows to read\nall that it has.\n+ /* a link is no path */\nfor ever\n",
            ["1: 'goes on'", "2: 'allows to read'", "3: 'all that it'", "4: 'is no path'", "5: 'for ever'"],
        ),
        (
            "b.md",
            "It goes on the stack, as there is no path. A report of its own size permits other access to all files.\n"
            "The metadata of one or the other is larger than it is allowed to be, and does not take any more memory.\n",
            [],
        ),
    ],
)
def test_forbidden_words_are_found(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    path = tmp_path / name
    path.write_text(text)
    seen = [":".join(finding.split(":")[:2]) for finding in prose.findings(path)]
    assert seen[: len(expected)] == expected
    assert len(seen) == len(expected) + (name == "a.py")
