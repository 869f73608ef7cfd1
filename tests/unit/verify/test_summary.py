# SPDX-License-Identifier: Apache-2.0
"""Verification summaries: their form, by the libraries of the standard, and their signature."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from in_toto_attestation.predicates.vsa.v1 import vsa_pb2  # type: ignore[import-untyped]
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor  # type: ignore[import-untyped]
from in_toto_attestation.v1.statement import Statement  # type: ignore[import-untyped]

from tests.integration.release.copies import Keys, make_key
from verify.release import signatures
from verify.release.rebuild import summary
from verify.release.rebuild.summary import Summary
from verify.release.statement import MEDIA_TYPE

PASSED = Summary(
    "1.2.3",
    {"bin/nabla-run": "a" * 64, "SHA256SUMS": "b" * 64},
    "c" * 64,
    {"provenance/nabla.intoto.json": "d" * 64},
    passed=True,
    rebuilds=0,
    time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_key(tmp_path)


@pytest.mark.parametrize(
    ("changes", "result", "levels"),
    [
        ({}, "PASSED", ["SLSA_BUILD_LEVEL_1"]),
        ({"rebuilds": 2}, "PASSED", ["SLSA_BUILD_LEVEL_1", "NABLA_REBUILT_BY_2"]),
        ({"passed": False}, "FAILED", ["FAILED"]),
        ({"passed": False, "rebuilds": 2}, "FAILED", ["FAILED"]),
    ],
)
def test_form(changes: dict[str, object], result: str, levels: list[str]) -> None:
    """The protocol buffers of the standard have its fields. They take the list of levels for a text."""
    data = summary.form(replace(PASSED, **changes))  # type: ignore[arg-type]
    predicate = data["predicate"]
    known = {**predicate, "verifiedLevels": ""}
    read = MessageToDict(ParseDict(known, vsa_pb2.VerificationSummary()), always_print_fields_with_no_presence=True)
    assert {name: value for name, value in read.items() if name != "dependencyLevels"} == known
    assert (predicate["verificationResult"], predicate["verifiedLevels"]) == (result, levels)
    subjects = [ResourceDescriptor(each["name"], digest=each["digest"]).pb for each in data["subject"]]
    Statement(subjects, data["predicateType"], predicate).validate()


def test_signature(keys: Keys, tmp_path: Path) -> None:
    private, public = keys
    signers = tmp_path / "signers"
    signers.write_text(f'carol namespaces="{summary.NAMESPACE}" {public.read_text()}')
    sealed = summary.seal(PASSED, private)
    payload, _ = signatures.open_signed(sealed, MEDIA_TYPE, "carol", signers, summary.NAMESPACE)
    assert json.loads(payload) == summary.form(PASSED)
    for namespace, name in (("nabla-rebuild", "carol"), (summary.NAMESPACE, "dave")):
        with pytest.raises(signatures.SignatureError, match="no allowed signer"):
            signatures.open_signed(sealed, MEDIA_TYPE, name, signers, namespace)


def test_inputs(tmp_path: Path) -> None:
    release = tmp_path / "release"
    (release / "provenance").mkdir(parents=True)
    (release / "provenance" / "nabla.intoto.json").write_bytes(b"abc")
    (tmp_path / "alice.json").write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    named = summary.inputs(release, [tmp_path / "alice.json", tmp_path / "absent.json"])
    assert named == {"provenance/nabla.intoto.json": abc, "attestations/alice.json": abc}


def test_a_key_that_cannot_sign(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(signatures.SignatureError, match="the statement cannot be signed") as caught:
        summary.seal(PASSED, tmp_path / "key")
    assert caught.value.hint
