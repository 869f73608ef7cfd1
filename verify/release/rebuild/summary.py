# SPDX-License-Identifier: Apache-2.0
"""The verification summary (VSA) of a release: an in-toto statement v1 with SLSA's predicate of that name, v1.

It informs consumers who trust the verifier that the checks passed, so that they need not repeat them. The envelope is
DSSE with one signature by OpenSSH in the namespace `nabla-summary`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verify.release import files, signatures
from verify.release.layout import STATEMENT
from verify.release.statement import MEDIA_TYPE

PREDICATE = "https://slsa.dev/verification_summary/v1"
VERIFIER = "urn:x-nabla:verify.release"
POLICY = "urn:x-nabla:allowed-signers"
SLSA = "1.2"
NAMESPACE = "nabla-summary"
# The provenance exists, is complete and signed, but the signer is the person who built the release: docs/release.md.
LEVEL = "SLSA_BUILD_LEVEL_1"


@dataclass(frozen=True)
class Summary:
    """The result of a verification. `subjects`: path -> sha256. `policy`: the digest of the file of allowed signers.

    `inputs`: name -> sha256 of the statements that were verified. `rebuilds`: the number of required rebuilds.
    """

    version: str
    subjects: Mapping[str, str]
    policy: str
    inputs: Mapping[str, str]
    passed: bool
    rebuilds: int
    time: datetime


def form(summary: Summary) -> Any:
    """Return the statement as JSON data."""
    levels = [LEVEL, *([f"NABLA_REBUILT_BY_{summary.rebuilds}"] if summary.rebuilds else [])]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": PREDICATE,
        "subject": [{"name": name, "digest": {"sha256": summary.subjects[name]}} for name in sorted(summary.subjects)],
        "predicate": {
            "verifier": {"id": VERIFIER},
            "timeVerified": summary.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "resourceUri": f"urn:x-nabla:release:{summary.version}",
            "policy": {"uri": POLICY, "digest": {"sha256": summary.policy}},
            "inputAttestations": [
                {"uri": name, "digest": {"sha256": summary.inputs[name]}} for name in sorted(summary.inputs)
            ],
            "verificationResult": "PASSED" if summary.passed else "FAILED",
            "verifiedLevels": levels if summary.passed else ["FAILED"],
            "slsaVersion": SLSA,
        },
    }


def inputs(folder: Path, statements: Collection[Path] = ()) -> dict[str, str]:
    """Return name -> sha256 of the provenance of a release and of statements of rebuilds."""
    paths = {STATEMENT: folder / STATEMENT, **{f"attestations/{path.name}": path for path in statements}}
    return {name: files.sha256(path) for name, path in paths.items() if path.is_file()}


def seal(summary: Summary, private: Path) -> str:
    """Return the signed envelope. Raises `SignatureError` if the key cannot sign."""
    payload = signatures.canonical(form(summary)) + "\n"
    return signatures.seal(payload.encode(), MEDIA_TYPE, private, NAMESPACE)
