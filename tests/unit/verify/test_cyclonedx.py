# SPDX-License-Identifier: Apache-2.0
"""The fast check of addresses agrees with the general parser."""

from __future__ import annotations

import json

import pytest

from verify.release import cyclonedx


def document(address: str) -> str:
    """A small document with one address."""
    component = {
        "type": "library",
        "name": "x",
        "version": "1",
        "externalReferences": [{"type": "website", "url": address}],
    }
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [component]})


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/a?b=c#d",
        "patches/x/0001-y.patch#sha256=00",
        "pkg:apk/alpine/zlib@1.3?arch=x86_64",
        "http://example.org:80/%20",
        "https://example.org/ä",
        "",
        "https://example.org/a b",
        "https://example.org/%",
        "https://example.org/<a>",
        "http://[::1",
        "https://example.org/ä b",
        "1:2",
    ],
)
def test_address(address: str) -> None:
    from rfc3987_syntax import is_valid_syntax

    said = cyclonedx.problem(document(address))
    assert (said is None) == is_valid_syntax("iri_reference", address), said


def test_other_problems() -> None:
    assert cyclonedx.problem(document("x")) is None
    assert cyclonedx.problem("{}") is not None
    assert "further" in (cyclonedx.problem(document("x").replace('"name"', '"further": 1, "name"')) or "")
