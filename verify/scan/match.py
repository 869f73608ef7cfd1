# SPDX-License-Identifier: Apache-2.0
"""Match a bill of materials against local vulnerability databases. The scanner opens no connection.

    component                           looked up in
    packages of the Alpine base         Alpine:<release of the base>, by source package and version
    nabla's packages, libc, busybox     the same, by upstream's version: nabla's release numbers are not Alpine's
    Python wheels                       PyPI
    the kernel                          Linux / Kernel
    components that name a repository   GIT, by the listed versions; commits are not compared

The result lists each advisory that concerns a component but cannot be compared.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from verify import report
from verify.release import vex
from verify.release.cyclonedx import BUILT_WITH, KIND, ORIGIN
from verify.release.tools import Tools
from verify.scan import advisories
from verify.scan.advisories import Advisory, Affected, Database, ScanError
from verify.scan.versions import ApkOrder, Compare, IncomparableError, compare_pep440, pairs_of, within

OPEN, FIXED, ABSENT, EXCLUDED = "open", "fixed", "not shipped", "excluded"

# Recipe -> Alpine's source package, where the names differ.
_ALPINE_NAMES = {"libgcc": "gcc", "libstdc++": "gcc", "sqlite-tests": "sqlite"}
_BUILT = ("package", "library", "program")


@dataclass(frozen=True)
class Subject:
    """All components of one source and version, which are looked up together. `key`: their name in the databases.

    `fixes`: vulnerability -> patches of this repository. `shipped`: whether an image contains a component. `purls`: the
    package URLs of the components.
    """

    kind: str
    key: str
    version: str
    names: tuple[str, ...]
    fixes: Mapping[str, tuple[str, ...]]
    repos: frozenset[str]
    shipped: bool
    release: str = ""
    purls: frozenset[str] = frozenset()

    @property
    def compared(self) -> str:
        """The version to compare: for nabla's packages upstream's version with Alpine's first release number."""
        return re.sub(r"(-r\d+)?$", "-r0", self.version) if self.kind in _BUILT else self.version


@dataclass(frozen=True)
class Finding:
    """One vulnerability in one subject. `repair`: fixed versions. `patches`: patches of this repository that fix it."""

    status: str
    id: str
    component: str
    version: str
    packages: tuple[str, ...]
    repair: tuple[str, ...]
    patches: tuple[str, ...]
    summary: str


@dataclass
class Result:
    """The outcome of a scan. `unknown`: a sentence for each advisory that cannot be compared. `counts`: by outcome."""

    findings: list[Finding] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def open(self) -> list[Finding]:
        """The findings that need an action."""
        return [finding for finding in self.findings if finding.status == OPEN]

    def data(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "findings": [vars(finding) for finding in self.findings],
            "not_evaluated": self.unknown,
            "counts": dict(sorted(self.counts.items())),
        }


def read_bill(path: Path) -> list[Subject]:
    """Read the subjects from a CycloneDX document of nabla. Raises `ScanError`."""
    try:
        document = json.loads(path.read_bytes())
        components = {entry["bom-ref"]: _Entry(entry) for entry in document["components"]}
        needs = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    except FileNotFoundError:
        raise ScanError(
            f"there is no bill of materials {path}", "run `doit sbom` first, or name one: --sbom FILE"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScanError(f"{path} is not a CycloneDX document of nabla: {error!r}") from error
    inside = {ref for key, refs in needs.items() if components.get(key, _NOTHING).kind == "image" for ref in refs}
    groups: dict[tuple[str, str, str], list[str]] = {}
    for ref, entry in components.items():
        kind = "built" if entry.kind in _BUILT else entry.kind
        groups.setdefault((kind, entry.origin, entry.upstream), []).append(ref)
    return [_subject(refs, components, inside) for refs in groups.values()]


def show(bill: Path, databases: Sequence[Path], documents: Sequence[Path] = (), *, as_json: bool) -> int:
    """Print the result as a table or as JSON; return the number of open findings. Raises `ScanError`, `ToolError`.

    `documents`: statements about vulnerabilities, see verify/release/vex.py.
    """
    statements = vex.read(documents)
    result = match(read_bill(bill), advisories.read(databases), ApkOrder(Tools().apk), statements)
    if as_json:
        print(json.dumps(result.data(), indent=1, sort_keys=True))
        return len(result.open)
    if result.findings:
        head = ["status", "vulnerability", "component", "version", "fixed in", "packages or patches"]
        print(report.table(head, [_row(finding) for finding in result.findings]))
    for sentence in result.unknown:
        print(f"not evaluated: {sentence}")
    counts = ", ".join(f"{count} {name}" for name, count in sorted(result.counts.items()))
    print(f"{bill}: {counts}")
    return len(result.open)


def _row(finding: Finding) -> list[str]:
    where = " ".join(finding.patches or finding.packages)
    return [finding.status, finding.id, finding.component, finding.version, " ".join(finding.repair), where]


def match(
    subjects: Sequence[Subject], database: Database, order: ApkOrder, statements: Sequence[vex.Statement] = ()
) -> Result:
    """Match the advisories against the subjects. Raises `ScanError`, `ToolError`."""
    result = Result()
    release = next((subject.release for subject in subjects if subject.release), "")
    for file, other in database.alpine.items():
        if other != release:
            result.unknown.append(f"{file} is about Alpine {other}, the base is {release}: it was not compared")
    pairs = list(_candidates(subjects, database, result, release))
    order.learn(
        pair
        for subject, _, affected in pairs
        if affected.ecosystem.startswith("Alpine")
        for events in affected.ranges
        for pair in pairs_of(subject.compared, events)
    )
    findings: dict[tuple[str, str, str], Finding] = {}
    for subject, advisory, affected in pairs:
        finding = _finding(subject, advisory, affected, order, result)
        if finding is not None and finding.status == OPEN:
            stated = vex.status_of(statements, advisory.numbers, subject.purls)
            status = {vex.FIXED: FIXED, vex.NOT_AFFECTED: EXCLUDED}.get(stated, OPEN)
            finding = replace(finding, status=status)
        if finding is not None:
            key = (finding.id, finding.component, finding.version)
            findings[key] = _join(findings[key], finding) if key in findings else finding
    result.findings = sorted(findings.values(), key=lambda f: (f.status != OPEN, f.status, f.component, f.id))
    result.unknown = sorted(set(result.unknown))
    for finding in result.findings:
        result.counts[finding.status] += 1
    return result


class _Entry:
    """One component of the document."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        properties = {each["name"]: each["value"] for each in entry.get("properties", ())}
        self.kind: str = properties.get(KIND, "")
        self.name: str = entry.get("name", "")
        self.version: str = entry.get("version", "")
        self.origin: str = properties.get(ORIGIN, self.name)
        self.built_with: str = properties.get(BUILT_WITH, "")
        self.purl: str = entry.get("purl", "")
        self.addresses = [each["url"] for each in entry.get("externalReferences", ())]
        self.fixes: dict[str, list[str]] = {}
        for patch in entry.get("pedigree", {}).get("patches", ()):
            for issue in patch.get("resolves", ()):
                self.fixes.setdefault(issue["id"], []).append(patch["diff"]["url"].split("#")[0])

    @property
    def upstream(self) -> str:
        """The version without nabla's release number, so that libc and its package are one subject."""
        return re.sub(r"-r\d+$", "", self.version) if self.kind in _BUILT else self.version


_NOTHING = _Entry({})


def _subject(refs: Sequence[str], components: Mapping[str, _Entry], inside: set[str]) -> Subject:
    """Return the subject of these components. `inside`: references of the components in images."""
    # Packages of the base may be in no image; every other component is itself part of the release.
    shipped = [ref for ref in refs if components[ref].kind != "base" or ref in inside]
    entries = [components[ref] for ref in shipped or refs]
    first = entries[0]
    documented = [*entries, *(components[ref] for ref in {each.built_with for each in entries} if ref in components)]
    fixes: dict[str, set[str]] = {}
    for entry in documented:
        for number, patches in entry.fixes.items():
            fixes.setdefault(number, set()).update(patches)
    release = re.search(r"distro=alpine-([\d.]+)", first.purl)
    return Subject(
        kind=first.kind,
        key=_ALPINE_NAMES.get(first.origin, first.origin) if first.kind != "wheel" else first.name,
        version=first.upstream,
        names=tuple(sorted({entry.name for entry in entries})),
        fixes={number: tuple(sorted(patches)) for number, patches in fixes.items()},
        repos=frozenset(_repository(address) for entry in documented for address in entry.addresses),
        shipped=bool(shipped),
        release=f"v{release[1]}" if release else "",
        purls=frozenset(entry.purl for entry in entries if entry.purl),
    )


def _candidates(
    subjects: Sequence[Subject], database: Database, result: Result, release: str
) -> Iterator[tuple[Subject, Advisory, Affected]]:
    """Yield the pairs to compare. Other advisories are counted, and reported if they have the name of a component."""
    alpine: dict[str, list[Subject]] = {}
    wheels: dict[str, list[Subject]] = {}
    for subject in subjects:
        if subject.kind in (*_BUILT, "base", "bundled"):
            alpine.setdefault(subject.key, []).append(subject)
        elif subject.kind == "wheel":
            wheels.setdefault(_canonical(subject.key), []).append(subject)
    kernel = [subject for subject in subjects if subject.kind == "kernel"]
    names = {subject.key for subject in subjects} | {name for subject in subjects for name in subject.names}
    foreign: Counter[str] = Counter()
    for advisory in database.advisories:
        result.counts["advisories"] += 1
        if advisory.withdrawn:
            result.counts["withdrawn"] += 1
            continue
        for affected in advisory.affected:
            kind = affected.ecosystem.split(":")[0]
            if kind == "Alpine":
                here = affected.ecosystem in ("Alpine", f"Alpine:{release}")
                chosen = alpine.get(affected.name, []) if here else []
            elif kind == "PyPI":
                chosen = wheels.get(_canonical(affected.name), [])
            elif kind == "Linux":
                chosen = kernel if affected.name == "Kernel" else []
            else:
                wanted = {_repository(repo) for repo in affected.repos}
                chosen = [subject for subject in subjects if wanted & subject.repos]
                if not chosen and affected.name.lower() in names:
                    foreign[affected.ecosystem] += 1
            yield from ((subject, advisory, affected) for subject in chosen)
    for ecosystem, count in foreign.items():
        result.unknown.append(
            f"{ecosystem}: {count} advisories have the name of a component, but versions of another ecosystem"
        )


def _finding(
    subject: Subject, advisory: Advisory, affected: Affected, order: ApkOrder, result: Result
) -> Finding | None:
    """Return the finding of one advisory in one subject; None if it is not affected, or cannot be compared."""
    kind = affected.ecosystem.split(":")[0]
    compare: Compare | None = {"Alpine": order.compare, "PyPI": compare_pep440, "Linux": compare_pep440}.get(kind)
    try:
        hit = _listed(subject, affected, kind)
        if not hit and compare is not None:
            hit = any(within(subject.compared, events, compare) for events in affected.ranges)
            if not affected.ranges and not affected.versions and affected.repos:
                raise IncomparableError("the advisory lists only commits")
        elif not hit and not affected.versions:
            raise IncomparableError("the advisory lists commits and no versions")
    except IncomparableError as error:
        result.unknown.append(f"{advisory.id}: {subject.key} {subject.version}: {error}")
        return None
    if not hit:
        result.counts["not affected"] += 1
        return None
    patches = tuple(sorted({p for number in advisory.numbers for p in subject.fixes.get(number, ())}))
    status = FIXED if patches else OPEN if subject.shipped else ABSENT
    repair = tuple(e.version for events in affected.ranges for e in events if e.kind == "fixed")
    name = min((n for n in advisory.numbers if n.startswith("CVE-")), default=advisory.id)
    return Finding(status, name, subject.key, subject.version, subject.names, repair, patches, advisory.summary)


def _listed(subject: Subject, affected: Affected, kind: str) -> bool:
    """Return whether an advisory lists a version; for GIT the list contains tags."""
    if kind in ("Alpine", "PyPI", "Linux"):
        return subject.compared in affected.versions
    return _plain(subject.version) in {_plain(version) for version in affected.versions}


def _plain(tag: str) -> str:
    """Return the version in the name of a tag: v1.2.3, openssl-1.2.3, R_1_2_3 and curl-1_2_3 are 1.2.3."""
    match = re.search(r"\d.*", tag)
    return match[0].replace("_", ".") if match else tag


def _repository(address: str) -> str:
    """Normalize an address, so that a project's repository, homepage and archives are equal."""
    match = re.match(r"(?:https?|git|ssh)://(?:[^@/]*@)?(?:www\.)?([^/?#]+)/?([^?#]*)", address)
    if not match:
        return address
    host, path = match[1].lower(), match[2].strip("/").removesuffix(".git")
    if host in ("github.com", "gitlab.com"):
        path = "/".join(path.split("/")[:2]).lower()
    return f"{host}/{path}".rstrip("/")


def _canonical(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def _join(one: Finding, other: Finding) -> Finding:
    """Merge two findings about the same vulnerability: it is open if either is open."""
    first, second = sorted((one, other), key=lambda finding: (OPEN, FIXED, EXCLUDED, ABSENT).index(finding.status))
    repair = tuple(dict.fromkeys((*first.repair, *second.repair)))
    return Finding(**{**vars(first), "repair": repair, "summary": first.summary or second.summary})
