# SPDX-License-Identifier: Apache-2.0
"""The statement of a release: in-toto v1 with SLSA's predicate for provenance v1, in a fixed format.

This module defines the format as JSON; nabla/release/provenance.py writes the same by the libraries of in-toto and
SLSA. Other content that the standards permit (another builder, other parameters, a second digest) is rejected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from verify.epoch import SOURCE_DATE_EPOCH
from verify.release.signatures import canonical

MEDIA_TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:x-nabla:release:v1"  # docs/release.md describes its parameters
BUILDER = "urn:x-nabla:doit.sh"
COMMAND = "./doit.sh release"
REPOSITORY = "repository"


class StatementError(Exception):
    """A statement is invalid."""


@dataclass(frozen=True, order=True)
class Dependency:
    """An input of the release. `digest`: by `algorithm`. `address`: if it has one.

    `modified`: the working tree differed from the commit.
    """

    name: str
    algorithm: str
    digest: str
    address: str = ""
    modified: bool = False


@dataclass(frozen=True)
class Statement:
    """The content of a statement. `subjects`: path in the release -> sha256."""

    version: str
    subjects: Mapping[str, str]
    dependencies: tuple[Dependency, ...]

    @property
    def commit(self) -> str | None:
        """The commit of the repository."""
        return next((each.digest for each in self.dependencies if each.name == REPOSITORY), None)


def read(payload: bytes) -> Statement:
    """Return the content of a statement. Raises `StatementError` for another format."""
    try:
        data = json.loads(payload)
        definition = data["predicate"]["buildDefinition"]
        statement = Statement(
            str(definition["externalParameters"]["version"]),
            {each["name"]: each["digest"]["sha256"] for each in data["subject"]},
            tuple(_read_dependency(each) for each in definition.get("resolvedDependencies", ())),
        )
        same = (canonical(form(statement)) + "\n").encode() == payload
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StatementError(f"this is not a statement of provenance: {type(error).__name__}: {error}") from error
    if not statement.subjects:
        raise StatementError("this is not a statement of provenance: it has no subject")
    if not same:
        raise StatementError("the statement does not have the format of releases")
    return statement


def form(statement: Statement) -> Any:
    """Return the statement as JSON data."""
    definition: dict[str, Any] = {
        "buildType": BUILD_TYPE,
        "externalParameters": {"command": COMMAND, "version": statement.version},
        "internalParameters": {"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)},
    }
    if statement.dependencies:
        definition["resolvedDependencies"] = [_dependency(each) for each in statement.dependencies]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": PREDICATE,
        "subject": [
            {"name": name, "digest": {"sha256": statement.subjects[name]}} for name in sorted(statement.subjects)
        ],
        "predicate": {"buildDefinition": definition, "runDetails": {"builder": {"id": BUILDER}}},
    }


def without_subjects(statement: Statement) -> Statement:
    """Return the part of a statement that is about the inputs."""
    return Statement(statement.version, {}, statement.dependencies)


def _dependency(dependency: Dependency) -> dict[str, Any]:
    return {
        "name": dependency.name,
        "digest": {dependency.algorithm: dependency.digest},
        **({"downloadLocation": dependency.address} if dependency.address else {}),
        **({"annotations": {"modified": True}} if dependency.modified else {}),
    }


def _read_dependency(data: Mapping[str, Any]) -> Dependency:
    ((algorithm, value),) = data["digest"].items()
    return Dependency(data["name"], algorithm, value, data.get("downloadLocation", ""), "annotations" in data)
