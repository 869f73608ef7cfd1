# SPDX-License-Identifier: Apache-2.0
"""Statements about vulnerabilities (VEX), from OpenVEX 0.2 and CycloneDX 1.6 documents.

OpenVEX: https://github.com/openvex/spec/blob/main/OPENVEX-SPEC.md. CycloneDX: `vulnerabilities[].analysis` of the JSON
schema. nabla/sbom/vex.py writes both.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verify.release import cyclonedx

FIXED, NOT_AFFECTED, OPEN = "fixed", "not_affected", "under_investigation"
CONTEXT = "https://openvex.dev/ns/v0.2.0"
# OpenVEX's justifications -> CycloneDX's, which has no equivalent of the fourth.
JUSTIFICATIONS = {
    "component_not_present": "code_not_present",
    "vulnerable_code_not_present": "code_not_present",
    "vulnerable_code_not_in_execute_path": "code_not_reachable",
    "vulnerable_code_cannot_be_controlled_by_adversary": "requires_environment",
    "inline_mitigations_already_exist": "protected_by_mitigating_control",
}
STATES = {FIXED: "resolved_with_pedigree", NOT_AFFECTED: "not_affected", OPEN: "in_triage"}
# Other states of both standards leave a vulnerability open.
_STATUS = {FIXED: FIXED, NOT_AFFECTED: NOT_AFFECTED, "resolved": FIXED, "resolved_with_pedigree": FIXED}
_STATUS |= {"false_positive": NOT_AFFECTED}


class VexError(Exception):
    """A document cannot be read, or statements contradict each other. `hint`: the remedy."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, order=True)
class Statement:
    """An author's statement about one vulnerability in some products, which are package URLs.

    `justification`: one of `JUSTIFICATIONS`, for products that are not affected. `note`: the reason, for readers.
    """

    vulnerability: str
    status: str
    products: tuple[str, ...]
    justification: str = ""
    note: str = ""


def read(paths: Iterable[Path]) -> list[Statement]:
    """Return the statements of VEX documents. Raises `VexError` for an unreadable or foreign file."""
    return [statement for path in paths for statement in _read(path)]


def _read(path: Path) -> Sequence[Statement]:
    try:
        document = json.loads(path.read_bytes())
        if str(document.get("@context", "")).startswith(CONTEXT.rpartition("/")[0]):
            return list(_openvex(document))
        if document.get("bomFormat") == "CycloneDX":
            return list(_cyclonedx(document))
    except FileNotFoundError:
        raise VexError(f"there is no VEX document {path}", "run `doit vex`, or name another file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VexError(f"{path} is not a VEX document: {error!r}") from error
    raise VexError(f"{path} is not a VEX document", "OpenVEX and CycloneDX, as JSON, are supported")


def _openvex(document: Mapping[str, Any]) -> Iterator[Statement]:
    for entry in document["statements"]:
        justification = str(entry.get("justification", ""))
        note = str(entry.get("impact_statement") or entry.get("status_notes", ""))
        status = _STATUS.get(entry["status"], OPEN)
        if status == NOT_AFFECTED and not (justification or note):
            raise ValueError(f"{entry['vulnerability']['name']}: not affected, without a justification")
        products = tuple(str(product["@id"]) for product in entry["products"])
        yield Statement(str(entry["vulnerability"]["name"]), status, products, justification, note)


def _cyclonedx(document: Mapping[str, Any]) -> Iterator[Statement]:
    purls = {each["bom-ref"]: str(each.get("purl", "")) for each in document.get("components", ())}
    back = {word: name for name, word in reversed(JUSTIFICATIONS.items())}
    for entry in document.get("vulnerabilities", ()):
        analysis = entry.get("analysis", {})
        products = tuple(purls[each["ref"]] for each in entry["affects"])
        justification = back.get(analysis.get("justification", ""), "")
        status = _STATUS.get(analysis.get("state", ""), OPEN)
        yield Statement(str(entry["id"]), status, products, justification, str(analysis.get("detail", "")))


def status_of(statements: Iterable[Statement], numbers: frozenset[str], products: frozenset[str]) -> str:
    """Return the status of a vulnerability, known by these numbers, in the products of one component.

    A statement has to name every product. Without one the vulnerability is open. Raises `VexError` if two
    statements contradict each other.
    """
    settled: dict[str, set[str]] = {}
    for statement in statements:
        if statement.vulnerability in numbers:
            for product in products.intersection(statement.products):
                settled.setdefault(product, set()).add(statement.status)
    for product, statuses in settled.items():
        if len(statuses) > 1:
            name = min(numbers)
            raise VexError(f"VEX: {name} is {' and '.join(sorted(statuses))} in {product}", "remove one statement")
    if not products or settled.keys() != products:
        return OPEN
    stated = {status for statuses in settled.values() for status in statuses}
    return stated.pop() if len(stated) == 1 else OPEN


def problems(openvex: Path, other: Path, products: Collection[str]) -> Iterator[str]:
    """Yield the problems of an OpenVEX and a CycloneDX document. `products`: package URLs of the bill of materials."""
    try:
        one, two = read([openvex]), read([other])
    except VexError as error:
        yield str(error)
        return
    # CycloneDX has fewer justifications.
    if len({frozenset((each.vulnerability, each.status, each.products) for each in side) for side in (one, two)}) > 1:
        yield f"{openvex.name} and {other.name} differ"
    problem = cyclonedx.problem(other.read_text(encoding="utf-8"))
    if problem is not None:
        yield f"{other.name} is not valid: {problem.splitlines()[0]}"
    for statement in one:
        for product in statement.products:
            if product not in products:
                yield f"{openvex.name} names {product}, which is not in the bill of materials"
    for number in sorted({statement.vulnerability for statement in one}):
        for product in {product for each in one if each.vulnerability == number for product in each.products}:
            statuses = {each.status for each in one if each.vulnerability == number and product in each.products}
            if len(statuses) > 1:
                yield f"{openvex.name} contradicts itself about {number} in {product}"
