# SPDX-License-Identifier: Apache-2.0
"""Write another version into the text of a recipe, with its comments and its layout as they were."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nabla.sources.recipe import Origin


def rewrite(text: str, number: int, origins: Sequence[Origin | None], version: str) -> str:
    """Return the recipe's text with `version` and, for its source of that number (from 0), these origins.

    None is an origin that goes, with its table. What an origin does not say (a size) it will not say then. The revision
    of the package starts again at 0.
    """
    # Imported when needed: it takes as long to load as all of doit.
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
            # One by one: the list keeps its lines.
            for index, item in enumerate(value):
                table[key][index] = item
        else:
            table[key] = value


def mentions(text: str, version: str) -> list[str]:
    """Return the lines, with their numbers, that still name a version: a script of the recipe, a comment."""
    whole = re.compile(rf"(?<![\w.]){re.escape(version)}(?![\w]|\.\d)")
    return [f"{number}: {line.strip()}" for number, line in enumerate(text.splitlines(), 1) if whole.search(line)]
