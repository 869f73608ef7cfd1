# SPDX-License-Identifier: Apache-2.0
"""The committed sums of all builds of a commit: digests/<group>.sha256, in the format of sha256sum.

The summed files depend neither on a user's keys nor on the version of a release. out/reference contains reference
versions of artifacts that do: packages and their index without signatures, and the bills of materials and the container
image of a version 0. `sha256sum -c digests/*.sha256` checks a built checkout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nabla.core import digest, files
from nabla.core.errors import NablaError
from nabla.core.paths import ROOT, relative

DIGESTS = ROOT / "digests"

_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<path>out/\S+)")
_SHOWN = 10
_RENEW = "if the change is intended, run `doit lock:digests` and commit its output with the change that causes it"
_ELSE = "otherwise, `doit repro` checks whether two builds differ on this host"


class DigestError(NablaError):
    """An artifact does not have its committed sum, or the sums are malformed."""


def file_of(group: str) -> Path:
    """Return the committed file of a group of artifacts."""
    return DIGESTS / f"{group}.sha256"


def sums(paths: Sequence[Path]) -> dict[str, str]:
    """Return path -> sha256 of files, and of all files below folders. Raises `DigestError` if one is missing."""
    digests: dict[str, str] = {}
    for path in paths:
        if not path.exists():
            raise DigestError(f"{relative(path)} was not built")
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        digests.update((relative(each), digest.sha256_file(each)) for each in files if not each.is_symlink())
    return dict(sorted(digests.items()))


def read(group: str) -> dict[str, str]:
    """Return path -> sha256 of a committed file. Raises `DigestError` for a malformed line."""
    path = file_of(group)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DigestError(f"{relative(path)} is missing", _RENEW) from None
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None or match["path"] in sums:
            raise DigestError(f"{relative(path)}:{number}: not `sha256  path`, or a duplicate path", _RENEW)
        sums[match["path"]] = match["sha256"]
    return sums


def write(group: str, sums: Mapping[str, str]) -> list[str]:
    """Write the file of a group if it changes; return a line for each changed sum."""
    try:
        before = read(group)
    except DigestError:
        before = {}
    path = file_of(group)
    text = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        files.write(path, text)
    return [f"{name}: {change}" for name, change in differences(before, sums)]


def differences(expected: Mapping[str, str], got: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return each path whose sum differs, with a description of the difference, sorted."""
    lines = []
    for name in sorted({*expected, *got}):
        if name not in got:
            lines.append((name, "is no longer built"))
        elif name not in expected:
            lines.append((name, f"is new: {got[name]}"))
        elif expected[name] != got[name]:
            lines.append((name, f"expected {expected[name]}, got {got[name]}"))
    return lines


def check(sums: Mapping[str, Mapping[str, str]]) -> int:
    """Compare the sums of all groups with the committed ones; return their number. Raises `DigestError`."""
    wrong: list[tuple[str, str]] = []
    for group, got in sums.items():
        wrong += differences(read(group), got)
    stale = sorted({path.stem for path in DIGESTS.glob("*.sha256")} - set(sums))
    if stale:
        raise DigestError(f"{relative(file_of(stale[0]))}: there is no such group of artifacts", "remove it")
    if wrong:
        shown = [f"{name}: {change}" for name, change in wrong[:_SHOWN]]
        shown += [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DigestError(
            f"an artifact differs from the committed sum: {wrong[0][0]}{more}", "\n".join([*shown, _RENEW, _ELSE])
        )
    return sum(len(got) for got in sums.values())
