# SPDX-License-Identifier: Apache-2.0
"""How checkers print: a table for people, JSON or JUnit for programs, all to standard output."""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
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


def as_junit(suite: str, cases: Sequence[tuple[str, str, str]]) -> str:
    """Return cases (class, name, problem; an empty problem is a pass) as JUnit XML, without a time stamp."""
    root = ET.Element("testsuite", name=suite, tests=str(len(cases)), failures=str(sum(bool(c[2]) for c in cases)))
    for group, name, problem in cases:
        case = ET.SubElement(root, "testcase", classname=group, name=name)
        if problem:
            ET.SubElement(case, "failure", message=problem)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the form."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--junit", action="store_true", help="print JUnit XML instead of a table")
