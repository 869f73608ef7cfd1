# SPDX-License-Identifier: Apache-2.0
"""nabla.release.provenance: its statements, and the rejection of all others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nabla.core.manifest import file_sha256
from nabla.core.paths import ROOT, TOOLCHAIN
from nabla.release import provenance
from nabla.release.provenance import ProvenanceError
from verify.release import statement
from verify.release.statement import Dependency, Statement, StatementError

STATEMENT = Statement(
    "1.2.3",
    {"bin/nabla-run": "1" * 64, "SBOM": "2" * 64},
    (
        Dependency("recipes/x/x.tar.gz", "sha256", "3" * 64, "https://example.org/x.tar.gz"),
        Dependency(statement.REPOSITORY, "gitCommit", "4" * 40),
    ),
)


def test_round_trip() -> None:
    payload = provenance.serialize(STATEMENT)
    assert statement.read(payload) == STATEMENT
    assert STATEMENT.commit == "4" * 40


def test_modified_tree_is_told() -> None:
    modified = replace(STATEMENT, dependencies=(replace(STATEMENT.dependencies[1], modified=True),))
    assert statement.read(provenance.serialize(modified)) == modified
    assert provenance.serialize(modified) != provenance.serialize(
        replace(STATEMENT, dependencies=STATEMENT.dependencies[1:])
    )


def test_is_what_the_standards_ask_for() -> None:
    """The required fields of in-toto's and SLSA's specifications, by hand."""
    data = json.loads(provenance.serialize(STATEMENT))
    assert data["_type"] == "https://in-toto.io/Statement/v1"
    assert data["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {"name": "bin/nabla-run", "digest": {"sha256": "1" * 64}} in data["subject"]
    definition = data["predicate"]["buildDefinition"]
    assert definition["buildType"] and definition["externalParameters"]["version"] == "1.2.3"
    assert definition["resolvedDependencies"][0]["downloadLocation"] == "https://example.org/x.tar.gz"
    assert data["predicate"]["runDetails"]["builder"]["id"]
    # A time or an invocation would differ between two builds.
    assert "metadata" not in data["predicate"]["runDetails"]


def test_does_not_depend_on_order_or_hash_seed() -> None:
    other = replace(STATEMENT, subjects=dict(reversed(list(STATEMENT.subjects.items()))))
    assert provenance.serialize(other) == provenance.serialize(STATEMENT)
    code = (
        "import sys; from nabla.release import provenance as p; "
        "sys.stdout.buffer.write(p.serialize(p.Statement('1.2.3', {f'f{i}': str(i) * 64 for i in range(9)}, ())))"
    )
    words = [sys.executable, "-c", code]
    outputs = {
        subprocess.run(words, cwd=ROOT, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_no_subject() -> None:
    with pytest.raises(ProvenanceError, match="At least one subject"):
        provenance.serialize(replace(STATEMENT, subjects={}))


def _set(*path: str | int, value: object) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


PREDICATE = ("predicate", "buildDefinition")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("_type", value="https://in-toto.io/Statement/v0.1"), "not have the format"),
        (_set("subject", value=[]), "no subject"),
        (_set("subject", 0, "digest", value={}), "not a statement"),
        (_set("predicate", value={"nonsense": True}), "not a statement"),
        (_set(*PREDICATE, "buildTime", value="now"), "not have the format"),
        (_set("predicateType", value="https://slsa.dev/provenance/v0.2"), "not have the format"),
        (_set("predicate", "runDetails", "builder", "id", value="urn:other"), "not have the format"),
        (_set("predicate", "runDetails", "metadata", value={"invocationId": "7"}), "not have the format"),
        (_set(*PREDICATE, "externalParameters", "target", value="x"), "not have the format"),
        (_set(*PREDICATE, "resolvedDependencies", 0, "digest", "md5", value="0"), "not a statement"),
        (_set("subject", 0, "digest", "sha512", value="0"), "not have the format"),
    ],
)
def test_other_statements_are_refused(change: Callable[[Any], None], reason: str) -> None:
    data = json.loads(provenance.serialize(STATEMENT))
    change(data)
    with pytest.raises(StatementError, match=reason):
        statement.read((json.dumps(data, sort_keys=True, separators=(",", ":")) + "\n").encode())


@pytest.mark.parametrize("payload", [b"", b"[]", b"1", b"\xff", b"{}", b"[" * 100_000])
def test_no_statement(payload: bytes) -> None:
    with pytest.raises(StatementError):
        statement.read(payload)


def test_text_that_cannot_be_encoded() -> None:
    data = json.loads(provenance.serialize(STATEMENT))
    data["predicate"]["buildDefinition"]["externalParameters"]["version"] = "\ud800"
    with pytest.raises(StatementError, match="UnicodeEncodeError"):
        statement.read(json.dumps(data).encode())


def test_dependencies_are_what_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted independently: locks by listing, sources by searching for digests in the text of recipes."""
    monkeypatch.setenv("NABLA_COMMIT", "5" * 40)
    by_name = {each.name: each for each in provenance.dependencies()}
    for path in (*TOOLCHAIN.glob("*.lock"), ROOT / "requirements.txt", *ROOT.glob("recipes/*/recipe.toml")):
        assert by_name[str(path.relative_to(ROOT))].digest == file_sha256(path)
    text = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("recipes/*/recipe.toml"))
    digests = {line.split('"')[1] for line in text.splitlines() if line.startswith("sha256 =")}
    assert digests <= {each.digest for each in by_name.values()}
    assert by_name[statement.REPOSITORY] == Dependency(statement.REPOSITORY, "gitCommit", "5" * 40)


def test_dependencies_of_a_checkout_without_git(tmp_path: Path) -> None:
    (tmp_path / "toolchain").mkdir()
    (tmp_path / "requirements.txt").write_text("x==1\n")
    assert statement.REPOSITORY not in {each.name for each in provenance.dependencies(tmp_path)}
