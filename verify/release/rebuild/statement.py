# SPDX-License-Identifier: Apache-2.0
"""The statement of a rebuild: an in-toto statement (v1) by a person who built a release again, in a fixed format.

The subjects are the files of the release with a signature-free form, with their digests. The predicate names the
provenance of the release, and lists the forms of the rebuild that were equal and those that were not
(docs/rebuilds.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from verify.release.layout import STATEMENT
from verify.release.signatures import canonical

MEDIA_TYPE = "application/vnd.in-toto+json"
PREDICATE = "urn:x-nabla:rebuild:v1"  # docs/rebuilds.md describes it
NAMESPACE = "nabla-rebuild"  # OpenSSH's namespace for signatures of these statements
SIGNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,99}")
# The signer's description of the machine; nothing depends on it.
ENVIRONMENT = ("kernel", "python", "results", "system")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


class RebuildError(Exception):
    """A statement is malformed."""


@dataclass(frozen=True)
class Rebuild:
    """The content of a statement. `subjects`: path in the release -> sha256. `provenance`: sha256 of that file.

    `equal`: path -> sha256 of the form, which both have. `different`: path -> sha256 of the form in the rebuild, empty
    for a file that it lacks.
    """

    signer: str
    version: str
    commit: str
    provenance: str
    environment: Mapping[str, str]
    subjects: Mapping[str, str]
    equal: Mapping[str, str]
    different: Mapping[str, str]


def read(payload: bytes) -> Rebuild:
    """Return the content of a statement. Raises `RebuildError` for another format."""
    try:
        data = json.loads(payload)
        predicate = data["predicate"]
        rebuild = Rebuild(
            predicate["signer"],
            predicate["release"]["version"],
            predicate["release"]["commit"],
            predicate["release"]["provenance"]["digest"]["sha256"],
            dict(predicate["environment"]),
            {each["name"]: each["digest"]["sha256"] for each in data["subject"]},
            dict(predicate["equal"]),
            dict(predicate["different"]),
        )
        same = (canonical(form(rebuild)) + "\n").encode() == payload
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RebuildError(f"this is not a statement of a rebuild: {type(error).__name__}: {error}") from error
    if not same:
        raise RebuildError("the statement does not have the format of rebuilds")
    _check(rebuild)
    return rebuild


def _check(rebuild: Rebuild) -> None:
    digests = [rebuild.provenance, *rebuild.subjects.values(), *rebuild.equal.values()]
    digests += [digest for digest in rebuild.different.values() if digest != ""]
    if not all(isinstance(each, str) and _DIGEST.fullmatch(each) for each in digests):
        raise RebuildError("a digest in the statement is not a sha256")
    if not _COMMIT.fullmatch(str(rebuild.commit)):
        raise RebuildError("the commit in the statement is not a commit")
    if tuple(sorted(rebuild.environment)) != ENVIRONMENT:
        raise RebuildError(f"the environment in the statement does not have the entries {', '.join(ENVIRONMENT)}")
    texts = (rebuild.signer, rebuild.version, *rebuild.environment.values())
    texts += (*rebuild.subjects, *rebuild.equal, *rebuild.different)
    if not all(isinstance(each, str) and each.isprintable() for each in texts):
        raise RebuildError("the statement contains characters that cannot be printed")
    if rebuild.equal.keys() & rebuild.different.keys():
        raise RebuildError("a file in the statement is both equal and different")


def form(rebuild: Rebuild) -> Any:
    """Return the statement as JSON data."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": rebuild.subjects[name]}} for name in sorted(rebuild.subjects)],
        "predicateType": PREDICATE,
        "predicate": {
            "signer": rebuild.signer,
            "release": {
                "version": rebuild.version,
                "commit": rebuild.commit,
                "provenance": {"name": STATEMENT, "digest": {"sha256": rebuild.provenance}},
            },
            "environment": dict(rebuild.environment),
            "equal": dict(rebuild.equal),
            "different": dict(rebuild.different),
        },
    }
