# SPDX-License-Identifier: Apache-2.0
"""Write an inventory as SPDX 2.3 in JSON, by spdx-tools, checked by its validator.

Components and sources are packages, patches are files. An image CONTAINS components, a component DEPENDS_ON others and
is GENERATED_FROM sources; a patch is a PATCH_FOR a source and PATCH_APPLIED to the component.
"""

from __future__ import annotations

import io
import json
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nabla.core import digest
from nabla.sbom.inventory import (
    NAME,
    Component,
    Inventory,
    Kind,
    Patch,
    SbomError,
    Source,
    SourceFile,
    licensing,
    spdx_expression,
    supplier,
)

if TYPE_CHECKING:
    from spdx_tools.spdx.model.actor import Actor
    from spdx_tools.spdx.model.file import File
    from spdx_tools.spdx.model.package import ExternalPackageRef, Package
    from spdx_tools.spdx.model.relationship import Relationship

_UUIDS = uuid.UUID("c2b3d8f4-7d8a-5c56-9b7c-6a1f0f1f3d22")  # namespace of documents
_PURPOSES: dict[Kind, str] = {
    "kernel": "OPERATING_SYSTEM",
    "library": "LIBRARY",
    "program": "APPLICATION",
    "package": "INSTALL",
    "base": "INSTALL",
    "wheel": "ARCHIVE",
    "bundled": "LIBRARY",
    "image": "CONTAINER",
}
_DOCUMENT = "SPDXRef-DOCUMENT"


def write(inventory: Inventory) -> str:
    """Return the validated document. Raises `SbomError` if it is invalid."""
    from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
    from spdx_tools.spdx.model.document import CreationInfo, Document
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    sources = {source.ref: source for source in inventory.sources}
    document = Document(
        CreationInfo(
            spdx_version="SPDX-2.3",
            spdx_id=_DOCUMENT,
            name=f"{NAME}-{inventory.version}",
            document_namespace=f"urn:uuid:{uuid.uuid5(_UUIDS, digest.config_digest(inventory.content()))}",
            creators=[_organization(NAME)],
            created=datetime.fromtimestamp(inventory.epoch, UTC).replace(tzinfo=None),
        ),
        packages=[
            _root(inventory),
            *(_component(component, sources) for component in inventory.components),
            *(_source(source) for source in inventory.sources),
        ],
        files=[_patch(patch) for patch in inventory.patches],
        relationships=_relationships(inventory),
    )
    problems = validate_full_spdx_document(document)
    if problems:
        raise SbomError(
            f"the SPDX document is not valid: {problems[0].validation_message} ({problems[0].context.spdx_id})",
            f"{len(problems)} findings",
        )
    stream = io.StringIO()
    converter: Any = DocumentConverter
    json.dump(converter().convert(document), stream, indent=1, ensure_ascii=False)
    return stream.getvalue() + "\n"


def spdx_id(ref: str) -> str:
    """Return the SPDX identifier of a reference; a short digest makes it unique after the removal of characters."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", ref.split("?")[0].removeprefix("pkg:")).strip("-")
    return f"SPDXRef-{plain}-{digest.sha256_bytes(ref.encode())[:8]}"


def _root(inventory: Inventory) -> Package:
    from spdx_tools.spdx.model.package import Package
    from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion

    return Package(
        spdx_id=spdx_id(NAME),
        name=NAME,
        version=inventory.version,
        supplier=_organization(NAME),
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        license_declared=licensing().parse("Apache-2.0"),
        comment="The license is that of nabla's own files; each component declares its own.",
    )


def _component(component: Component, sources: dict[str, Source]) -> Package:
    from spdx_tools.spdx.model.checksum import Checksum, ChecksumAlgorithm
    from spdx_tools.spdx.model.package import Package, PackagePurpose
    from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion

    declared, comment = _license(component.license)
    own = [sources[ref].name for ref in component.sources]
    file = component.file
    return Package(
        spdx_id=spdx_id(component.ref),
        name=component.name,
        version=component.version or None,
        supplier=_organization(supplier(component)),
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        file_name=file.name if file else None,
        checksums=[
            Checksum(ChecksumAlgorithm.SHA256, file.sha256),
            Checksum(ChecksumAlgorithm.SHA512, file.sha512),
        ]
        if file
        else [],
        homepage=component.homepage,
        license_declared=declared,
        license_comment=comment,
        summary=component.summary or None,
        source_info=f"source package: {component.origin}" if component.origin else None,
        comment=f"built from {', '.join(own)}" if own else None,
        external_references=_purls([component.purl]),
        primary_package_purpose=PackagePurpose[_PURPOSES[component.kind]],
    )


def _source(source: Source) -> Package:
    from spdx_tools.spdx.model.checksum import Checksum, ChecksumAlgorithm
    from spdx_tools.spdx.model.package import Package, PackagePurpose
    from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion

    first, *others = source.files
    declared, comment = _license(source.license)
    return Package(
        spdx_id=spdx_id(source.ref),
        name=source.name,
        version=source.version,
        file_name=first.file,
        supplier=_organization(NAME),
        download_location=first.places[0] if first.places else SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[Checksum(ChecksumAlgorithm.SHA256, first.sha256)],
        license_declared=declared,
        license_comment=comment,
        comment="\n".join(_also(first, others)) or None,
        external_references=_purls([file.purl for file in source.files]),
        primary_package_purpose=PackagePurpose.SOURCE,
    )


def _organization(name: str) -> Actor:
    from spdx_tools.spdx.model.actor import Actor, ActorType

    return Actor(ActorType.ORGANIZATION, name)


def _also(first: SourceFile, others: list[SourceFile]) -> list[str]:
    """Return a line for each other address of the first archive, and for each other archive of a source."""
    lines = [f"also at {url}" for url in first.places[1:]]
    for file in others:
        lines.append(
            f"also as {file.file}, sha256 {file.sha256}: {', '.join([*file.places, file.purl or ''])}".rstrip(", ")
        )
    return lines


def _patch(patch: Patch) -> File:
    from spdx_tools.spdx.model.checksum import Checksum, ChecksumAlgorithm
    from spdx_tools.spdx.model.file import File, FileType

    fixes = f"\nfixes {', '.join(patch.fixes)}" if patch.fixes else ""
    return File(
        name=f"./{patch.path}",
        spdx_id=spdx_id(patch.ref),
        checksums=[Checksum(ChecksumAlgorithm.SHA1, patch.sha1), Checksum(ChecksumAlgorithm.SHA256, patch.sha256)],
        file_types=[FileType.SOURCE],
        comment=f"{patch.title}{fixes}",
    )


def _license(text: str) -> tuple[Any, str | None]:
    """Return a license for SPDX, and a comment if the text is not an SPDX expression."""
    from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion

    expression = spdx_expression(text) if text and text != "NOASSERTION" else None
    if expression is not None:
        return licensing().parse(expression), None
    return SpdxNoAssertion(), f"its author writes: {text}" if text and text != "NOASSERTION" else None


def _purls(names: list[str | None]) -> list[ExternalPackageRef]:
    from spdx_tools.spdx.model.package import ExternalPackageRef, ExternalPackageRefCategory

    category = ExternalPackageRefCategory.PACKAGE_MANAGER
    return [ExternalPackageRef(category, "purl", name) for name in names if name]


def _relationships(inventory: Inventory) -> list[Relationship]:
    from spdx_tools.spdx.model.relationship import Relationship, RelationshipType

    relationships: set[tuple[str, str, str]] = {(_DOCUMENT, "DESCRIBES", spdx_id(NAME))}
    inner = {ref for component in inventory.components for ref in component.contains}
    for component in inventory.components:
        own = spdx_id(component.ref)
        if component.ref not in inner:
            relationships.add((spdx_id(NAME), "CONTAINS", own))
        relationships |= {(own, "CONTAINS", spdx_id(ref)) for ref in component.contains}
        relationships |= {(own, "GENERATED_FROM", spdx_id(ref)) for ref in component.sources}
        # An image starts from the base's files and does not depend on them.
        kind = "GENERATED_FROM" if component.kind == "image" else "DEPENDS_ON"
        relationships |= {(own, kind, spdx_id(ref)) for ref in component.depends}
        for patch in component.patches:
            relationships.add((spdx_id(patch.ref), "PATCH_APPLIED", own))
            relationships |= {(spdx_id(patch.ref), "PATCH_FOR", spdx_id(ref)) for ref in component.sources[:1]}
    return [Relationship(one, RelationshipType[kind], other) for one, kind, other in sorted(relationships)]
