# SPDX-License-Identifier: Apache-2.0
"""Results of tests that build for minutes, stored under the digests of the tested files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nabla.core import digest, paths
from nabla.engine import result_cache
from tests.conftest import ROOT
from tests.repository import committed

# The user's, which tests do not see otherwise.
CACHE = paths.cache_dir()
# No file here becomes part of an artifact that the tests build twice.
_OTHERS = ("bench", "demo", "digests", "docs", "tests/fuzz", "tests/integration", "tests/unit", ".ci", ".github")


def run_once(test: str, check: Callable[[], None], folder: Path, *more: Path) -> None:
    """Run `check`, unless it has passed for the same sources; `fresh=1` repeats it.

    The sources are all committed files that may end up in an artifact, and `more`. `folder` is for temporary files.
    """
    parts = {path.relative_to(ROOT): path for path in committed()}
    sources = {str(name): path for name, path in parts.items() if not _is_other(name)}
    sources |= {str(path.relative_to(ROOT)): path for path in more}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLA_CACHE", str(CACHE))
        key = result_cache.key("test", test, {name: digest.sha256_file(path) for name, path in sources.items()})
        with result_cache.lock(key):
            if result_cache.is_reusable() and result_cache.find(key):
                return
            began = time.monotonic()
            check()
            result = folder / "result.json"
            result.write_text(json.dumps({"test": test, "seconds": round(time.monotonic() - began)}), encoding="utf-8")
            result_cache.add(key, f"passed: {test}", {"result.json": result})


def _is_other(name: Path) -> bool:
    return name.suffix == ".md" or name.parent == Path("tests") or any(name.is_relative_to(other) for other in _OTHERS)
