# SPDX-License-Identifier: Apache-2.0
"""Write statements about vulnerabilities (VEX) as OpenVEX 0.2 and CycloneDX 1.6: `doit vex [DATABASE…]`.

out/sbom/nabla.cdx.json, [fixes] and [not-affected] of the recipes, findings of a scan
    -> out/vex/nabla.openvex.json, out/vex/nabla.cdx.json

The documents depend only on these inputs. Their only time is the common date of all builds.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nabla.core import artifacts, digest, files
from nabla.core.paths import relative
from nabla.sbom.inventory import NAME, SbomError
from nabla.sources import recipe
from nabla.sources.recipe import Recipe
from verify.epoch import SOURCE_DATE_EPOCH
from verify.release import cyclonedx, vex
from verify.release.tools import Tools
from verify.release.vex import Statement
from verify.scan import advisories, match
from verify.scan.match import Subject
from verify.scan.versions import ApkOrder

OPENVEX = artifacts.VEX / "nabla.openvex.json"
CYCLONEDX = artifacts.VEX / "nabla.cdx.json"

_UUIDS = uuid.UUID("5d1f7a52-2a0b-5c39-9a55-7c1f0d6e2b84")  # namespace of serial numbers
# The date of all builds. Optional in statements, but some readers require it there.
_DATE = datetime.fromtimestamp(SOURCE_DATE_EPOCH, UTC).isoformat()
_BUILT = ("kernel", "library", "program", "package", "wheel")


def write(bill: Path, databases: Sequence[Path]) -> list[Statement]:
    """Write both documents; return the statements. Raises `ScanError`, `ToolError`, `SbomError`, `RecipeError`.

    `bill`: a CycloneDX document of a release. `databases`: open findings of a scan become statements, too.
    """
    subjects = match.read_bill(bill)
    statements = known(subjects, [recipe.load(name) for name in recipe.names()])
    if databases:
        statements += _unsettled(subjects, databases, statements)
    statements.sort()
    files.write(OPENVEX, openvex(statements))
    files.write(CYCLONEDX, cyclonedx_document(statements))
    return statements


def write_known(bill: Path, openvex_target: Path, cyclonedx_target: Path) -> int:
    """Write the statements of patches and recipes about the components of a bill of materials; return their number."""
    recipes = [recipe.load(name) for name in recipe.names()]
    statements = sorted(known(match.read_bill(bill), recipes))
    openvex_target.write_text(openvex(statements), encoding="utf-8")
    cyclonedx_target.write_text(cyclonedx_document(statements), encoding="utf-8")
    return len(statements)


def known(subjects: Iterable[Subject], recipes: Iterable[Recipe]) -> list[Statement]:
    """Return the statements about fixes by patches, and about vulnerabilities that recipes exclude."""
    excluded = {each.name: each.not_affected for each in recipes if each.not_affected}
    return [statement for subject in subjects for statement in _known(subject, excluded)]


def _known(subject: Subject, excluded: dict[str, dict[str, recipe.NotAffected]]) -> Iterator[Statement]:
    products = tuple(sorted(subject.purls))
    for number, patches in subject.fixes.items():
        yield Statement(number, vex.FIXED, products, note=f"fixed by {', '.join(patches)}")
    if subject.kind in _BUILT:
        for name in excluded.keys() & set(subject.names):
            for number, entry in excluded[name].items():
                yield Statement(number, vex.NOT_AFFECTED, products, entry.justification, entry.reason)


def _unsettled(
    subjects: Sequence[Subject], databases: Sequence[Path], settled: Sequence[Statement]
) -> Iterator[Statement]:
    result = match.match(subjects, advisories.read(databases), ApkOrder(Tools().apk), settled)
    products = {(each.key, each.version): tuple(sorted(each.purls)) for each in subjects if each.shipped}
    for finding in result.open:
        yield Statement(finding.id, vex.OPEN, products[finding.component, finding.version], note=finding.summary)


def openvex(statements: Sequence[Statement]) -> str:
    """Return an OpenVEX document."""
    return (
        json.dumps(
            {
                "@context": vex.CONTEXT,
                "@id": f"urn:uuid:{_serial(statements)}",
                "author": NAME,
                "role": "Document Creator",
                "timestamp": _DATE,
                "version": 1,
                "statements": [_openvex_statement(each) for each in statements],
            },
            indent=1,
        )
        + "\n"
    )


def _openvex_statement(statement: Statement) -> dict[str, Any]:
    note = "impact_statement" if statement.status == vex.NOT_AFFECTED else "status_notes"
    return {
        "vulnerability": {"name": statement.vulnerability},
        "products": [{"@id": purl} for purl in statement.products],
        "status": statement.status,
        "timestamp": _DATE,
        **({"justification": statement.justification} if statement.justification else {}),
        **({note: statement.note} if statement.note else {}),
    }


def cyclonedx_document(statements: Sequence[Statement]) -> str:
    """Return a CycloneDX document whose only components are the products. Raises `SbomError`."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.impact_analysis import ImpactAnalysisJustification, ImpactAnalysisState
    from cyclonedx.model.vulnerability import BomTarget, Vulnerability, VulnerabilityAnalysis
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    bom = Bom()
    bom.metadata.timestamp = datetime.fromtimestamp(SOURCE_DATE_EPOCH, UTC)
    bom.serial_number = _serial(statements)
    for product in sorted({product for each in statements for product in each.products}):
        purl = PackageURL.from_string(product)
        bom.components.add(
            Component(name=purl.name, version=purl.version, purl=purl, bom_ref=product, type=ComponentType.LIBRARY)
        )
    for number, each in enumerate(statements):
        word = vex.JUSTIFICATIONS.get(each.justification)
        analysis = VulnerabilityAnalysis(
            state=ImpactAnalysisState(vex.STATES[each.status]),
            justification=ImpactAnalysisJustification(word) if word else None,
            detail=each.note or None,
        )
        targets = [BomTarget(ref=product) for product in each.products]
        bom.vulnerabilities.add(
            Vulnerability(bom_ref=f"statement-{number}", id=each.vulnerability, analysis=analysis, affects=targets)
        )
    text = JsonV1Dot6(bom).output_as_string(indent=1) + "\n"
    problem = cyclonedx.problem(text)
    if problem is not None:
        raise SbomError(f"{relative(CYCLONEDX)} is not valid: {problem}"[:600])
    return text


def _serial(statements: Sequence[Statement]) -> uuid.UUID:
    return uuid.uuid5(_UUIDS, digest.config_digest([list(map(str, vars(each).values())) for each in statements]))
