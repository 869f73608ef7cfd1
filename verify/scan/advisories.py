# SPDX-License-Identifier: Apache-2.0
"""Read vulnerability databases from files: OSV (https://ossf.github.io/osv-schema/) and Alpine's secdb.

An OSV database is a JSON file with one entry or a list of entries, or a folder or zip archive of such files, as osv.dev
publishes. secdb is one JSON file for each release and repository of Alpine (main.json, community.json).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

_CVE = re.compile(r"CVE-\d{4}-\d{4,}")


class ScanError(Exception):
    """A database of vulnerabilities or a bill of materials cannot be read. `hint`: the remedy."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Event:
    """A version at which a range begins or ends. `kind`: introduced, fixed, last_affected, limit."""

    kind: str
    version: str


@dataclass(frozen=True)
class Affected:
    """A package in an advisory: affected versions as a list and as ranges, and repositories with affected commits."""

    ecosystem: str
    name: str
    versions: tuple[str, ...] = ()
    ranges: tuple[tuple[Event, ...], ...] = ()
    repos: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advisory:
    """One entry of a database. `numbers`: its identifier and its aliases."""

    id: str
    summary: str
    withdrawn: bool
    affected: tuple[Affected, ...]
    numbers: frozenset[str]


@dataclass
class Database:
    """The contents of all database files. `alpine`: secdb file -> release of Alpine."""

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
    """Read all databases. Raises `ScanError` for a file in neither format, or without an entry."""
    database = Database()
    if not paths:
        raise ScanError("no vulnerability database is given", "doit scan FILE…; docs/sbom.md lists the formats")
    for path in paths:
        before = len(database.advisories) + len(database.alpine)
        for name, data in _files(path):
            _add(database, name, data)
        if len(database.advisories) + len(database.alpine) == before:
            raise ScanError(f"{path} contains no advisory", "OSV: *.json, a folder or zip of them; Alpine: main.json")
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
    # Without this check, any object with a name would be an advisory that affects nothing.
    if not isinstance(entry, dict) or not ({"affected", "withdrawn"} & entry.keys()):
        raise msgspec.DecodeError("an OSV entry has `affected`")
    return msgspec.convert(entry, _Osv)


def _from_osv(entry: _Osv) -> Advisory:
    names = [entry.id, *(entry.aliases or ()), *(entry.upstream or ())]
    # Names such as ALPINE-CVE-2024-12345 contain the number, too.
    numbers = frozenset(names) | {number for name in names for number in _CVE.findall(name)}
    affected = []
    for each in entry.affected or ():
        package = each.package or _Package("GIT", "")
        ranges = each.ranges or []
        affected.append(
            Affected(
                package.ecosystem,
                package.name,
                tuple(each.versions or ()),
                tuple(tuple(_events(r.events)) for r in ranges if r.type != "GIT"),
                tuple(r.repo or "" for r in ranges if r.type == "GIT"),
            )
        )
    return Advisory(entry.id, entry.summary or "", entry.withdrawn is not None, tuple(affected), numbers)


def _events(events: Sequence[_Event]) -> Iterator[Event]:
    for event in events:
        for kind in ("introduced", "fixed", "last_affected", "limit"):
            version = getattr(event, kind)
            if version is not None:
                yield Event(kind, version)


def _from_secdb(parsed: _SecDb) -> Iterator[Advisory]:
    ecosystem = f"Alpine:{parsed.distroversion}"
    for entry in parsed.packages:
        for version, fixes in (entry.pkg.secfixes or {}).items():
            for fix in fixes or ():
                names = fix.split()
                if not names:
                    continue
                # Version 0: no version of the package was ever affected.
                events = () if version == "0" else ((Event("introduced", "0"), Event("fixed", version)),)
                affected = Affected(ecosystem, entry.pkg.name, ranges=events)
                yield Advisory(names[0], "", False, (affected,), frozenset(names))
