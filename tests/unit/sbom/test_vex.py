# SPDX-License-Identifier: Apache-2.0
"""Statements about vulnerabilities: their sources, both documents, and their effect on findings."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nabla.sbom import vex as documents
from nabla.sources import recipe
from nabla.sources.recipe import NotAffected
from verify.release import vex
from verify.release.vex import FIXED, NOT_AFFECTED, OPEN, Statement, VexError
from verify.scan.match import Subject

MUSL = ("pkg:apk/nabla/musl@1.2.5-r100", "pkg:generic/musl@1.2.5")
PATCH = "patches/musl/0001-iconv.patch"
EXCUSE = NotAffected(justification="vulnerable_code_not_present", reason="that driver is not built")


def subject(name: str, *purls: str, kind: str = "package", **fixes: str) -> Subject:
    """Return one component; `fixes`: patch of a vulnerability, whose name has no dashes."""
    by_number = {number.replace("_", "-"): (patch,) for number, patch in fixes.items()}
    return Subject(kind, name, "1.2.5", (name,), by_number, frozenset(), True, purls=frozenset(purls))


def recipe_with(name: str, **entries: NotAffected) -> recipe.Recipe:
    excluded = {number.replace("_", "-"): entry for number, entry in entries.items()}
    return msgspec.structs.replace(recipe.load(name), not_affected=excluded)


def test_statements_of_patches_and_recipes() -> None:
    subjects = [subject("musl", *MUSL, CVE_2025_1=PATCH), subject("musl", "pkg:apk/alpine/musl@1.2.5-r23", kind="base")]
    statements = documents.known(subjects, [recipe_with("musl", CVE_2026_2=EXCUSE), recipe.load("zlib")])
    assert sorted(statements) == [
        Statement("CVE-2025-1", FIXED, MUSL, note=f"fixed by {PATCH}"),
        Statement("CVE-2026-2", NOT_AFFECTED, MUSL, EXCUSE.justification, EXCUSE.reason),
    ]


STATEMENTS = [
    Statement("CVE-2025-1", FIXED, MUSL, note=f"fixed by {PATCH}"),
    Statement("CVE-2026-2", NOT_AFFECTED, MUSL, "vulnerable_code_not_in_execute_path", "nothing calls it"),
    Statement("CVE-2026-3", OPEN, ("pkg:pypi/numpy@2.5.5",), note="a summary"),
]


@pytest.mark.parametrize("write", [documents.openvex, documents.cyclonedx_document])
def test_documents_say_the_same(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_text(write(STATEMENTS))
    assert sorted(vex.read([path])) == STATEMENTS
    assert path.read_text() == write(STATEMENTS), "the same bytes each time"
    other = write([replace(STATEMENTS[0], note="another note"), *STATEMENTS[1:]])
    name = "@id" if "@id" in json.loads(other) else "serialNumber"
    assert json.loads(other)[name] != json.loads(path.read_text())[name]


_READ = """
import json, sys
from lib4vex.parser import VEXParser
parser = VEXParser()
parser.parse(sys.argv[1])
print(json.dumps([parser.get_type(), parser.get_metadata(), parser.get_vulnerabilities()]))
"""


def test_another_library_reads_openvex(tmp_path: Path) -> None:
    """lib4vex, which expects one product in a statement, finds each vulnerability with its status."""
    statements = [replace(each, products=each.products[:1]) for each in STATEMENTS]
    path = tmp_path / "nabla.openvex.json"
    path.write_text(documents.openvex(statements))
    done = subprocess.run([sys.executable, "-c", _READ, path], capture_output=True, text=True, check=True)
    kind, metadata, vulnerabilities = json.loads(done.stdout)
    assert (kind, metadata["author"], metadata["version"]) == ("openvex", "nabla-linux", 1)
    seen = [(each["id"], each["status"], each["purl"], each.get("justification", "")) for each in vulnerabilities]
    assert seen == [(each.vulnerability, each.status, each.products[0], each.justification) for each in statements]


@pytest.mark.parametrize(
    ("number", "products", "status"),
    [
        ("CVE-2026-2", MUSL, NOT_AFFECTED),
        ("CVE-2025-1", MUSL, FIXED),
        # another vulnerability, another version, a product that the statement does not name, and none
        ("CVE-2026-4", MUSL, OPEN),
        ("CVE-2026-2", ("pkg:generic/musl@1.2.6",), OPEN),
        ("CVE-2026-2", (*MUSL, "pkg:apk/nabla/musl-dev@1.2.5-r100"), OPEN),
        ("CVE-2026-2", (), OPEN),
        ("CVE-2026-3", ("pkg:pypi/numpy@2.5.5",), OPEN),
    ],
)
def test_exactly_the_named_products_are_excluded(number: str, products: tuple[str, ...], status: str) -> None:
    assert vex.status_of(STATEMENTS, frozenset({number, "GHSA-1"}), frozenset(products)) == status


def test_contradiction_is_an_error() -> None:
    again = Statement("CVE-2026-2", OPEN, MUSL[:1])
    with pytest.raises(VexError, match="CVE-2026-2 is not_affected and under_investigation in pkg:apk/nabla/musl"):
        vex.status_of([*STATEMENTS, again], frozenset({"CVE-2026-2"}), frozenset(MUSL))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"@context": "https://example.org", "statements": []}',
        '{"@context": "https://openvex.dev/ns/v0.2.0"}',
        '{"@context": "https://openvex.dev/ns/v0.2.0", "statements": [{}]}',
        # OpenVEX requires a justification or an impact statement.
        '{"@context": "https://openvex.dev/ns/v0.2.0", "statements": [{"vulnerability": {"name": "CVE-2026-2"}, '
        '"products": [{"@id": "pkg:a/b@1"}], "status": "not_affected"}]}',
        '{"bomFormat": "CycloneDX", "vulnerabilities": [{"id": "CVE-2026-2", "affects": [{"ref": "nothing"}]}]}',
    ],
)
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_text(text)
    with pytest.raises(VexError, match="is not a VEX document"):
        vex.read([path])
    with pytest.raises(VexError, match="there is no VEX document"):
        vex.read([tmp_path / "missing"])


@pytest.mark.parametrize("write", [documents.openvex, documents.cyclonedx_document])
def test_damaged_documents(write: Any, tmp_path: Path) -> None:
    """A damaged document is refused or read, and excludes no vulnerability that it did not exclude before."""
    chosen, text, path = random.Random(5), write(STATEMENTS), tmp_path / "document.json"
    for _ in range(400):
        damaged = list(text)
        for _ in range(chosen.choice((1, 2, 8))):
            damaged[chosen.randrange(len(damaged))] = chosen.choice('{}[]",:0a\\')
        path.write_text("".join(damaged))
        try:
            statements = vex.read([path])
            status = vex.status_of(statements, frozenset({"CVE-2026-4"}), frozenset(MUSL))
        except VexError:
            continue
        assert status == OPEN
