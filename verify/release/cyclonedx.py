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
    """Return the problem of a CycloneDX 1.6 document in JSON; None if it is valid."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    _check_addresses_quickly()
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return None if problem is None else str(problem)


@functools.cache
def _check_addresses_quickly() -> None:
    """Make jsonschema check ASCII addresses with rfc3986-validator.

    The schema requires IRI references, which jsonschema checks with a general parser that takes 50 ms for each. An IRI
    reference in ASCII is a URI reference (RFC 3987, section 2.2), which a regular expression can check.
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
