# SPDX-License-Identifier: Apache-2.0
"""The quick start for users who want a sandbox, word for word, with a published release."""

from __future__ import annotations

import subprocess
from pathlib import Path

from nabla.sources import recipe
from tests.conftest import ROOT

from ..test_quick_starts import run


def test_sandbox(built: Path, tmp_path: Path) -> None:
    version = built.name
    subprocess.run(["tar", "-C", built.parent, "-cf", tmp_path / f"nabla-linux-{version}.tar", version], check=True)
    alpine, untrusted, result = run(ROOT / "docs" / "start-sandbox.md", tmp_path, {"VERSION": version}).splitlines()
    assert alpine.startswith(f"{recipe.load('alpine-base').version}.")
    assert (untrusted, result) == ("42", "42")
