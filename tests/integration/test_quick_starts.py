# SPDX-License-Identifier: Apache-2.0
"""The quick starts for packagers and kernel developers, word for word, in a copy of the checkout.

The sandbox's, which starts from a release, is tested in release/test_quick_start.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nabla.sources import recipe
from tests.conftest import ROOT
from tests.repository import committed
from tests.results import CACHE, run_once

# One screen.
MOST_LINES = 60


def script_of(page: Path) -> str:
    """Return the lines of a quick start; each has one block of them."""
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    (script,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(script)


def run(page: Path, folder: Path, environment: dict[str, str]) -> str:
    """Run a quick start in a folder; returns its standard output."""
    result = subprocess.run(
        ["/bin/sh", "-eu", "-c", script_of(page)],
        cwd=folder,
        env={**os.environ, "NABLA_CACHE": str(CACHE), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout without build outputs; the user's cache contains the results."""
    root = tmp_path / "a checkout"
    for path in committed():
        target = root / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target, follow_symlinks=False)
    return root


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_packager(checkout: Path, tmp_path: Path) -> None:
    page = ROOT / "docs" / "start-packager.md"

    def check() -> None:
        assert run(page, checkout, {}).splitlines()[-1] == "hello from the guest"

    run_once("the quick start of packagers", check, tmp_path, Path(__file__), page)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kernel_developer(checkout: Path, tmp_path: Path) -> None:
    page = ROOT / "docs" / "start-kernel.md"

    def check() -> None:
        author = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        before = {path.name: path.read_bytes() for path in (ROOT / "patches" / "linux").iterdir()}
        output = run(page, checkout, author)
        assert output.splitlines()[-1] == f"{recipe.load('linux').version}-mine"
        after = {path.name: path.read_bytes() for path in (checkout / "patches" / "linux").iterdir()}
        (new,) = sorted(after.keys() - before.keys())
        assert b"EXTRAVERSION = -mine" in after.pop(new)
        assert after == before

    run_once("the quick start of kernel developers", check, tmp_path, Path(__file__), page)
