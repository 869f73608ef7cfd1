# SPDX-License-Identifier: Apache-2.0
"""The provenance of a release: an in-toto statement (v1) with SLSA's predicate for provenance (v1).

The subjects are the files of the release. The resolved dependencies are the locked inputs: the lock files, each recipe
with all archives of its sources, and the commit. The statement contains no time, host name or random number, so it is
reproducible.

in-toto's `Statement.validate` accepts any predicate. The predicate is therefore built with SLSA's protocol buffers,
which only have the fields of the standard. verify/release/statement.py reads it again, without these libraries.

The specifications: https://github.com/in-toto/attestation/tree/main/spec/v1, https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nabla.core import digest
from nabla.core import version as checkout
from nabla.core.errors import NablaError
from nabla.core.paths import RECIPES, ROOT, TOOLCHAIN
from nabla.sources import recipe
from nabla.sources.recipe import UrlOrigin
from verify.epoch import SOURCE_DATE_EPOCH
from verify.release.statement import BUILD_TYPE, BUILDER, COMMAND, PREDICATE, REPOSITORY, Dependency, Statement


class ProvenanceError(NablaError):
    """A statement is invalid."""


def dependencies(root: Path = ROOT) -> tuple[Dependency, ...]:
    """Return the locked inputs of this checkout, sorted. Raises `RecipeError`."""
    return tuple(sorted({*_locks(root), *_sources(), *_commit(root)}))


def serialize(statement: Statement) -> bytes:
    """Return the statement as canonical JSON. Raises `ProvenanceError` if it is invalid."""
    from google.protobuf.json_format import MessageToDict
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2  # type: ignore[import-untyped]
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor  # type: ignore[import-untyped]
    from in_toto_attestation.v1.statement import Statement as InTotoStatement  # type: ignore[import-untyped]

    predicate = provenance_pb2.Provenance()
    definition = predicate.build_definition
    definition.build_type = BUILD_TYPE
    definition.external_parameters.update({"command": COMMAND, "version": statement.version})
    definition.internal_parameters.update({"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)})
    for each in statement.dependencies:
        annotations = {"modified": True} if each.modified else None
        resource = ResourceDescriptor(
            each.name,
            digest={each.algorithm: each.digest},
            download_location=each.address,
            annotations=annotations,
        )
        definition.resolved_dependencies.append(resource.pb)
    predicate.run_details.builder.id = BUILDER
    subjects = [
        ResourceDescriptor(name, digest={"sha256": statement.subjects[name]}).pb for name in sorted(statement.subjects)
    ]
    in_toto = InTotoStatement(subjects, PREDICATE, MessageToDict(predicate))
    try:
        in_toto.validate()
    except ValueError as error:
        raise ProvenanceError(f"the statement is not valid: {error}") from error
    return (digest.canonical(MessageToDict(in_toto.pb)) + "\n").encode()


def _locks(root: Path) -> Iterator[Dependency]:
    for path in (*sorted((root / TOOLCHAIN.name).glob("*.lock")), root / "requirements.txt"):
        yield _file(path, root)


def _sources() -> Iterator[Dependency]:
    for name in recipe.names():
        loaded = recipe.load(name)
        yield _file(loaded.path, RECIPES.parent)
        for source in loaded.source:
            for origin in source.origin:
                url = origin.url[0] if isinstance(origin, UrlOrigin) else ""
                yield Dependency(f"{RECIPES.name}/{name}/{origin.file}", "sha256", origin.sha256, url)


def _commit(root: Path) -> Iterator[Dependency]:
    commit = checkout.commit(root)
    if commit is not None:
        yield Dependency(REPOSITORY, "gitCommit", commit, modified=checkout.is_modified(root))


def _file(path: Path, root: Path) -> Dependency:
    return Dependency(str(path.relative_to(root)), "sha256", digest.sha256_file(path))
