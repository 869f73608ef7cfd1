# SPDX-License-Identifier: Apache-2.0
"""Write an inventory as CycloneDX 1.6 in JSON, by cyclonedx-python-lib, validated by the standard's schema."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nabla.core import digest
from nabla.sbom.inventory import (
    NAME,
    Component,
    ComponentFile,
    Inventory,
    Kind,
    Patch,
    SbomError,
    Source,
    spdx_expression,
    supplier,
)
from verify.release import cyclonedx
from verify.release.cyclonedx import BUILT_WITH, KIND, ORIGIN

if TYPE_CHECKING:
    from cyclonedx.model import ExternalReference, HashType
    from cyclonedx.model.component import Component as CdxComponent
    from cyclonedx.model.component import Patch as CdxPatch
    from cyclonedx.model.contact import OrganizationalEntity
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

_UUIDS = uuid.UUID("0f3f4f0e-6a53-5d0e-8b35-4b3f6f2f9a11")  # namespace of serial numbers
_TYPES: dict[Kind, str] = {
    "kernel": "operating-system",
    "library": "library",
    "program": "application",
    "package": "library",
    "base": "library",
    "wheel": "library",
    "bundled": "library",
    "image": "container",
}


def write(inventory: Inventory) -> str:
    """Return the validated document. Raises `SbomError` if it is invalid.

    The serial number is derived from the content; the time is the date of all builds.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component as CdxComponent
    from cyclonedx.model.component import ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    sources = {source.ref: source for source in inventory.sources}
    first = {c.name: c.ref for c in inventory.of_kind("package") if c.name == c.origin}
    converted = {c.ref: _component(c, sources, first.get(c.origin or c.ref, c.ref)) for c in inventory.components}
    bom = Bom(components=converted.values())
    bom.metadata.timestamp = datetime.fromtimestamp(inventory.epoch, UTC)
    root = CdxComponent(
        name=NAME, type=ComponentType.PLATFORM, version=inventory.version, bom_ref=NAME, supplier=_supplier(NAME)
    )
    bom.metadata.component = root
    for component in inventory.components:
        needed = {*component.depends, *component.contains}
        bom.register_dependency(converted[component.ref], [converted[ref] for ref in sorted(needed)])
    inner = {ref for component in inventory.components for ref in component.contains}
    bom.register_dependency(root, [converted[ref] for ref in sorted(converted) if ref not in inner])
    bom.serial_number = uuid.uuid5(_UUIDS, digest.config_digest(inventory.content()))
    text = JsonV1Dot6(bom).output_as_string(indent=1) + "\n"
    _validate(text)
    return text


def _validate(text: str) -> None:
    problem = cyclonedx.problem(text)
    if problem is not None:
        raise SbomError(f"the CycloneDX document is not valid: {problem}"[:600])


def _supplier(name: str) -> OrganizationalEntity:
    from cyclonedx.model.contact import OrganizationalEntity

    return OrganizationalEntity(name=name)


def _component(component: Component, sources: dict[str, Source], first: str) -> CdxComponent:
    """Return a component. `first`: the package that lists the sources of all packages of the same recipe."""
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component as CdxComponent
    from cyclonedx.model.component import ComponentType, Pedigree
    from packageurl import PackageURL

    brief = component.kind == "package" and component.ref != first
    properties = {KIND: component.kind, ORIGIN: component.origin, BUILT_WITH: first if brief else None}
    if component.file:
        properties |= _file_properties(component.kind, component.file)
    return CdxComponent(
        name=component.name,
        version=component.version,
        type=ComponentType(_TYPES[component.kind]),
        bom_ref=component.ref,
        supplier=_supplier(supplier(component)),
        description=component.summary or None,
        purl=PackageURL.from_string(component.purl) if component.purl else None,
        hashes=_hashes(component.file) if component.file else None,
        licenses=_licenses(component.license),
        external_references=[] if brief else _references(component, sources),
        properties=[Property(name=key, value=value) for key, value in properties.items() if value],
        pedigree=Pedigree(patches=map(_patch, component.patches)) if component.patches and not brief else None,
    )


def _hashes(file: ComponentFile) -> list[HashType]:
    from cyclonedx.model import HashAlgorithm, HashType

    return [
        HashType(alg=HashAlgorithm.SHA_256, content=file.sha256),
        HashType(alg=HashAlgorithm.SHA_512, content=file.sha512),
    ]


def _file_properties(kind: Kind, file: ComponentFile) -> dict[str, str]:
    """Return the properties that BSI TR-03183-2 (2.1.0, section 5.2.2) requires of a component that is a file.

    Packages, wheels and images contain files with their metadata, which makes them structured archives.
    """
    program = kind in ("kernel", "library", "program")
    return {
        "bsi:component:filename": file.name,
        "bsi:component:executable": "executable" if program else "non-executable",
        "bsi:component:archive": "no archive" if program else "archive",
        "bsi:component:structured": "unstructured" if program else "structured",
    }


def _licenses(text: str) -> list[LicenseExpression | DisjunctiveLicense]:
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

    if not text or text == "NOASSERTION":
        return []
    expression = spdx_expression(text)
    # A license that is not an SPDX expression (Alpine's "custom ISC") is written as a name.
    return [LicenseExpression(value=expression) if expression else DisjunctiveLicense(name=text)]


def _references(component: Component, sources: dict[str, Source]) -> list[ExternalReference]:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri

    references = []
    if component.homepage:
        references.append(ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(component.homepage)))
    for source in (sources[ref] for ref in component.sources):
        for file in source.files:
            hashes = [HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)]
            for url in (*file.places, *((file.purl,) if file.purl else ())):
                references.append(
                    ExternalReference(
                        type=ExternalReferenceType.SOURCE_DISTRIBUTION,
                        url=XsUri(url),
                        comment=f"{source.name}: {file.file}",
                        hashes=hashes,
                    )
                )
    return references


def _patch(patch: Patch) -> CdxPatch:
    from cyclonedx.model import XsUri
    from cyclonedx.model.component import Diff, PatchClassification
    from cyclonedx.model.component import Patch as CdxPatch
    from cyclonedx.model.issue import IssueClassification, IssueType

    return CdxPatch(
        type=PatchClassification.BACKPORT if patch.backport else PatchClassification.UNOFFICIAL,
        # A diff has no field for a digest.
        diff=Diff(url=XsUri(f"{patch.path}#sha256={patch.sha256}")),
        resolves=[IssueType(type=IssueClassification.SECURITY, id=number) for number in patch.fixes],
    )
