# SPDX-License-Identifier: Apache-2.0
"""Read and replace a file that a patch adds, in the text of a `git format-patch`.

The replacement changes the lines of the file, the count of its hunk, the name of the blob and the diffstat, so that the
result equals the output of git.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nabla.core.errors import PatchError
from nabla.core.paths import relative

_STAT = re.compile(r"^ (?P<name>\S+) +\| +(?P<count>\d+) (?P<graph>[+-]*)$", re.MULTILINE)
_TOTAL = re.compile(r"^ \d+ files? changed.*$", re.MULTILINE)
_WIDTH = 72  # of git format-patch


@dataclass(frozen=True)
class Added:
    """A file that a patch adds: the patch, the file's path in the tree, and its text."""

    patch: Path
    path: str
    text: str


def find(patches: Sequence[Path], path: str) -> Added:
    """Return the patch of a series that adds `path`. Raises `PatchError` if none does or another one changes it."""
    header = re.compile(rf"^diff --git a/{re.escape(path)} b/{re.escape(path)}$", re.MULTILINE)
    touching = [patch for patch in patches if header.search(patch.read_text(encoding="utf-8"))]
    if len(touching) != 1:
        names = ", ".join(patch.name for patch in touching) or "none"
        raise PatchError(f"exactly one patch must add {path}; patches that change it: {names}")
    text = touching[0].read_text(encoding="utf-8")
    part = _part(touching[0], text, path)
    lines = text[part["start"] : part["end"]].splitlines()
    return Added(touching[0], path, "".join(line.removeprefix("+") + "\n" for line in lines))


def replace(added: Added, text: str) -> str:
    """Return the patch with another text of the file. Raises `PatchError`."""
    if not text.endswith("\n"):
        raise PatchError(f"{added.path}: the text must end with a line feed")
    old = added.patch.read_text(encoding="utf-8")
    part = _part(added.patch, old, added.path)
    lines = text.splitlines()
    data = text.encode()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    new = (
        old[: part["blob"]]
        + blob[: part["digits"]]
        + old[part["blob"] + part["digits"] : part["count"]]
        + (f"1,{len(lines)}" if len(lines) > 1 else "1")
        + old[part["count_end"] : part["start"]]
        + "".join(f"+{line}\n" for line in lines)
        + old[part["end"] :]
    )
    return _restat(new, added.path, len(lines)) if len(lines) != added.text.count("\n") else new


def _part(patch: Path, text: str, path: str) -> dict[str, int]:
    """Return the positions of the blob's name, the hunk's count and the file's lines in the patch."""
    match = re.search(
        rf"^diff --git a/{re.escape(path)} b/{re.escape(path)}\nnew file mode 100644\n"
        rf"index 0+\.\.(?P<blob>[0-9a-f]+)\n--- /dev/null\n\+\+\+ b/{re.escape(path)}\n"
        r"@@ -0,0 \+(?P<count>1(?:,\d+)?) @@\n(?P<lines>(?:\+.*\n)+)",
        text,
        re.MULTILINE,
    )
    if not match:
        raise PatchError(f"{relative(patch)} does not add {path} as a new file of one hunk")
    lines = match["lines"].count("\n")
    counted = int(match["count"].partition(",")[2] or 1)
    if lines != counted:
        raise PatchError(f"{relative(patch)}: {path} has {lines} lines, its hunk says {counted}")
    return {
        "blob": match.start("blob"),
        "digits": len(match["blob"]),
        "count": match.start("count"),
        "count_end": match.end("count"),
        "start": match.start("lines"),
        "end": match.end("lines"),
    }


def _restat(text: str, path: str, lines: int) -> str:
    """Update the diffstat; git scales all bars by the longest one."""
    head, mark, rest = text.partition("\ndiff --git ")
    added: dict[str, int] = {}
    removed: dict[str, int] = {}
    for name, part in _parts(mark + rest):
        added[name] = len(re.findall(r"^\+(?!\+\+ )", part, re.MULTILINE))
        removed[name] = len(re.findall(r"^-(?!-- )", part, re.MULTILINE))
    assert added[path] == lines
    shown = [match["name"] for match in _STAT.finditer(head)]
    if set(shown) != set(added):
        return text  # shortened names stay unchanged
    most = max(added[name] + removed[name] for name in shown)
    names, digits = max(map(len, shown)), len(str(most))
    room = _WIDTH - names - digits - 6

    def line(match: re.Match[str]) -> str:
        plus, minus = added[match["name"]], removed[match["name"]]
        if most > room:
            plus, minus = _scale(plus, minus, room, most)
        total = added[match["name"]] + removed[match["name"]]
        return f" {match['name']:{names}} | {total:{digits}} {'+' * plus}{'-' * minus}"

    head = _STAT.sub(line, head)
    plus, minus = sum(added.values()), sum(removed.values())
    words = [f"{len(shown)} file{'s' * (len(shown) > 1)} changed"]
    words += [f"{plus} insertion{'s' * (plus != 1)}(+)"] if plus else []
    words += [f"{minus} deletion{'s' * (minus != 1)}(-)"] if minus else []
    return _TOTAL.sub(" " + ", ".join(words), head, count=1) + mark + rest


def _parts(diffs: str) -> list[tuple[str, str]]:
    parts = re.split(r"^diff --git ", diffs, flags=re.MULTILINE)[1:]
    return [(part.partition("\n")[0].rpartition(" b/")[2], part) for part in parts]


def _scale(plus: int, minus: int, room: int, most: int) -> tuple[int, int]:
    """Scale as scale_linear() in git's diff.c: a count that is not zero has at least one character."""

    def linear(count: int) -> int:
        return 1 + count * (room - 1) // most if count else 0

    total = linear(plus + minus)
    if total < 2 and plus and minus:
        total = 2
    if plus < minus:
        plus = linear(plus)
        return plus, total - plus
    minus = linear(minus)
    return total - minus, minus
