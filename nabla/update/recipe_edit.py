# SPDX-License-Identifier: Apache-2.0
"""Replace the version in the text of a recipe; comments and layout stay."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nabla.sources.recipe import Origin


def rewrite(text: str, number: int, origins: Sequence[Origin | None], version: str) -> str:
    """Return the recipe's text with `version` and, for its source of that number (from 0), these origins.

    None removes an origin with its table. A key that an origin lacks (a size) is not added. The revision of the package
    starts again at 0.
    """
    # Imported when needed: the import takes as long as that of doit.
    import tomlkit

    document: Any = tomlkit.parse(text)
    document["version"] = version
    tables = document["source"][number]["origin"]
    for index in reversed(range(len(origins))):
        origin = origins[index]
        if origin is None:
            del tables[index]
        else:
            _fill(tables[index], msgspec.to_builtins(origin))
    if document.get("package", {}).get("revision"):
        document["package"]["revision"] = 0
    return tomlkit.dumps(document)


def _fill(table: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in table or table[key] == value:
            continue
        if isinstance(value, Mapping):
            _fill(table[key], value)
        elif isinstance(value, list | tuple):
            # One by one, so that the list keeps its layout.
            for index, item in enumerate(value):
                table[key][index] = item
        else:
            table[key] = value


def mentions(text: str, version: str) -> list[str]:
    """Return the lines that still contain a version, for example in a script or a comment, with their numbers."""
    whole = re.compile(rf"(?<![\w.]){re.escape(version)}(?![\w]|\.\d)")
    return [f"{number}: {line.strip()}" for number, line in enumerate(text.splitlines(), 1) if whole.search(line)]
