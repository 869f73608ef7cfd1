# SPDX-License-Identifier: Apache-2.0
"""Results of upstream's own tests: bench/results/upstream-tests.json, from out/check, for the report.

    ./doit.sh check
    python -m bench.upstream_tests

These tests take minutes, so a release does not run them again. Their results are committed, with the digest of the
tested files.
"""

from __future__ import annotations

import argparse

from bench import common
from nabla.core import log
from nabla.core.errors import NablaError
from nabla.core.paths import relative
from nabla.core.results import read
from nabla.packages import catalog
from nabla.packages.upstream_tests import CheckResult, record_path
from nabla.report.benchmarks import UPSTREAM, UpstreamTests, as_json


def main() -> int:
    """Collect all results."""
    argparse.ArgumentParser(prog="bench.upstream_tests", description=(__doc__ or "").splitlines()[0]).parse_args()
    tests = []
    paths = [path for loaded in catalog.recipes() if (path := record_path(loaded.name)).is_file()]
    for path in paths:
        result = read(path, CheckResult, f"run it again: ./doit.sh check:{path.stem}")
        fields = (result.recipe, result.version, result.tree, result.tests, result.failed)
        tests.append(UpstreamTests(*fields))
    if not tests:
        raise NablaError("out/check holds no results", "run: ./doit.sh check")
    UPSTREAM.write_bytes(as_json(tests))
    log.info(f"{relative(UPSTREAM)}: {', '.join(each.recipe for each in tests)}")
    return 0


if __name__ == "__main__":
    common.start(main)
