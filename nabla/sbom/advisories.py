# SPDX-License-Identifier: Apache-2.0
"""Databases of vulnerabilities as files: OSV (https://ossf.github.io/osv-schema/) and Alpine's secdb.

OSV comes as one JSON file (an entry, or a list of them), a folder of such, or a zip of such, as osv.dev offers for
download. secdb is a JSON file for each release and repository of Alpine (main.json, community.json).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from nabla.core.errors import NablaError

T = TypeVar("T")
_CVE = re.compile(r"CVE-\d{4}-\d{4,}")


class ScanError(NablaError):
    """A database of vulnerabilities or a bill of materials cannot be read."""


@dataclass(frozen=True)
class Event:
    """One point on the line of versions. `kind`: introduced, fixed, last_affected, limit."""

    kind: str
    version: str


@dataclass(frozen=True)
class Affected:
    """One thing that an advisory is about: versions that are listed, and ranges of versions or commits."""

    ecosystem: str
    name: str
    versions: tuple[str, ...] = ()
    ranges: tuple[tuple[Event, ...], ...] = ()
    repos: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advisory:
    """One entry. `numbers`: its own name and all others it goes by."""

    id: str
    summary: str
    withdrawn: bool
    affected: tuple[Affected, ...]
    numbers: frozenset[str]


@dataclass
class Database:
    """What was read. `alpine`: releases of Alpine that secdb files are about, by file."""

    advisories: list[Advisory] = field(default_factory=list)
    alpine: dict[str, str] = field(default_factory=dict)


class _Event(msgspec.Struct):
    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None
    limit: str | None = None


class _Range(msgspec.Struct):
    type: str
    events: list[_Event] = []
    repo: str | None = None


class _Package(msgspec.Struct):
    ecosystem: str
    name: str


class _Affected(msgspec.Struct):
    package: _Package | None = None
    ranges: list[_Range] | None = None
    versions: list[str] | None = None


class _Osv(msgspec.Struct):
    id: str
    summary: str | None = None
    aliases: list[str] | None = None
    upstream: list[str] | None = None
    withdrawn: str | None = None
    affected: list[_Affected] | None = None


class _SecPackage(msgspec.Struct):
    name: str
    secfixes: dict[str, list[str] | None] | None = None


class _SecEntry(msgspec.Struct):
    pkg: _SecPackage


class _SecDb(msgspec.Struct):
    distroversion: str
    packages: list[_SecEntry]


def read(paths: Sequence[Path]) -> Database:
    """Read all databases. Raises `ScanError` for what is neither OSV nor secdb, or holds nothing."""
    database = Database()
    if not paths:
        raise ScanError("no database of vulnerabilities was named", "doit scan FILE…; docs/sbom.md tells which")
    for path in paths:
        before = len(database.advisories) + len(database.alpine)
        for name, data in _files(path):
            _add(database, name, data)
        if len(database.advisories) + len(database.alpine) == before:
            raise ScanError(f"{path} holds no advisory", "OSV: *.json, a folder or zip of them; Alpine: main.json")
    return database


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*.json")):
                yield str(file), file.read_bytes()
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    if name.endswith(".json"):
                        yield f"{path}: {name}", archive.read(name)
        else:
            yield str(path), path.read_bytes()
    except (OSError, zipfile.BadZipFile) as error:
        raise ScanError(f"cannot read {path}: {error}") from error


def _add(database: Database, name: str, data: bytes) -> None:
    try:
        raw = msgspec.json.decode(data)
        if isinstance(raw, dict) and "packages" in raw and "distroversion" in raw:
            parsed = msgspec.convert(raw, _SecDb)
            database.alpine[name] = parsed.distroversion
            database.advisories += _from_secdb(parsed)
            return
        for entry in raw if isinstance(raw, list) else [raw]:
            database.advisories.append(_from_osv(_checked(entry)))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ScanError(f"{name}: neither OSV nor Alpine's secdb: {error}") from error


def _checked(entry: Any) -> _Osv:
    # Every other object with a name would be an advisory about nothing.
    if not isinstance(entry, dict) or not ({"affected", "withdrawn"} & entry.keys()):
        raise msgspec.DecodeError("an OSV entry has `affected`")
    return msgspec.convert(entry, _Osv)


def _from_osv(entry: _Osv) -> Advisory:
    names = [entry.id, *(entry.aliases or ()), *(entry.upstream or ())]
    # Names like ALPINE-CVE-2024-12345 hold the number too.
    numbers = frozenset(names) | {number for name in names for number in _CVE.findall(name)}
    found = []
    for each in entry.affected or ():
        package = each.package or _Package("GIT", "")
        ranges = each.ranges or []
        found.append(
            Affected(
                package.ecosystem,
                package.name,
                tuple(each.versions or ()),
                tuple(tuple(_events(r.events)) for r in ranges if r.type != "GIT"),
                tuple(r.repo or "" for r in ranges if r.type == "GIT"),
            )
        )
    return Advisory(entry.id, entry.summary or "", entry.withdrawn is not None, tuple(found), numbers)


def _events(events: Sequence[_Event]) -> Iterator[Event]:
    for event in events:
        for kind in ("introduced", "fixed", "last_affected", "limit"):
            version = getattr(event, kind)
            if version is not None:
                yield Event(kind, version)


def _from_secdb(parsed: _SecDb) -> Iterator[Advisory]:
    ecosystem = f"Alpine:{parsed.distroversion}"
    for entry in parsed.packages:
        for version, words in (entry.pkg.secfixes or {}).items():
            for word in words or ():
                names = word.split()
                if not names:
                    continue
                # Version 0 means that no version of the package ever had it.
                events = () if version == "0" else ((Event("introduced", "0"), Event("fixed", version)),)
                affected = Affected(ecosystem, entry.pkg.name, ranges=events)
                yield Advisory(names[0], "", False, (affected,), frozenset(names))
