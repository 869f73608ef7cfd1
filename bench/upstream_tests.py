# SPDX-License-Identifier: Apache-2.0
"""What came of upstream's own tests: bench/results/upstream-tests.json, from out/check, for the report.

    ./doit.sh check
    python -m bench.upstream_tests

These tests take minutes to an hour and tell times, so that a release cannot run them again while it is made and stay
the same; what came of them is committed instead, each with the digest of the files that were tested.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

import msgspec

from bench import common
from nabla import log
from nabla.errors import NablaError
from nabla.package_check import CheckResult
from nabla.paths import OUT, relative
from nabla.report_bench import UPSTREAM, UpstreamTests, as_json

# A line with a number of tests, errors or the like; and one with a time in it, which is not the same twice.
_COUNTS = re.compile(r"\d.*\b(tests?|errors?|passed|failed|ok)\b|\b(tests?|errors?|passed|failed)\b.*\d", re.IGNORECASE)
_TIMES = re.compile(
    r"\d:\d\d|\d\s*(ms|s|sec|secs|seconds?|min|minutes?)\b|\b(time|duration|elapsed|load)\b", re.IGNORECASE
)


def summary(output: Sequence[str]) -> str:
    """Return what the last lines of a test suite say of numbers, without times. Raises `NablaError` without."""
    found = [line.strip().strip("=") for line in output if _COUNTS.search(line) and not _TIMES.search(line)]
    if not found:
        raise NablaError("a test suite's last lines have no numbers of tests", "\n".join(output))
    return "; ".join(found)


def main() -> int:
    """Gather all results."""
    argparse.ArgumentParser(prog="bench.upstream_tests", description=(__doc__ or "").splitlines()[0]).parse_args()
    folder = OUT / "check"
    common.need(folder)
    results = [msgspec.json.decode(path.read_bytes(), type=CheckResult) for path in sorted(folder.glob("*.json"))]
    tests = [
        UpstreamTests(
            recipe=each.recipe,
            version=each.version,
            tree=each.tree,
            passed=each.status == 0,
            summary=summary(each.output),
        )
        for each in results
    ]
    UPSTREAM.write_bytes(as_json(tests))
    log.info(f"{relative(UPSTREAM)}: {', '.join(each.recipe for each in tests)}")
    return 0


if __name__ == "__main__":
    common.start(main)
