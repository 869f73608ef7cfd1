# SPDX-License-Identifier: Apache-2.0
"""Count the signers who built a release again with equal results: `--threshold N --signers FILE`.

A statement counts if

    its file is <signer>.json, a DSSE envelope with one OpenSSH signature by that name in the file of signers
    it names that signer, and this release's version, commit, provenance and files, each with its digest
    it lists all files with a signature-free form as equal, and the forms are those of this release
    its key counts once, and the publisher's key does not count

Forms are computed here, so a statement cannot claim equality with other bytes. The signature only promises that the
signer really built the release.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from verify.release import signatures
from verify.release.layout import STATEMENT
from verify.release.rebuild import forms, statement
from verify.release.rebuild.forms import FormError
from verify.release.rebuild.statement import MEDIA_TYPE, NAMESPACE, SIGNER, Rebuild, RebuildError
from verify.release.signatures import SignatureError
from verify.release.statement import Statement

_LARGEST = 16 << 20
_SHOWN = 3


@dataclass(frozen=True)
class Vote:
    """One statement of a rebuild. `key`: the signer's key. `problem`: why it does not count; empty if it does."""

    signer: str
    key: bytes = b""
    problem: str = ""


def folder_of(release: Path) -> Path:
    """Return the folder of the statements about a release, beside it and with its name: one file for each signer."""
    return release.parent / "attestations" / release.name


def count(
    release: Path,
    files: Mapping[str, str],
    stated: Statement,
    publisher: bytes,
    signers: Path,
    folder: Path,
) -> list[Vote]:
    """Return a vote for each statement in a folder. Raises `SignatureError` if the folder or ssh-keygen is missing.

    `files`: path -> sha256 of the release. `publisher`: the key that signed the release. `signers`: who may vote, in
    OpenSSH's format of allowed signers.
    """
    if not folder.is_dir():
        raise SignatureError(f"there is no folder {folder}", "it contains a file <signer>.json for each rebuild")
    try:
        expected = forms.of_release(release, files)
    except (FormError, OSError) as error:
        return [Vote("every signer", problem=f"the release has no signature-free form: {error}")]
    votes: list[Vote] = []
    for path in sorted(folder.glob("*.json")):
        vote = _vote(path, files, stated, signers, expected)
        if not vote.problem and vote.key == publisher:
            vote = Vote(vote.signer, vote.key, "this key signed the release itself")
        votes.append(vote)
    return list(_once(votes))


def problems(votes: list[Vote], threshold: int) -> tuple[str, ...]:
    """Return why fewer signers than the threshold built the release again; nothing if there are enough."""
    good = [vote.signer for vote in votes if not vote.problem]
    if len(good) >= threshold:
        return ()
    missing = f"{len(good)} of {threshold} signers built it again with equal results"
    return (missing, *(f"{vote.signer}: {vote.problem}" for vote in votes if vote.problem))


def summary(votes: list[Vote]) -> str:
    """Return a sentence about the signers who rebuilt the release, and the statements that do not count."""
    good = ", ".join(vote.signer for vote in votes if not vote.problem)
    bad = "; ".join(f"{vote.signer}: {vote.problem}" for vote in votes if vote.problem)
    return f"rebuilt by {good or 'nobody'}" + (f"; not counted: {bad}" if good and bad else "")


def _once(votes: list[Vote]) -> Iterator[Vote]:
    """Accept one vote for each key."""
    first: dict[bytes, str] = {}
    for vote in votes:
        other = first.setdefault(vote.key, vote.signer) if not vote.problem else vote.signer
        yield vote if other == vote.signer else Vote(vote.signer, vote.key, f"the key of {other} signed it, too")


def _vote(path: Path, files: Mapping[str, str], stated: Statement, signers: Path, expected: Mapping[str, str]) -> Vote:
    if not SIGNER.fullmatch(path.stem):
        shown = "".join(each if each.isprintable() else "?" for each in path.name)
        return Vote(shown, problem="the file's name is not <signer>.json")
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
        return Vote(path.stem, problem="this is not a file, or it is too large")
    try:
        text = path.read_text(encoding="utf-8")
        payload, key = signatures.open_signed(text, MEDIA_TYPE, path.stem, signers, NAMESPACE)
        rebuild = statement.read(payload)
    except SignatureError as error:
        return Vote(path.stem, problem=": ".join(filter(None, (error.message, " ".join(error.hint.split())))))
    except (OSError, UnicodeDecodeError, RebuildError) as error:
        return Vote(path.stem, problem=str(error))
    problem = next(_contradictions(rebuild, path.stem, files, stated, expected), "")
    return Vote(path.stem, key, problem)


def _contradictions(
    rebuild: Rebuild, signer: str, files: Mapping[str, str], stated: Statement, expected: Mapping[str, str]
) -> Iterator[str]:
    """Yield the differences between a statement and this release."""
    if rebuild.signer != signer:
        yield f"the statement is by {rebuild.signer!r}"
    if rebuild.provenance != files[STATEMENT]:
        yield "the statement is about another release: it names a different provenance"
    if (rebuild.version, rebuild.commit) != (stated.version, stated.commit):
        yield f"the statement is about version {rebuild.version} of commit {rebuild.commit}"
    yield from _differences("subject", rebuild.subjects, {path: files[path] for path in expected})
    if rebuild.different:
        shown = sorted(rebuild.different)[:_SHOWN]
        more = f" and {len(rebuild.different) - len(shown)} more" if len(rebuild.different) > len(shown) else ""
        yield f"the rebuild differs: {', '.join(shown)}{more}"
    yield from _differences("form", rebuild.equal, expected)


def _differences(kind: str, claimed: Mapping[str, str], expected: Mapping[str, str]) -> Iterator[str]:
    for path in sorted({*claimed, *expected}):
        if path not in claimed:
            yield f"the statement has no {kind} {path}"
        elif path not in expected:
            yield f"the release has no {kind} {path}"
        elif claimed[path] != expected[path]:
            yield f"the {kind} {path} has a different digest in the statement"
