# SPDX-License-Identifier: Apache-2.0
"""Where the record of a recipe's fetched source files lies: out/state/sources/<recipe>.json."""

from __future__ import annotations

from pathlib import Path

from nabla.core.paths import STATE


def record_path(name: str) -> Path:
    """Return the file that names the source files of a recipe by sha256; an input of the step that unpacks them."""
    return STATE / "sources" / f"{name}.json"
