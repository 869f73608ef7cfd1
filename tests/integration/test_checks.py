# SPDX-License-Identifier: Apache-2.0
"""Upstream's own tests of Python, redis and SQLite, in the guest, as `doit check:NAME` runs them.

Results for the same bytes, from earlier test runs or from doit, come from the cache.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nabla.core import files, paths
from nabla.core.paths import OUT
from nabla.engine.action import Job
from nabla.packages import catalog, upstream_tests
from nabla.packages.catalog import read_build_record
from nabla.packages.upstream_tests import CheckResult, PackageCheckError

from .conftest import image_of

CACHE = paths.cache_dir()
# recipe -> least number of its tests
LEAST = {"python3": 10_000, "redis": 1_000, "sqlite": 100_000}


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's cache with earlier results."""
    monkeypatch.setenv("NABLA_CACHE", str(CACHE))


@pytest.mark.slow
@pytest.mark.timeout(upstream_tests.TIMEOUT + 60)
@pytest.mark.parametrize("name", LEAST)
def test_own_tests_of(name: str, tmp_path: Path) -> None:
    image_of("packages")
    output = OUT / "check" / f"{name}.json"
    files.make_folder(output.parent)
    job = Job(f"check:{name}", tmp_path / "log", (output,))
    upstream_tests.check_package(job, name)
    path = job.out(output)
    result = msgspec.json.decode(path.read_bytes(), type=CheckResult)
    files.remove(path)
    built = read_build_record(name)
    assert (result.recipe, result.version, result.tree) == (name, built.parts[0].version, built.tree)
    assert result.failed == 0
    assert result.tests > LEAST[name]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 5 tests, 0 failed; exit 3", "status 3, 0 of 5"),
        ("echo 5 tests, 1 failed", "status 0, 1 of 5"),
        ("echo all is well", "status 0, no count of tests"),
    ],
)
def test_what_counts_as_failed(script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redis = catalog.load("redis")
    redis = msgspec.structs.replace(redis, package=msgspec.structs.replace(redis.package, check=script))
    monkeypatch.setattr(upstream_tests, "MEMORY", "64M")
    with pytest.raises(PackageCheckError) as caught:
        upstream_tests.check(redis, image_of("minimal"), tmp_path / "result", tmp_path / "log")
    assert reason in str(caught.value)
    assert script.split("echo ")[1].split(";")[0] in caught.value.hint
    assert not (tmp_path / "result").exists()
