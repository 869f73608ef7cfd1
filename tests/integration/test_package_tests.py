# SPDX-License-Identifier: Apache-2.0
"""The tests of packages run in a VM, as `doit package-test:NAME` runs them.

Packages that are built by name alone are tested by `doit package-test`, and two of them here.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nabla.core import files, paths
from nabla.engine.action import Job
from nabla.images import package_test_tasks, package_tests
from nabla.images.package_tests import Case, Outcome, PackageTestError, Suite
from nabla.packages import catalog
from nabla.packages.catalog import read_build_record
from nabla.packages.lint import contents

from .conftest import image_of

CACHE = paths.cache_dir()
# As nabla/packages/tasks.py has them.
OPTIONAL = ("dash", "tree")


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's cache with earlier results."""
    monkeypatch.setenv("NABLA_CACHE", str(CACHE))
    image_of("alpine")


@pytest.mark.timeout(package_tests.TIMEOUT + 60)
@pytest.mark.parametrize("name", [*catalog.names(), *OPTIONAL])
def test_package(name: str, tmp_path: Path) -> None:
    output = package_tests.record_path(name)
    files.make_folder(output.parent)
    job = Job(f"package-test:{name}", tmp_path / "log", (output,))
    package_test_tasks.run_tests(job, name)
    path = job.out(output)
    outcome = msgspec.json.decode(path.read_bytes(), type=Outcome)
    files.remove(path)
    built = read_build_record(name)
    assert (outcome.recipe, outcome.version, outcome.tree) == (name, built.parts[0].version, built.tree)
    assert outcome.tests == len(package_tests.load(name).test)


@pytest.mark.parametrize("name", [*catalog.names(), *OPTIONAL])
def test_files_violate_no_rule(name: str) -> None:
    assert [each.sentence for each in contents.examine(name)] == []


def test_each_exception_has_an_effect() -> None:
    """An exception that is no longer needed would hide the next violation. Optional packages are not built here."""
    listed = {key for key in contents.EXCEPTIONS if not catalog.load(catalog.owners()[key[0]]).optional}
    needed = {
        (each.component, each.rule, pattern)
        for package, rule, pattern in listed
        for each in contents.examine(catalog.owners()[package], {})
        if (each.component, each.rule) == (package, rule)
    }
    assert needed == listed


@pytest.mark.parametrize("name", OPTIONAL)
def test_is_optional(name: str) -> None:
    assert catalog.load(name).optional
    assert name not in catalog.names()


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (Case(script="echo other", expected="word\n"), "--- output\nother"),
        (Case(script="echo word; exit 3", expected="word\n"), "status 3"),
        (Case(script="absent", expected="word\n"), "absent: not found"),
        (Case(script="dash -c :", expected="word\n", packages=("zlib",)), "dash: not found"),
    ],
)
def test_what_fails(test: Case, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Different output, a failed status, a program that is not in the package, a package that is not installed."""
    monkeypatch.setattr(package_tests, "load", lambda _name: Suite(test=(test,)))
    with pytest.raises(PackageTestError) as caught:
        package_tests.check("tree", tmp_path / "result", tmp_path / "log")
    assert "test 1 of 1 fails in the VM" in caught.value.message
    assert reason in caught.value.hint
    assert not (tmp_path / "result").exists()


def test_a_pass_is_stored_by_the_digests_of_its_inputs(tmp_path: Path) -> None:
    first, second = (
        package_tests._key("tree", Suite(test=(Case(script=script, expected="x\n"),))) for script in ("one", "two")
    )
    assert first != second
    assert (
        package_tests._key("tree", package_tests.load("tree"))
        == package_tests.check("tree", tmp_path / "result", tmp_path / "log").key
    )
