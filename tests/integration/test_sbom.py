# SPDX-License-Identifier: Apache-2.0
"""The bills of materials: counted by other means, read by other readers, written twice."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from doit.exceptions import TaskError, TaskFailed

from nabla.core.artifacts import (
    APK_TOOLS,
    CYCLONEDX,
    INDEX,
    LICENSE_LIST,
    LICENSE_TEXTS,
    RELEASED_IMAGES,
    REPOSITORY,
    SPDX,
)
from nabla.core.paths import IMAGES, PATCHES, RECIPES, ROOT, cache_dir
from nabla.core.process import run
from nabla.engine import task
from nabla.fs import nodes
from nabla.packages import apk, apkdb, catalog
from nabla.sandbox.bwrap import Bind
from nabla.sbom import tasks as sbom_tasks
from nabla.sbom import vex as vex_documents
from nabla.sbom.vex import openvex
from nabla.sources import fetch, recipe
from verify.release import vex
from verify.release.vex import FIXED, NOT_AFFECTED, OPEN, Statement
from verify.scan import match

CACHE = cache_dir()

# Shipped components other than packages: kernel, libc, busybox, launcher, init.
OTHERS = {"linux", "musl", "busybox", "nabla-run", "nabla", "nabla-init", "nabla-oci"}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        pytest.fail(f"{path.relative_to(ROOT)} is missing; hint: ./doit.sh sbom", pytrace=False)
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


@pytest.fixture(scope="module")
def cyclonedx() -> dict[str, Any]:
    return _read(CYCLONEDX)


@pytest.fixture(scope="module")
def spdx() -> dict[str, Any]:
    return _read(SPDX)


def _indexed() -> set[str]:
    """Return name-version of all packages in the index, as the real apk prints it."""
    binds = [Bind(REPOSITORY, "/repository")]
    dump = run(apk.command(APK_TOOLS.path, binds, ["/sbin/apk", "adbdump", f"/repository/{INDEX.name}"])).stdout
    packages = re.findall(r"^  - name: (\S+)\n    version: (\S+)", dump, re.MULTILINE)
    return {f"{name}-{version}" for name, version in packages}


def _base_lines() -> list[str]:
    tree = nodes.read_base(fetch.fetch(recipe.load("alpine-base").source[0]))
    text = tree["/lib/apk/db/installed"].content().decode()
    return [line for line in text.splitlines() if line.startswith("P:")]


def _tables() -> dict[str, dict[str, Any]]:
    """Return the recipes of the shipped components, as plain TOML."""
    all_of = {path.parent.name: tomllib.loads(path.read_text()) for path in RECIPES.glob("*/recipe.toml")}
    built = {name: data for name, data in all_of.items() if not data.get("optional")}
    return {name: data for name, data in built.items() if "package" in data or name in OTHERS}


def _by_kind(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for entry in document["components"]:
        kind = next(each["value"] for each in entry["properties"] if each["name"] == "nabla:kind")
        by_kind.setdefault(kind, []).append(entry)
    return by_kind


def test_number_of_components(cyclonedx: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NABLA_CACHE", str(CACHE))
    kinds = _by_kind(cyclonedx)
    optional = {path.stem for each in catalog.all_recipes() if each.optional for path in catalog.apks(each)}
    files = {path.stem for path in REPOSITORY.glob("*.apk")} - optional
    assert {f"{entry['name']}-{entry['version']}" for entry in kinds["package"]} == files == _indexed()
    assert len(kinds["package"]) == len(files)
    assert len(kinds["base"]) == len(_base_lines())
    assert {entry["name"] for kind in ("kernel", "library", "program") for entry in kinds[kind]} == OTHERS
    assert {entry["name"] for entry in kinds["image"]} == {f"nabla-linux-{name}" for name in RELEASED_IMAGES}
    sources = [s for data in _tables().values() for s in data["source"]]
    wheels = {o["file"] for s in sources for o in s.get("origin", ()) if o["type"] == "pypi"}
    assert len(kinds["wheel"]) == len(wheels) + 1  # the base's
    assert {entry["name"] for entry in kinds["bundled"]} == _bundled()
    total = len(files) + len(_base_lines()) + len(OTHERS) + len(RELEASED_IMAGES) + len(wheels) + 1 + len(_bundled())
    assert len(cyclonedx["components"]) == total


def _bundled() -> set[str]:
    with zipfile.ZipFile(fetch.fetch(recipe.load("py3-numpy").source[0])) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".cdx.json")]
        return {entry["name"] for entry in json.loads(wheel.read(name))["components"]} - {"numpy"}


def test_both_documents_tell_the_same(cyclonedx: dict[str, Any], spdx: dict[str, Any]) -> None:
    one = sorted((entry["name"], entry["version"]) for entry in cyclonedx["components"])
    other = sorted(
        (entry["name"], entry["versionInfo"])
        for entry in spdx["packages"]
        if entry["name"] != "nabla-linux" and entry.get("primaryPackagePurpose") != "SOURCE"
    )
    assert one == other


def test_sources(spdx: dict[str, Any]) -> None:
    entries = [entry for entry in spdx["packages"] if entry.get("primaryPackagePurpose") == "SOURCE"]
    listed = {entry["checksums"][0]["checksumValue"] for entry in entries}
    listed |= {digest for e in entries for digest in re.findall(r"sha256 ([0-9a-f]{64})", e.get("comment", ""))}
    sources = [s for data in _tables().values() for s in data["source"] if "origin" in s]
    assert listed == {origin["sha256"] for source in sources for origin in source["origin"]}
    assert len(entries) == len(sources)


def test_patches(cyclonedx: dict[str, Any], spdx: dict[str, Any]) -> None:
    files = sorted(str(path.relative_to(ROOT)) for path in PATCHES.glob("*/*.patch"))
    assert sorted(entry["fileName"].removeprefix("./") for entry in spdx["files"]) == files
    fixes: dict[str, set[str]] = {}
    for entry in cyclonedx["components"]:
        for patch in entry.get("pedigree", {}).get("patches", ()):
            name, _, digest = patch["diff"]["url"].partition("#sha256=")
            status = subprocess.run(["sha256sum", ROOT / name], capture_output=True, text=True, check=True)
            assert status.stdout.split()[0] == digest
            fixes.setdefault(name, set()).update(issue["id"] for issue in patch.get("resolves", ()))
    assert sorted(fixes) == files
    fixed = {name.split("/")[-1][:4]: numbers for name, numbers in fixes.items() if numbers}
    assert fixed == {
        "0001": {"CVE-2025-26519"},
        "0002": {"CVE-2025-26519"},
        "0003": {"CVE-2026-6042"},
        "0004": {"CVE-2026-40200"},
    }


def test_images_hold_what_they_hold(cyclonedx: dict[str, Any]) -> None:
    names = {entry["bom-ref"]: entry["name"] for entry in cyclonedx["components"]}
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in cyclonedx["dependencies"]}
    minimal = sorted(names[ref] for ref in needs["nabla-linux:image/minimal"])
    assert minimal == ["busybox", "musl", "nabla-init"]
    alpine = needs["nabla-linux:image/alpine"]
    assert any(ref.startswith("pkg:apk/nabla/python3@") for ref in alpine)
    assert any(ref.startswith("pkg:apk/alpine/apk-tools@") for ref in alpine)
    # Omitted or replaced packages are in apk's database, but not in the image.
    started = needs["nabla-linux:image/base"]
    assert "nabla-linux:musl" in started and "nabla-linux:busybox" in started
    for name in ("linux-virt", "musl", "busybox"):
        assert not any(ref.startswith(f"pkg:apk/alpine/{name}@") for ref in started)
    python = next(ref for ref in needs if ref.startswith("pkg:apk/nabla/python3@"))
    assert {"libcrypto3", "libffi", "musl", "readline"} <= {names[ref] for ref in needs[python]}


def test_other_readers_read_them(cyclonedx: dict[str, Any]) -> None:
    from cyclonedx.model.bom import Bom
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    reader: Any = Bom
    assert len(reader.from_json(cyclonedx).components) == len(cyclonedx["components"])
    document = parse_file(str(SPDX))
    assert validate_full_spdx_document(document) == []


def test_no_time_and_no_host(cyclonedx: dict[str, Any], spdx: dict[str, Any]) -> None:
    assert cyclonedx["metadata"]["timestamp"] == "2026-06-01T00:00:00+00:00"
    assert spdx["creationInfo"]["created"] == "2026-06-01T00:00:00Z"
    for path in (SPDX, CYCLONEDX, LICENSE_LIST):
        assert str(ROOT).encode() not in path.read_bytes()


def test_licenses(cyclonedx: dict[str, Any]) -> None:
    lines = LICENSE_LIST.read_text().splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")][1:]
    kinds = _by_kind(cyclonedx)
    # A line for each recipe, for each package of the base, for the base itself, for each bundled library.
    assert len(rows) == len(_tables()) + len(kinds["base"]) + 1 + len(kinds["bundled"])
    linked = set()
    for row in rows:
        links = re.findall(r"\]\(([^)]+)\)", row[3])
        assert links, row
        linked |= {*links}
    files = {str(path.relative_to(SPDX.parent)) for path in LICENSE_TEXTS.path.rglob("*") if path.is_file()}
    assert linked == files
    # Some texts only refer to the real one.
    for folder in LICENSE_TEXTS.path.iterdir():
        assert max(path.stat().st_size for path in folder.iterdir()) > 200, folder


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("linux/COPYING", "SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note"),
        ("linux/LICENSES_preferred_GPL-2.0", "GNU GENERAL PUBLIC LICENSE"),
        ("libgcc/COPYING.RUNTIME", "GCC RUNTIME LIBRARY EXCEPTION"),
        ("libgcc/COPYING3", "Version 3, 29 June 2007"),
        ("lua5.4/src_lua.h", "Permission is hereby granted"),
        ("redis/deps_jemalloc_COPYING", "Jason Evans"),
        ("nabla-run/LICENSE", "Apache License"),
        ("standard/MPL-2.0", "Mozilla Public License Version 2.0"),
        ("standard/GPL-3.0-or-later", "Version 3, 29 June 2007"),
        ("standard/ISC", "Permission to use, copy, modify"),
    ],
)
def test_texts_are_the_right_ones(path: str, words: str) -> None:
    assert words in (LICENSE_TEXTS.path / path).read_text()


def test_minimum_elements_of_ntia() -> None:
    """The checker of SPDX documents that NTIA's and CISA's guides name; docs/sbom.md lists what its others miss."""
    from ntia_conformance_checker import SbomChecker

    checker = SbomChecker(str(SPDX), compliance="ntia")
    assert checker.parsing_errors == []
    assert checker.compliant, checker.components_without_suppliers


def purls_of(name: str) -> tuple[str, ...]:
    subjects = [subject for subject in match.read_bill(CYCLONEDX) if name in subject.names]
    return tuple(sorted(purl for subject in subjects for purl in subject.purls))


def test_vex_as_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statements cover the patches' fixes and, with a database, the open findings."""
    for name in ("OPENVEX", "CYCLONEDX"):
        monkeypatch.setattr(vex_documents, name, tmp_path / name)
    database = tmp_path / "main.json"
    zlib = {"pkg": {"name": "zlib", "secfixes": {"99-r0": ["CVE-2026-9"]}}}
    musl = {"pkg": {"name": "musl", "secfixes": {"1.2.5-r11": ["CVE-2025-26519"]}}}
    database.write_text(json.dumps({"distroversion": "v3.23", "packages": [zlib, musl]}))
    assert task.guard(sbom_tasks.write_vex)(sbom="", databases=[str(database)]) is None
    statements = vex.read([tmp_path / "OPENVEX"])
    assert sorted(statements) == sorted(vex.read([tmp_path / "CYCLONEDX"]))
    assert {each.vulnerability for each in statements if each.status == FIXED} >= {"CVE-2025-26519"}
    assert {each.vulnerability for each in statements if each.status == OPEN} == {"CVE-2026-9"}


def test_scan_as_a_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Return doit's exit status for a result: None is 0, TaskFailed 1, TaskError 2."""
    names = {"musl": {"1.2.5-r11": ["CVE-2025-26519"]}, "curl": {"1.0-r0": ["CVE-2001-0001"]}}
    path = tmp_path / "main.json"

    def write(**packages: dict[str, list[str]]) -> list[str]:
        entries = [{"pkg": {"name": name, "secfixes": fixes}} for name, fixes in packages.items()]
        path.write_text(json.dumps({"distroversion": "v3.23", "packages": entries}))
        return [str(path)]

    assert task.guard(sbom_tasks.scan)(json=False, sbom="", vex=[], databases=write(**names)) is None
    assert "fixed   CVE-2025-26519  musl" in capsys.readouterr().out
    failed = task.guard(sbom_tasks.scan)(
        json=True, sbom=str(CYCLONEDX), vex=[], databases=write(zlib={"99-r0": ["CVE-2026-9"]})
    )
    assert isinstance(failed, TaskFailed) and "known vulnerabilities are open" in failed.get_msg()
    report = json.loads(capsys.readouterr().out)
    assert {(each["id"], each["status"]) for each in report["findings"]} == {("CVE-2026-9", "open")}
    assert {each["version"] for each in report["findings"]} == {"1.3.1", "1.3.2-r0"}
    statements = tmp_path / "zlib.openvex.json"
    statements.write_text(openvex([Statement("CVE-2026-9", NOT_AFFECTED, purls_of("zlib"), note="a reason")]))
    assert task.guard(sbom_tasks.scan)(json=True, sbom="", vex=[str(statements)], databases=[str(path)]) is None
    report = json.loads(capsys.readouterr().out)
    assert {(each["id"], each["status"]) for each in report["findings"]} == {("CVE-2026-9", "excluded")}
    path.write_text("{")
    assert isinstance(task.guard(sbom_tasks.scan)(json=False, sbom="", vex=[], databases=[str(path)]), TaskError)


def test_what_is_present_in_an_image() -> None:
    from dissect.extfs import ExtFS

    image = IMAGES / "alpine.ext3"
    tree = nodes.read_ext(image)
    with image.open("rb") as stream:
        present = apkdb._lookup(ExtFS(stream))
        assert all(map(present, tree))
        # Through links to folders, relative and absolute; not through files.
        assert present("/var/run/lock") and present("/etc/ssl1.1/certs/002c0b4f.0")
        assert not present("/nothing/there") and not present("/etc/passwd/x") and not present("/etc/none")
    installed, files = apkdb.read_image(image)
    assert {each.name for each in installed} >= {"apk-tools", "python3", "musl"}
    assert files == {file for each in installed for file in each.files} & {*tree}
    assert apkdb.read_image(IMAGES / "minimal.ext3") == ((), frozenset())
