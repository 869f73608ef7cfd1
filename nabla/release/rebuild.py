# SPDX-License-Identifier: Apache-2.0
"""Compare a release with a rebuild by another signer, and write a signed statement about the result.

release of the publisher, release of this checkout -> attestations/<version>/<signer>.json beside the former

verify/release/rebuild defines the signature-free forms that are compared, and the statement's format.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nabla.core import digest, files
from nabla.core.errors import NablaError
from nabla.release import assembly, signing
from verify.release.layout import STATEMENT
from verify.release.rebuild import forms, statement
from verify.release.rebuild.forms import FormError
from verify.release.rebuild.statement import MEDIA_TYPE, NAMESPACE, SIGNER, Rebuild
from verify.release.statement import Statement


class RebuildError(NablaError):
    """A release cannot be compared, or a rebuild of it differs."""


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison. `sums`: path -> sha256 of the release's files with a form.

    `equal`, `different`: path -> sha256 of the rebuild's form, which is empty for a file that the rebuild lacks.
    """

    sums: Mapping[str, str]
    equal: Mapping[str, str]
    different: Mapping[str, str]


def compare(release: Path, rebuilt: Path) -> Comparison:
    """Compare the signature-free forms of two releases. Raises `RebuildError`."""
    sums = assembly.digests(release)
    try:
        theirs = forms.of_release(release, sums)
        own = forms.of_release(rebuilt, assembly.digests(rebuilt))
    except FormError as error:
        raise RebuildError(f"the release cannot be compared: {error}") from error
    equal = {path: form for path, form in theirs.items() if own.get(path) == form}
    different = {path: own.get(path, "") for path in sorted({*theirs, *own} - equal.keys())}
    return Comparison({path: sums[path] for path in theirs}, equal, different)


def check_signer(name: str) -> None:
    """Raise `RebuildError` for a name that no signer can have."""
    if not SIGNER.fullmatch(name):
        raise RebuildError(f"{name!r} cannot name a signer", "use letters, digits and _.@+-")


def write(
    comparison: Comparison,
    stated: Statement,
    provenance: str,
    signer: str,
    private: Path,
    target: Path,
    results: str,
) -> None:
    """Write the signed statement about a comparison. Raises `RebuildError`, `SigningError`.

    `stated`, `provenance`: the content and the sha256 of the release's statement. `results`: the origin of the build's
    results.
    """
    check_signer(signer)
    rebuild = Rebuild(
        signer,
        stated.version,
        stated.commit or "",
        provenance,
        {
            "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": platform.python_version(),
            "results": results,
            "system": _system(),
        },
        comparison.sums,
        comparison.equal,
        comparison.different,
    )
    payload = (digest.canonical(statement.form(rebuild)) + "\n").encode()
    # The verifier's own reader is strict; in-toto's library checks the part that every consumer relies on.
    try:
        statement.read(payload)
    except statement.RebuildError as error:
        raise RebuildError(f"no statement can be written: {error}") from error
    _validate(rebuild)
    files.make_folder(target.parent)
    files.write(target, signing.seal_by_ssh(payload, MEDIA_TYPE, private, NAMESPACE))


def _validate(rebuild: Rebuild) -> None:
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor  # type: ignore[import-untyped]
    from in_toto_attestation.v1.statement import Statement as InTotoStatement  # type: ignore[import-untyped]

    subjects = [ResourceDescriptor(name, digest={"sha256": sha256}).pb for name, sha256 in rebuild.subjects.items()]
    InTotoStatement(subjects, statement.PREDICATE, statement.form(rebuild)["predicate"]).validate()


def first_different_input(stated: Statement, own: Statement) -> str:
    """Describe the first difference between the locked inputs of two releases; empty if there is none."""
    theirs, here = ({(each.name, each.digest) for each in side.dependencies} for side in (stated, own))
    differing = sorted(theirs ^ here)
    if differing:
        name = differing[0][0]
        shown = [" and ".join(sorted(value for other, value in side if other == name)) for side in (theirs, here)]
        return f"first differing input: {name}, {shown[0] or 'absent'} in the release, {shown[1] or 'absent'} here"
    if any(each.modified for each in (*stated.dependencies, *own.dependencies)):
        return "first differing input: the files of a checkout differed from its commit"
    return ""


def first_different_artifact(different: Collection[str], inputs: Mapping[str, Collection[str]]) -> str:
    """Return a differing file of a release that was not built from another differing file.

    `inputs`: path in a release -> the paths in it that this file is built from.
    """
    for path in sorted(different, key=lambda path: (path == STATEMENT, path)):
        if not any(earlier in different for earlier in _earlier(path, inputs, {path})):
            return path
    return min(different)


def _earlier(path: str, inputs: Mapping[str, Collection[str]], seen: set[str]) -> Iterator[str]:
    for each in inputs.get(path, ()):
        if each not in seen:
            seen.add(each)
            yield each
            yield from _earlier(each, inputs, seen)


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown"
