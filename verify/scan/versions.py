# SPDX-License-Identifier: Apache-2.0
"""Compare versions: Alpine's by the real apk, Python's and the kernel's by `packaging`."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from verify.release import tools
from verify.scan.advisories import Event, ScanError

Compare = Callable[[str, str], int]
_BATCH = 2000  # arguments of one apk, far below the limit of a command line
_PLAIN = re.compile(r"\d[A-Za-z0-9._+-]*")


class IncomparableError(Exception):
    """A version is invalid in its ecosystem."""


class ApkOrder:
    """apk's order of versions. `learn` compares thousands of pairs by one call. `root`: the sandbox with apk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[tuple[str, str], int] = {}
        self._valid: dict[str, bool] = {}

    def compare(self, one: str, other: str) -> int:
        """Return -1, 0 or 1 for a pair passed to `learn`. Raises `IncomparableError` if apk rejects either version."""
        for version in (one, other):
            if not self._valid.get(version, False):
                raise IncomparableError(f"{version!r} is not a version for apk")
        return self._known[one, other]

    def learn(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Compare pairs, so that `compare` can return their order. Raises `ScanError`, `ToolError`."""
        wanted = sorted({*pairs} - self._known.keys())
        versions = {version for pair in wanted for version in pair}
        self._check(sorted(versions - self._valid.keys()))
        wanted = [pair for pair in wanted if all(self._valid[version] for version in pair)]
        for at in range(0, len(wanted), _BATCH):
            self._ask(wanted[at : at + _BATCH])

    def _check(self, versions: Sequence[str]) -> None:
        plain = [version for version in versions if _PLAIN.fullmatch(version)]
        self._valid |= dict.fromkeys(versions, False)
        for at in range(0, len(plain), _BATCH):
            batch = plain[at : at + _BATCH]
            # It prints invalid versions, and fails if there are any.
            result = self._apk(["version", "--check", *batch])
            bad = set(result.stdout.split())
            if not bad <= set(batch) or (result.returncode != 0) != bool(bad):
                raise ScanError(f"apk cannot check versions: {(result.stderr or result.stdout).strip()[:200]}")
            self._valid |= {version: version not in bad for version in batch}

    def _ask(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Compare with a generated database of packages p0, p1 …: apk prints those that are older, or equal."""
        with tempfile.TemporaryDirectory(prefix="nabla-versions-") as scratch:
            database = Path(scratch) / "lib" / "apk" / "db"
            database.mkdir(parents=True)
            blocks = [_block(number, version) for number, (version, _) in enumerate(pairs)]
            (database / "installed").write_text("".join(blocks))
            for name in ("lib/apk/db/triggers", "etc/apk/world"):
                (Path(scratch) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(scratch) / name).touch()
            for sign, answer in (("<", -1), ("=", 0)):
                wanted = [f"p{number}{sign}{version}" for number, (_, version) in enumerate(pairs)]
                options = ["--root", "/image", "--no-network", "--repositories-file", "/dev/null"]
                # The exit status is the number of packages that it does not find.
                result = self._apk([*options, "info", "-e", *wanted], {"/image": Path(scratch)})
                if result.stderr.strip():
                    raise ScanError(f"apk cannot compare versions: {result.stderr.strip()[:200]}")
                for name in result.stdout.split():
                    self._known[pairs[int(name[1:])]] = answer
        for pair in pairs:
            self._known.setdefault(pair, 1)

    def _apk(self, argv: Sequence[str], folders: Mapping[str, Path] | None = None) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory(prefix="nabla-versions-") as work:
            return tools.run(self._root, ["/sbin/apk", *argv], folders or {}, Path(work))


def _block(number: int, version: str) -> str:
    # apk treats packages with the same checksum as one package.
    checksum = base64.b64encode(hashlib.sha1(str(number).encode(), usedforsecurity=False).digest()).decode()
    return f"C:Q1{checksum}\nP:p{number}\nV:{version}\nA:x86_64\nS:1\nI:1\nT:-\nL:-\n\n"


def compare_pep440(one: str, other: str) -> int:
    """Compare two versions according to PEP 440, which also orders the kernel's. Raises `IncomparableError`."""
    from packaging.version import InvalidVersion, Version

    try:
        first, second = Version(one), Version(other)
    except InvalidVersion as error:
        raise IncomparableError(str(error)) from error
    return (first > second) - (first < second)


def within(version: str, events: Sequence[Event], compare: Compare) -> bool:
    """Return whether a version is in a range, by the rule of the OSV schema. Raises `IncomparableError`."""

    def order(one: Event, other: Event) -> int:
        if "0" in (one.version, other.version):
            return (one.version != "0") - (other.version != "0")
        return compare(one.version, other.version)

    inside = False
    for event in sorted(events, key=functools.cmp_to_key(order)):
        position = 1 if event.version == "0" else compare(version, event.version)
        if event.kind == "introduced" and position >= 0:
            inside = True
        elif (event.kind in ("fixed", "limit") and position >= 0) or (event.kind == "last_affected" and position > 0):
            inside = False
    return inside


def pairs_of(version: str, events: Sequence[Event]) -> set[tuple[str, str]]:
    """Return all pairs of versions that `within` may compare."""
    points = sorted({event.version for event in events} - {"0"})
    return {(version, point) for point in points} | {(one, other) for one in points for other in points if one != other}
