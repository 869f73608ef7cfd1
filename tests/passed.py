# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin of `doit test`: a file whose tests have passed with the same digests does not run again.

The result of a file is in the user's result cache, like the results of `check:` tasks. Its key consists of

* the digests of all files of the checkout, except other test files that it does not import,
* the digests of the built artifacts (DIGEST_GROUPS),
* the host: its kernel, its processor and its installed packages.

The controller of pytest-xdist selects the files before its workers collect, and stores the results when they have
finished. `doit fresh=1 test` runs all files, and so does pytest itself.
"""

from __future__ import annotations

import json
import platform
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nabla.core import digest, files, paths
from nabla.core.artifacts import DIGEST_GROUPS
from nabla.core.paths import ROOT
from nabla.engine import code, result_cache
from tests.repository import committed

_TESTS = ROOT / "tests"
# The packages of Debian's kind, or the version of another host.
_HOST = (Path("/var/lib/dpkg/status"), Path("/etc/os-release"))
_PROCESSOR = ("model name", "flags", "Features", "CPU part")


def keys() -> Mapping[str, str]:
    """Return test file, relative to the checkout -> the key of its result."""
    sources = {path.relative_to(ROOT).as_posix(): path for path in committed()}
    tests = [name for name, path in sources.items() if path.is_relative_to(_TESTS) and path.name.startswith("test_")]
    common = [_sums(path for name, path in sources.items() if name not in tests), _artifacts(), _host()]
    return {
        name: result_cache.key("file of tests", name, common, _sums(sources[each] for each in _imported(name, tests)))
        for name in tests
    }


def _imported(name: str, tests: Sequence[str]) -> Iterator[str]:
    """Yield a test file and the other test files that it imports."""
    closure = code.closure(name.removesuffix(".py").replace("/", "."))
    return (each for each in tests if each in closure)


def _sums(paths: Iterator[Path]) -> list[tuple[str, str]]:
    return [(path.relative_to(ROOT).as_posix(), digest.sha256_file(path)) for path in paths]


def _artifacts() -> list[tuple[str, str | None]]:
    paths = (path for group in DIGEST_GROUPS.values() for path in group)
    return [(path.relative_to(ROOT).as_posix(), digest.path_digest(path)) for path in paths]


def _host() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    processor = sorted({line for line in lines if line.startswith(_PROCESSOR)})
    packages = next((digest.sha256_file(path) for path in _HOST if path.exists()), "")
    return [platform.release(), platform.python_version(), packages, *processor]


class Controller:
    """Select the files in the process that starts the workers, and store their results."""

    def __init__(self) -> None:
        self.keys = keys()
        self.passed: dict[str, int] = {}
        self.collected: Counter[str] = Counter()
        self.succeeded: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self.others: set[str] = set()
        if result_cache.is_reusable():
            for name, key in self.keys.items():
                if folder := result_cache.find(key):
                    self.passed[name] = json.loads((folder / "result.json").read_text(encoding="utf-8"))["tests"]

    def pytest_configure_node(self, node: Any) -> None:
        """Pass the files not to collect to a worker."""
        node.workerinput["passed"] = sorted(self.passed)

    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Count the tests of each file, once: all workers collect the same."""
        self.collected = Counter(each.partition("::")[0] for each in ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count passed tests, and record files with any other result."""
        name = report.nodeid.partition("::")[0]
        self.seconds[name] += report.duration
        if not report.passed:
            self.others.add(name)
        elif report.when == "call":
            self.succeeded[name] += 1

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Store the results of the files whose tests have all passed, unless a file has changed since the start."""
        if self.passed and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
        now = keys()
        for name, tests in self.collected.items():
            key = self.keys[name]
            if name in self.others or self.succeeded[name] != tests or now.get(name) != key:
                continue
            with files.scratch(paths.cache_dir() / "tmp") as folder, result_cache.lock(key):
                result = folder / "result.json"
                record = {"file": name, "tests": tests, "seconds": round(self.seconds[name], 1)}
                result.write_text(json.dumps(record), encoding="utf-8")
                result_cache.add(key, f"passed: {name}", {"result.json": result})

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Report the files that did not run."""
        if self.passed:
            tests = f"{sum(self.passed.values())} tests in {len(self.passed)} files"
            terminalreporter.write_line(
                f"{tests} have passed before, for the same digests: `doit fresh=1 test` repeats them"
            )


class Worker:
    """Leave out the files that the controller names."""

    def __init__(self, passed: Sequence[str]) -> None:
        self.passed = {ROOT / name for name in passed}

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Ignore a file whose tests have passed."""
        return True if collection_path in self.passed else None


def pytest_configure(config: pytest.Config) -> None:
    """Register the part of this process."""
    given = getattr(config, "workerinput", None)
    config.pluginmanager.register(Controller() if given is None else Worker(given["passed"]), "passed-tests")
