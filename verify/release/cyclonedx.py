# SPDX-License-Identifier: Apache-2.0
"""Check CycloneDX documents against the standard's schema, by cyclonedx-python-lib and jsonschema."""

from __future__ import annotations

import functools
from typing import Any

# Names of nabla's own properties.
KIND = "nabla:kind"
ORIGIN = "nabla:origin"
# The package of the same recipe that lists the sources and patches for all of them: the schema's check of each address
# is slow.
BUILT_WITH = "nabla:built-with"


def problem(text: str) -> str | None:
    """Return what is wrong with a document in JSON, CycloneDX 1.6; None where nothing is."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    _check_addresses_quickly()
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return None if found is None else str(found)


@functools.cache
def _check_addresses_quickly() -> None:
    """Have jsonschema check addresses in ASCII by rfc3986-validator.

    The schema wants IRI references, which jsonschema leaves to a general parser: a twentieth of a second for each. One
    in ASCII is a URI reference (RFC 3987, section 2.2), for which a regular expression does; others go the long way.
    """
    from jsonschema import Draft7Validator
    from rfc3986_validator import validate_rfc3986

    checker = Draft7Validator.FORMAT_CHECKER
    slow, raises = checker.checkers["iri-reference"]

    def check(value: Any) -> bool:
        if isinstance(value, str) and value.isascii():
            return validate_rfc3986(value, rule="URI_reference") is not None
        return bool(slow(value))

    checker.checks("iri-reference", raises)(check)
