# SPDX-License-Identifier: Apache-2.0
"""Read files of measured results, bench/results/*.json."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from nabla.core.errors import ConfigError
from nabla.core.paths import relative

_Read = TypeVar("_Read")


def read(path: Path, kind: type[_Read], hint: str) -> _Read:
    """Read one file of results. Raises `ConfigError` with `hint` if it is absent or malformed."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise ConfigError(f"there is no {relative(path)}", hint) from None
    except msgspec.DecodeError as problem:
        raise ConfigError(f"{relative(path)}: {problem}", hint) from None
