# SPDX-License-Identifier: Apache-2.0
"""Wheels for tests, in a folder that pip can install from."""

from __future__ import annotations

import zipfile
from pathlib import Path


def make_wheel(folder: Path, version: str, tag: str = "py3-none-any") -> Path:
    """Write an empty wheel of the package nabla-sample."""
    folder.mkdir(exist_ok=True)
    wheel = folder / f"nabla_sample-{version}-{tag}.whl"
    inside = f"nabla_sample-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{inside}/METADATA", f"Metadata-Version: 2.1\nName: nabla-sample\nVersion: {version}\n")
        archive.writestr(f"{inside}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr(f"{inside}/RECORD", "")
    return wheel
