# SPDX-License-Identifier: Apache-2.0
"""How checkers print: a table for people or JSON for programs, both to standard output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns under a head, without trailing blanks."""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_json(data: Any) -> str:
    """Return data as stable, readable JSON."""
    return json.dumps(data, indent=2, sort_keys=True)
