# SPDX-License-Identifier: Apache-2.0
"""The result of a package's check, and its entry in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from nabla.engine import result_cache
from nabla.packages import catalog, upstream_tests
from nabla.packages.upstream_tests import CheckResult, PackageCheckError

PASSED = CheckResult(
    recipe="x",
    version="1-r0",
    tree="a" * 64,
    key="b" * 64,
    seconds=7,
    tests=12,
    failed=0,
    output=("12 tests, 0 failed",),
)


@pytest.fixture
def ready(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and a known digest of the VM; returns the path for the result."""
    monkeypatch.setattr(upstream_tests, "_key", lambda _recipe, _image: PASSED.key)
    return tmp_path / "result.json"


def test_counts() -> None:
    assert upstream_tests.counts(["3 tests, 1 failed", "12970 tests, 0 failed", "bye"]) == (12970, 0)
    assert upstream_tests.counts(["there were 3 tests, 1 failed", "tests, 0 failed"]) is None
    assert upstream_tests.counts([]) is None


def test_passed_once(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nothing runs."""
    runs = []

    def passes(*words: object) -> CheckResult:
        runs.append(words)
        return PASSED

    monkeypatch.setattr(upstream_tests, "_run", passes)
    for _ in range(2):
        assert upstream_tests.check(catalog.load("zlib"), Path("image"), ready, Path("log")) == PASSED
        assert b'"tests": 12' in ready.read_bytes()
    assert len(runs) == 1
    (result_cache.entry(PASSED.key) / "result.json").write_text("damaged")
    assert upstream_tests.check(catalog.load("zlib"), Path("image"), ready, Path("log")) == PASSED
    assert len(runs) == 2


def test_failure_is_not_kept(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> CheckResult:
        raise PackageCheckError("x: upstream's tests fail in the VM (status 1, 3 of 12)")

    monkeypatch.setattr(upstream_tests, "_run", fails)
    with pytest.raises(PackageCheckError, match="3 of 12"):
        upstream_tests.check(catalog.load("zlib"), Path("image"), ready, Path("log"))
    assert not ready.exists()
    assert not result_cache.entry(PASSED.key).exists()
