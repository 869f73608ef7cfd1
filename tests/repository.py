# SPDX-License-Identifier: Apache-2.0
"""The files of the repository, for tests of all of them and for keys of results."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from nabla.core.paths import ROOT


def committed() -> list[Path]:
    """The repository's files: as git knows them, new ones included; without git all files except outputs."""
    argv = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        names = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True).stdout
        return sorted(path for name in set(names.split(b"\0")) - {b""} if (path := ROOT / os.fsdecode(name)).is_file())
    return sorted(path for path in ROOT.rglob("*") if path.is_file() and not path.is_relative_to(ROOT / "out"))
