# SPDX-License-Identifier: Apache-2.0
"""The scanner on handmade databases: vulnerable, fixed, not affected, withdrawn, foreign, and broken entries."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from nabla.core.artifacts import APK_TOOLS
from nabla.core.paths import ROOT
from verify.scan import advisories, match, versions
from verify.scan.advisories import Event, ScanError
from verify.scan.match import ABSENT, FIXED, OPEN, Result, Subject
from verify.scan.versions import ApkOrder, IncomparableError

pytestmark = pytest.mark.buildroot

PATCH = "patches/musl/0001-iconv.patch"


def component(kind: str, name: str, version: str, **more: Any) -> dict[str, Any]:
    """Return one component in the form of nabla's documents."""
    properties = {"nabla:kind": kind, **({"nabla:origin": more.pop("origin")} if "origin" in more else {})}
    if "built_with" in more:
        properties["nabla:built-with"] = more.pop("built_with")
    return {
        "bom-ref": f"{kind}/{name}",
        "name": name,
        "version": version,
        "properties": [{"name": key, "value": value} for key, value in properties.items()],
        **more,
    }


BILL: dict[str, Any] = {
    "components": [
        component("kernel", "linux", "6.1.176", origin="linux"),
        component(
            "library",
            "musl",
            "1.2.5",
            origin="musl",
            pedigree={"patches": [{"diff": {"url": f"{PATCH}#sha256=0"}, "resolves": [{"id": "CVE-2025-26519"}]}]},
        ),
        component("package", "musl", "1.2.5-r100", origin="musl"),
        component("package", "curl", "8.14.1-r0", origin="curl"),
        component("package", "libcurl", "8.14.1-r0", origin="curl", built_with="package/curl"),
        component(
            "package",
            "brotli",
            "1.1.0-r0",
            origin="brotli",
            externalReferences=[{"type": "website", "url": "https://github.com/google/brotli"}],
        ),
        component("package", "libgcc", "12.2.0-r0", origin="libgcc"),
        component("wheel", "numpy", "2.5.5", origin="py3-numpy"),
        component("base", "libssl3", "3.5.8-r0", origin="openssl", purl="pkg:apk/alpine/libssl3@3?distro=alpine-3.23"),
        component("base", "linux-virt", "6.18.56-r0", origin="linux-lts", purl="pkg:apk/a/b@3?distro=alpine-3.23"),
        component("image", "alpine", "1"),
    ],
    "dependencies": [{"ref": "image/alpine", "dependsOn": ["package/curl", "base/libssl3"]}],
}


@pytest.fixture(scope="module")
def order() -> ApkOrder:
    """The real apk, from the Alpine base."""
    if not (APK_TOOLS.path / "sbin" / "apk").exists():
        pytest.fail("out/work/apk-tools is missing; hint: ./doit.sh apk:tools", pytrace=False)
    return ApkOrder(APK_TOOLS.path)


@pytest.fixture
def subjects(tmp_path: Path) -> list[Subject]:
    """The components of the bill above."""
    path = tmp_path / "bill.cdx.json"
    path.write_text(json.dumps(BILL))
    return match.read_bill(path)


def osv(name: str, ecosystem: str, package: str, *events: dict[str, str], **more: Any) -> dict[str, Any]:
    """Return an entry with one range."""
    affected = {
        "package": {"ecosystem": ecosystem, "name": package},
        "ranges": [{"type": "ECOSYSTEM", "events": list(events)}] if events else [],
        "versions": more.pop("versions", []),
    }
    return {"id": name, "modified": "2026-01-01T00:00:00Z", "affected": [affected], **more}


def secdb(packages: dict[str, dict[str, list[str]]], release: str = "v3.23") -> dict[str, Any]:
    """Return a database in Alpine's format."""
    entries = [{"pkg": {"name": name, "secfixes": fixes}} for name, fixes in packages.items()]
    return {"distroversion": release, "reponame": "main", "packages": entries}


def result_of(tmp_path: Path, subjects: list[Subject], order: ApkOrder, data: Any) -> Result:
    """Write a database and look the subjects up in it."""
    path = tmp_path / "database.json"
    path.write_text(json.dumps(data))
    return match.match(subjects, advisories.read([path]), order)


def findings(result: Result) -> list[tuple[str, str, str, str]]:
    return [(f.status, f.id, f.component, f.version) for f in result.findings]


def test_subjects(subjects: list[Subject]) -> None:
    by_version = {(subject.key, subject.version): subject for subject in subjects}
    musl = by_version["musl", "1.2.5"]
    assert musl.names == ("musl",) and musl.fixes == {"CVE-2025-26519": (PATCH,)} and musl.compared == "1.2.5-r0"
    assert by_version["curl", "8.14.1"].names == ("curl", "libcurl")
    assert by_version["gcc", "12.2.0"].names == ("libgcc",)
    assert by_version["openssl", "3.5.8-r0"].shipped and by_version["openssl", "3.5.8-r0"].release == "v3.23"
    assert not by_version["linux-lts", "6.18.56-r0"].shipped


def test_secdb(tmp_path: Path, subjects: list[Subject], order: ApkOrder) -> None:
    data = secdb(
        {
            "musl": {"1.2.5-r11": ["CVE-2025-26519"], "1.1.15-r4": ["CVE-2016-8859"], "1.2.5-r30": ["CVE-2026-1000"]},
            "curl": {"8.15.0-r0": ["CVE-2025-5399 XSA-1"], "8.14.1-r0": ["CVE-2025-1"], "8.9.0-r0": ["CVE-2024-1"]},
            "openssl": {"3.5.8-r1": ["CVE-2026-7000"], "3.5.8-r0": ["CVE-2026-6000"], "0": ["CVE-2022-3358"]},
            "linux-lts": {"6.18.60-r0": ["CVE-2026-5000"]},
            "unknown": {"9-r0": ["CVE-2026-1"]},
        }
    )
    result = result_of(tmp_path, subjects, order, data)
    assert findings(result) == [
        (OPEN, "CVE-2025-5399", "curl", "8.14.1"),
        # Nabla's release number is unrelated to Alpine's fixes of the same upstream version.
        (OPEN, "CVE-2026-1000", "musl", "1.2.5"),
        (OPEN, "CVE-2026-7000", "openssl", "3.5.8-r0"),
        (FIXED, "CVE-2025-26519", "musl", "1.2.5"),
        (ABSENT, "CVE-2026-5000", "linux-lts", "6.18.56-r0"),
    ]
    assert result.findings[3].patches == (PATCH,)
    assert result.findings[0].repair == ("8.15.0-r0",) and result.findings[0].packages == ("curl", "libcurl")
    assert result.unknown == []


def test_secdb_of_another_release(tmp_path: Path, subjects: list[Subject], order: ApkOrder) -> None:
    result = result_of(tmp_path, subjects, order, secdb({"curl": {"99-r0": ["CVE-2025-1"]}}, "v3.20"))
    assert not result.findings
    assert [sentence.split(": ")[1] for sentence in result.unknown] == ["it was not compared"]


ALPINE = "Alpine:v3.23"
START = {"introduced": "0"}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (osv("CVE-1-1", ALPINE, "curl", START, {"fixed": "8.15.0-r0"}), OPEN),
        (osv("CVE-1-1", ALPINE, "curl", START, {"fixed": "8.14.1-r0"}), None),
        (osv("CVE-1-1", ALPINE, "curl", {"introduced": "8.15.0-r0"}, {"fixed": "8.16.0-r0"}), None),
        (osv("CVE-1-1", ALPINE, "curl", {"fixed": "8.15.0-r0"}, START), OPEN),
        (osv("CVE-1-1", ALPINE, "curl", START, {"last_affected": "8.14.1-r0"}), OPEN),
        (osv("CVE-1-1", ALPINE, "curl", START, {"last_affected": "8.14.0-r9"}), None),
        (osv("CVE-1-1", ALPINE, "curl", START, {"fixed": "8.2.0-r0"}, {"introduced": "8.10.0-r0"}), OPEN),
        (osv("CVE-1-1", ALPINE, "curl", versions=["8.14.1-r0"]), OPEN),
        (osv("CVE-1-1", ALPINE, "curl", versions=["8.14.0-r0"]), None),
        (osv("CVE-1-1", "Alpine:v3.20", "curl", START), None),
        (osv("CVE-1-1", ALPINE, "nothing", START), None),
        (osv("CVE-1-1", ALPINE, "curl", START, withdrawn="2026-02-01T00:00:00Z"), None),
        (osv("CVE-1-1", "PyPI", "NumPy", START, {"fixed": "2.5.6"}), OPEN),
        (osv("CVE-1-1", "PyPI", "numpy", START, {"fixed": "2.5.5rc1"}), None),
        (osv("CVE-1-1", "PyPI", "numpy", START, {"fixed": "2.10"}), OPEN),
        (osv("CVE-1-1", "Linux", "Kernel", {"introduced": "6.1.0"}, {"fixed": "6.1.177"}), OPEN),
        (osv("CVE-1-1", "Linux", "Kernel", {"introduced": "6.1.0"}, {"fixed": "6.1.99"}), None),
        (osv("CVE-1-1", "Linux", "Kernel", {"introduced": "6.2-rc1"}), None),
        (osv("ALPINE-CVE-2025-26519", ALPINE, "musl", START), FIXED),
        (osv("OSV-1", ALPINE, "musl", START, aliases=["CVE-2025-26519"]), FIXED),
        (osv("OSV-1", ALPINE, "musl", START, upstream=["CVE-2025-26519"]), FIXED),
        (osv("CVE-2025-26519", ALPINE, "curl", START), OPEN),
    ],
)
def test_osv(
    tmp_path: Path, subjects: list[Subject], order: ApkOrder, entry: dict[str, Any], expected: str | None
) -> None:
    result = result_of(tmp_path, subjects, order, entry)
    assert [finding.status for finding in result.findings] == ([expected] if expected else [])
    assert result.unknown == []
    assert result.counts["withdrawn"] == ("withdrawn" in entry)


def git(repo: str, *versions: str) -> dict[str, Any]:
    """Return an entry that names commits."""
    ranges = [{"type": "GIT", "repo": repo, "events": [{"introduced": "0"}, {"fixed": "ed738e8"}]}]
    return {"id": "CVE-2020-8927", "affected": [{"ranges": ranges, "versions": list(versions)}]}


def test_versions_of_a_repository(tmp_path: Path, subjects: list[Subject], order: ApkOrder) -> None:
    address = "https://github.com/Google/brotli.git"
    assert findings(result_of(tmp_path, subjects, order, git(address, "v1.0.9", "v1.1.0"))) == [
        (OPEN, "CVE-2020-8927", "brotli", "1.1.0")
    ]
    assert not result_of(tmp_path, subjects, order, git(address, "v1.0.9")).findings
    assert not result_of(tmp_path, subjects, order, git("https://github.com/google/other", "v1.1.0")).findings


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            git("https://github.com/google/brotli"),
            "CVE-2020-8927: brotli 1.1.0: the advisory lists commits and no versions",
        ),
        (
            osv("CVE-1-1", ALPINE, "curl", START, {"fixed": "8.15-foo"}),
            "CVE-1-1: curl 8.14.1: '8.15-foo' is not a version for apk",
        ),
        (osv("CVE-1-1", "PyPI", "numpy", START, {"fixed": "x"}), "CVE-1-1: numpy 2.5.5: Invalid version: 'x'"),
        (
            osv("CVE-1-1", "Debian:13", "curl", START),
            "Debian:13: 1 advisories have the name of a component, but versions of another ecosystem",
        ),
    ],
)
def test_advisories_that_cannot_be_compared_are_reported(
    tmp_path: Path, subjects: list[Subject], order: ApkOrder, entry: dict[str, Any], sentence: str
) -> None:
    result = result_of(tmp_path, subjects, order, entry)
    assert (result.findings, result.unknown) == ([], [sentence])


def test_a_vulnerability_open_in_one_entry_is_open(tmp_path: Path, subjects: list[Subject], order: ApkOrder) -> None:
    """One vulnerability with two fixes: the first was incomplete."""
    data = secdb({"openssl": {"3.5.8-r0": ["CVE-2026-1"], "3.5.8-r2": ["CVE-2026-1"]}})
    (finding,) = result_of(tmp_path, subjects, order, data).findings
    assert (finding.status, finding.repair) == (OPEN, ("3.5.8-r2",))


def test_folder_list_and_zip_are_alike(tmp_path: Path) -> None:
    entries = [osv(f"CVE-2026-{number}", ALPINE, "curl", START) for number in range(3)]
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    for number, entry in enumerate(entries):
        (folder / "inner" / f"{number}.json").write_text(json.dumps(entry))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for number, entry in enumerate(entries):
            archive.writestr(f"{number}.json", json.dumps(entry))
    (tmp_path / "list.json").write_text(json.dumps(entries))
    lists = [advisories.read([path]).advisories for path in (folder, tmp_path / "all.zip", tmp_path / "list.json")]
    assert lists[0] == lists[1] == lists[2] and len(lists[0]) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "neither OSV nor Alpine's secdb: Input data was truncated"),
        ("[1]", "neither OSV nor Alpine's secdb: an OSV entry has `affected`"),
        ("{}", "an OSV entry has `affected`"),
        ('{"affected": []}', "missing required field `id`"),
        ('{"id": 5, "affected": []}', r"Expected `str`, got `int` - at `\$\.id`"),
        ('{"distroversion": "v3.23", "packages": [{"pkg": {}}]}', "missing required field `name`"),
        ("[]", "contains no advisory"),
        ("\udcff", "neither OSV nor Alpine's secdb"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "database.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ScanError, match=message):
        advisories.read([path])


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="cannot read"):
        advisories.read([tmp_path / "none.json"])
    with pytest.raises(ScanError, match="contains no advisory"):
        advisories.read([tmp_path])
    with pytest.raises(ScanError, match="no vulnerability database is given"):
        advisories.read([])
    with pytest.raises(ScanError, match="there is no bill of materials") as caught:
        match.read_bill(tmp_path / "none.json")
    assert "doit sbom" in caught.value.hint
    (tmp_path / "odd.json").write_text("[]")
    with pytest.raises(ScanError, match="not a CycloneDX document of nabla"):
        match.read_bill(tmp_path / "odd.json")


def test_order_is_that_of_apk_itself(order: ApkOrder) -> None:
    """The batched results equal those of single calls of `apk version -t`."""
    from nabla.core.process import run
    from nabla.packages import apk

    known = ["1.2.5-r0", "1.2.5-r11", "1.2.5-r100", "1.2.5", "1.2.5a", "1.2_rc1", "1.2_p3", "1.2", "2026-r0"]
    pairs = [(one, other) for one in known for other in known]
    order.learn(pairs)
    script = 'for a in "$@"; do for b in "$@"; do apk version -t "$a" "$b"; done; done'
    said = run(apk.command(APK_TOOLS.path, [], ["/bin/sh", "-c", script, "-", *known])).stdout.split()
    assert [{-1: "<", 0: "=", 1: ">"}[order.compare(*pair)] for pair in pairs] == said
    assert {"<", "=", ">"} == set(said)


def test_many_pairs_at_once(order: ApkOrder) -> None:
    pairs = [(f"1.{number}-r0", "1.2500-r0") for number in range(5000)]
    order.learn(pairs)
    assert [order.compare(*pair) for pair in pairs] == [-1] * 2500 + [0] + [1] * 2499


@pytest.mark.parametrize("version", ["foo", "1.0-1+deb", "-r1", "1.0 2.0", ""])
def test_no_versions(order: ApkOrder, version: str) -> None:
    order.learn([("1.0", version)])
    with pytest.raises(IncomparableError):
        order.compare("1.0", version)


def test_ranges() -> None:
    events = (Event("introduced", "2"), Event("fixed", "3"), Event("introduced", "5"), Event("last_affected", "7"))
    inside = [
        version
        for version in ("1", "2", "2.9", "3", "4", "5", "7", "7.1")
        if versions.within(version, events, versions.compare_pep440)
    ]
    assert inside == ["2", "2.9", "5", "7"]


@pytest.mark.parametrize(("version", "status"), [("8.15.0-r0", 1), ("8.14.0-r0", 0), ("", 2)])
def test_command_line(tmp_path: Path, order: ApkOrder, version: str, status: int) -> None:
    (tmp_path / "bill.json").write_text(json.dumps(BILL))
    (tmp_path / "main.json").write_text(json.dumps(secdb({"curl": {version: ["CVE-2025-1"]}})) if version else "{")
    words = ["-m", "verify.scan", "--sbom", str(tmp_path / "bill.json"), str(tmp_path / "main.json")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == status, done.stderr
    assert ("CVE-2025-1" in done.stdout) == (status == 1) and ("error: " in done.stderr) == (status == 2)
