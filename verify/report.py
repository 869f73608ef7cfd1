# SPDX-License-Identifier: Apache-2.0
"""The output of checkers: a table, JSON or JUnit, on standard output."""

from __future__ import annotations

import argparse
import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Finding = TypeVar("Finding", bound="DataclassInstance")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns under a head, without trailing spaces."""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_json(data: Any) -> str:
    """Return data as stable, readable JSON."""
    return json.dumps(data, indent=2, sort_keys=True)


def as_junit(suite: str, cases: Sequence[tuple[str, str, str]]) -> str:
    """Return cases (class, name, problem; an empty problem is a pass) as JUnit XML, without a timestamp."""
    root = ET.Element("testsuite", name=suite, tests=str(len(cases)), failures=str(sum(bool(c[2]) for c in cases)))
    for group, name, problem in cases:
        case = ET.SubElement(root, "testcase", classname=group, name=name)
        if problem:
            ET.SubElement(case, "failure", message=problem)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the format."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--junit", action="store_true", help="print JUnit XML instead of a table")


def conclude(
    name: str,
    options: argparse.Namespace,
    findings: Sequence[Finding],
    sound: Callable[[Finding], bool],
    as_table: Callable[[Sequence[Finding]], str],
    as_junit: Callable[[Sequence[Finding]], str],
) -> int:
    """Print the findings of the checker `name` in the selected format; return the exit status of its command line."""
    if not findings:
        print(f"{name}: no ELF file found", file=sys.stderr)
        return 2
    if options.json:
        print(as_json([asdict(finding) for finding in findings]))
    else:
        print((as_junit if options.junit else as_table)(findings))
    return 0 if all(map(sound, findings)) else 1
