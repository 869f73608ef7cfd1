# SPDX-License-Identifier: Apache-2.0
"""What a release was made from: an in-toto statement (v1) with SLSA's predicate for provenance (v1).

Subjects are the files of the release, resolved dependencies what the repository locks: the lists of compilers and
Python packages, each recipe with every form of its sources, and the commit. No time, no name of a host and no random
number is in it, so that two builds of the same things tell the same.

in-toto's own `Statement.validate` accepts any predicate at all; the predicate goes through SLSA's protocol buffers,
which know no field but those of the standard, when it is written and when it is read.

The specifications: https://github.com/in-toto/attestation/tree/main/spec/v1, https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.core import digest
from nabla.core import version as checkout
from nabla.core.errors import NablaError
from nabla.core.paths import RECIPES, ROOT, TOOLCHAIN
from nabla.sources import recipe
from nabla.sources.recipe import UrlOrigin
from verify.epoch import SOURCE_DATE_EPOCH

MEDIA_TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:x-nabla:release:v1"  # docs/release.md says what its parameters mean
BUILDER = "urn:x-nabla:doit.sh"
COMMAND = "./doit.sh release"
REPOSITORY = "repository"


class ProvenanceError(NablaError):
    """A statement is not what it must be."""


@dataclass(frozen=True, order=True)
class Dependency:
    """Something that went into the release. `digest`: by `algorithm`. `place`: an address, where it has one.

    `modified`: the working tree differed from the commit.
    """

    name: str
    algorithm: str
    digest: str
    place: str = ""
    modified: bool = False


@dataclass(frozen=True)
class Told:
    """What a statement tells. `subjects`: path in the release -> sha256."""

    version: str
    subjects: Mapping[str, str]
    dependencies: tuple[Dependency, ...]

    @property
    def commit(self) -> str | None:
        """The commit of the repository."""
        return next((each.digest for each in self.dependencies if each.name == REPOSITORY), None)


def dependencies(root: Path = ROOT) -> tuple[Dependency, ...]:
    """Return what this checkout locks, sorted. Raises `RecipeError`."""
    return tuple(sorted({*_locks(root), *_sources(), *_commit(root)}))


def statement(told: Told) -> bytes:
    """Return the statement as canonical JSON. Raises `ProvenanceError` when it is not valid."""
    from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2  # type: ignore[import-untyped]
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor  # type: ignore[import-untyped]
    from in_toto_attestation.v1.statement import Statement  # type: ignore[import-untyped]

    predicate = provenance_pb2.Provenance()
    definition = predicate.build_definition
    definition.build_type = BUILD_TYPE
    definition.external_parameters.update({"command": COMMAND, "version": told.version})
    definition.internal_parameters.update({"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)})
    for each in told.dependencies:
        annotations = {"modified": True} if each.modified else None
        found = ResourceDescriptor(
            each.name,
            digest={each.algorithm: each.digest},
            download_location=each.place,
            annotations=annotations,
        )
        definition.resolved_dependencies.append(found.pb)
    predicate.run_details.builder.id = BUILDER
    subjects = [ResourceDescriptor(name, digest={"sha256": told.subjects[name]}).pb for name in sorted(told.subjects)]
    made = Statement(subjects, PREDICATE, MessageToDict(predicate))
    try:
        made.validate()
    except ValueError as error:
        raise ProvenanceError(f"the statement is not valid: {error}") from error
    return (digest.canonical(MessageToDict(made.pb)) + "\n").encode()


def read(payload: bytes) -> Told:
    """Return what a statement tells. Raises `ProvenanceError` for one that is not valid, or that is not of our form."""
    from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2  # type: ignore[import-untyped]
    from in_toto_attestation.v1.statement import Statement

    try:
        outer = ParseDict(json.loads(payload), statement_pb2.Statement())
        Statement.copy_from_pb(outer).validate()
        predicate = ParseDict(MessageToDict(outer.predicate), provenance_pb2.Provenance())
    except (ValueError, TypeError, AttributeError, ParseError) as error:
        raise ProvenanceError(f"this is no statement of provenance: {error}") from error
    if outer.predicate_type != PREDICATE:
        raise ProvenanceError(f"the predicate's type is {outer.predicate_type!r} instead of {PREDICATE!r}")
    definition = predicate.build_definition
    told = Told(
        str(MessageToDict(definition.external_parameters).get("version", "")),
        {each.name: each.digest.get("sha256", "") for each in outer.subject},
        tuple(_read_dependency(each) for each in definition.resolved_dependencies),
    )
    # Whatever the form allows besides (another builder, parameters, a second digest) is told by a difference here.
    if statement(told) != payload:
        raise ProvenanceError(
            "the statement is not of the form of releases", f"its build type: {definition.build_type}"
        )
    return told


def _read_dependency(found: Any) -> Dependency:
    algorithm, value = next(iter(sorted(found.digest.items())), ("", ""))
    return Dependency(found.name, algorithm, value, found.download_location, "modified" in found.annotations)


def _locks(root: Path) -> Iterator[Dependency]:
    for path in (*sorted((root / TOOLCHAIN.name).glob("*.lock")), root / "requirements.txt"):
        yield _file(path, root)


def _sources() -> Iterator[Dependency]:
    for name in recipe.names():
        loaded = recipe.load(name)
        yield _file(loaded.path, RECIPES.parent)
        for source in loaded.source:
            for origin in source.origin:
                place = origin.url[0] if isinstance(origin, UrlOrigin) else ""
                yield Dependency(f"{RECIPES.name}/{name}/{origin.file}", "sha256", origin.sha256, place)


def _commit(root: Path) -> Iterator[Dependency]:
    commit = checkout.commit(root)
    if commit is not None:
        yield Dependency(REPOSITORY, "gitCommit", commit, modified=checkout.is_modified(root))


def _file(path: Path, root: Path) -> Dependency:
    return Dependency(str(path.relative_to(root)), "sha256", digest.sha256_file(path))
