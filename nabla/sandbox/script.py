# SPDX-License-Identifier: Apache-2.0
"""Report the line in which the shell script of a build step failed.

dash, the shell of the sandbox, does not report the failed command. An assignment of the line number therefore precedes
each command at the outermost level of a script, and a trap prints the number if the script fails.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nabla.core.process import run

_HERE_DOCUMENT = re.compile(r"<<-?\s*[\\'\"]?(\w+)")
_CONTINUED = re.compile(r"(?<!\\)(\\\\)*\\$")
_REPORT = "this step failed in line "
_TRAP = f"""trap '[ $? = 0 ] || echo "{_REPORT}$nabla_line" >&2' EXIT; nabla_line=1"""
_PARSE = 'for text; do if /bin/sh -n -c "$text" 2>/dev/null; then echo 1; else echo 0; fi; done'


def traced(script: str) -> str:
    """Return an equivalent script that reports the line of the command that fails."""
    lines = script.split("\n")
    starts = _command_starts(lines)
    marked = (f"nabla_line={number}\n{line}" if number in starts else line for number, line in enumerate(lines, 1))
    return "\n".join([_TRAP, *marked])


def failed_line(output: Sequence[str]) -> int | None:
    """Return the line that a failed script reported in its output."""
    numbers = [line.removeprefix(_REPORT) for line in output if line.startswith(_REPORT)]
    return int(numbers[-1]) if numbers and numbers[-1].isdecimal() else None


def without_report(output: Sequence[str]) -> list[str]:
    """Return the output without the report of the line."""
    return [line for line in output if not line.startswith(_REPORT)]


def _command_starts(lines: Sequence[str]) -> set[int]:
    """Return the numbers of the lines at which a command of the outermost level starts."""
    prefixes = ["\n".join(lines[:count]) for count in range(len(lines))]
    complete = run(["/bin/sh", "-c", _PARSE, "sh", *prefixes]).stdout.split()
    starts = set()
    delimiter = None
    for number, line in enumerate(lines, 1):
        if delimiter is not None:
            # A shell accepts an unterminated here-document. A false match only makes the report less precise.
            if line.strip() == delimiter:
                delimiter = None
            continue
        follows = number > 1 and _CONTINUED.search(lines[number - 2]) is not None
        if complete[number - 1] == "1" and not follows and line.strip() and not line.lstrip().startswith("#"):
            starts.add(number)
        if match := _HERE_DOCUMENT.search(line):
            delimiter = match[1]
    return starts
