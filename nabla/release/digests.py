# SPDX-License-Identifier: Apache-2.0
"""The sums that every build of this commit must have: digests/<group>.sha256, committed, in sha256sum's form.

They are of forms that depend neither on a user's keys nor on the version of a release: packages and their index without
signatures, bills of materials and container image of a version 0, made of those. Such forms lie in out/reference; what
is the same for everybody anyway is summed where it lies. So `sha256sum -c digests/*.sha256` checks a built checkout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nabla.core import digest, files
from nabla.core.errors import NablaError
from nabla.core.paths import ROOT, relative

DIGESTS = ROOT / "digests"
VERSION = "0"  # of whatever has one, in the forms that are compared

_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<path>out/\S+)")
_SHOWN = 10
_RENEW = "if the change is meant, run `doit lock:digests` and commit what it writes with the change that causes it"
_ELSE = "if not, `doit repro` tells whether two builds differ here"


class DigestError(NablaError):
    """What was built has not the committed sums, or these are malformed."""


def file_of(group: str) -> Path:
    """Return the committed file of a group of artifacts."""
    return DIGESTS / f"{group}.sha256"


def sums(paths: Sequence[Path]) -> dict[str, str]:
    """Return path -> sha256 of files, and of all files below folders. Raises `DigestError` where one is missing."""
    found: dict[str, str] = {}
    for path in paths:
        if not path.exists():
            raise DigestError(f"{relative(path)} was not built")
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        found.update((relative(each), digest.sha256_file(each)) for each in files if not each.is_symlink())
    return dict(sorted(found.items()))


def read(group: str) -> dict[str, str]:
    """Return path -> sha256 of a committed file. Raises `DigestError` naming the line that is wrong."""
    path = file_of(group)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DigestError(f"{relative(path)} is missing", _RENEW) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None or match["path"] in found:
            raise DigestError(f"{relative(path)}:{number}: not `sha256  path`, or a path that stands twice", _RENEW)
        found[match["path"]] = match["sha256"]
    return found


def write(group: str, found: Mapping[str, str]) -> list[str]:
    """Write the file of a group; return a line for each sum that changed. An equal file is left alone."""
    try:
        before = read(group)
    except DigestError:
        before = {}
    path = file_of(group)
    text = "".join(f"{found[name]}  {name}\n" for name in sorted(found))
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        files.write(path, text)
    return [f"{name}: {said}" for name, said in differences(before, found)]


def differences(expected: Mapping[str, str], got: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return each path whose sum differs, with a few words on how, sorted."""
    lines = []
    for name in sorted({*expected, *got}):
        if name not in got:
            lines.append((name, "is no longer made"))
        elif name not in expected:
            lines.append((name, f"is new: {got[name]}"))
        elif expected[name] != got[name]:
            lines.append((name, f"expected {expected[name]}, got {got[name]}"))
    return lines


def check(found: Mapping[str, Mapping[str, str]]) -> int:
    """Compare the sums of all groups with the committed ones; return how many there are. Raises `DigestError`."""
    wrong: list[tuple[str, str]] = []
    for group, got in found.items():
        wrong += differences(read(group), got)
    stale = sorted({path.stem for path in DIGESTS.glob("*.sha256")} - set(found))
    if stale:
        raise DigestError(f"{relative(file_of(stale[0]))}: there is no such group of artifacts", "remove it")
    if wrong:
        shown = [f"{name}: {said}" for name, said in wrong[:_SHOWN]]
        shown += [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DigestError(
            f"not the bytes that this commit promises: {wrong[0][0]}{more}", "\n".join([*shown, _RENEW, _ELSE])
        )
    return sum(len(got) for got in found.values())
