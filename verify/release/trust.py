# SPDX-License-Identifier: Apache-2.0
"""Verify a release: `python -m verify.release [--allowed-signers FILE] [--json|--junit] FOLDER`

Options for two more checks are `--threshold N --signers FILE` and `--fresh URL`. `--summary FILE` writes the result as
a signed statement (verify/release/rebuild/summary.py).

The first checks use only the folder and the signer's public key, and verify that every byte is the signer's:

    entries     the folder contains files and folders only, no links
    signature   SHA256SUMS.sig is OpenSSH's signature of SHA256SUMS by an allowed signer
    sums        SHA256SUMS lists exactly the files, and each has its sum
    modes       files and folders have the modes of releases
    statement   the same key signed the envelope; it contains a statement of provenance in the format of releases, whose
                subjects are the files
    keys        keys/allowed_signers names only that signer

If all of these pass, checks that need other files follow, if they are requested:

    rebuilds    enough independent signers built the release again (verify/release/rebuild/threshold.py)
    fresh       a repository with TUF metadata offers this release as its newest (verify/release/fresh.py)

and the checks of the files' content (verify/release/consistency.py):

    layout, images, packages, index, programs, sbom, vex, oci
    sources     the locked sources are those of this checkout, if the release was made from its commit

A key in the release proves nothing about the release. By default, your own key must have signed it, as after `doit
release`; for another release, pass a file of allowed signers from its publisher, see docs/release.md. Exit status: 0
all sound, 1 a check failed, 2 the release cannot be checked.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from verify import report
from verify.release import consistency, files, fresh, layout, signatures, statement
from verify.release.consistency import Release
from verify.release.fresh import FreshnessError
from verify.release.layout import PROGRAMS, SIGNATURE, SIGNERS, STATEMENT, SUMS
from verify.release.rebuild import summary, threshold
from verify.release.signatures import SignatureError
from verify.release.statement import Statement, StatementError
from verify.release.tools import ToolError, Tools

_SKIPPED = "not checked, because an earlier check failed"


@dataclass(frozen=True)
class Row:
    """The result of one check. `looked_at`: a description of the checked files."""

    check: str
    looked_at: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bytes:
    """The result of the checks that every byte is the signer's.

    `files`: path -> sha256. `sums`: the sha256 of the file that lists them. `public`: the signer's key.
    """

    rows: list[Row]
    stated: Statement | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    sums: str = ""
    public: bytes | None = None


@dataclass(frozen=True)
class Examined:
    """The result of all checks. `seen`: the checked release. `counted`: the signers whose rebuilds count."""

    rows: list[Row]
    seen: Bytes
    counted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rebuilds:
    """The number of signers in a file who must have rebuilt the release; the folder contains their statements."""

    threshold: int
    signers: Path
    folder: Path


def examine(
    folder: Path, allowed: Path, tools: Tools, rebuilds: Rebuilds | None = None, offered: fresh.Source | None = None
) -> Examined:
    """Check a release. `allowed`: file of allowed signers, in the format of OpenSSH.

    Raises `ToolError`, `SignatureError`, `FreshnessError`.
    """
    seen = examine_bytes(folder, allowed)
    rows, stated, listed = list(seen.rows), seen.stated, seen.files
    names = consistency.CHECKS
    if any(row.problems for row in rows) or stated is None or seen.public is None:
        more = [name for name, wanted in (("rebuilds", rebuilds), ("fresh", offered)) if wanted is not None]
        return Examined([*rows, *(Row(name, _SKIPPED, (_SKIPPED,)) for name in (*more, *names))], seen)
    votes: list[threshold.Vote] = []
    if rebuilds is not None:
        votes = threshold.count(folder, listed, stated, seen.public, rebuilds.signers, rebuilds.folder)
        rows.append(Row("rebuilds", threshold.summary(votes), threshold.problems(votes, rebuilds.threshold)))
    if offered is not None:
        problems = tuple(fresh.check(offered, stated.version, seen.sums))
        rows.append(Row("fresh", offered.url, problems))
    with tempfile.TemporaryDirectory(prefix="nabla-release-") as scratch:
        release = Release(folder, listed, stated, tools, Path(scratch))
        for name, (about, check) in names.items():
            rows.append(Row(name, about, tuple(check(release))))
    return Examined(rows, seen, tuple(vote.signer for vote in votes if not vote.problem))


def examine_bytes(folder: Path, allowed: Path) -> Bytes:
    """Check that every byte is the signer's."""
    entries = dict(files.entries(folder))
    rows = [Row("entries", f"{len(entries)} files and folders", tuple(_strange(entries)))]
    # A link could lead outside of the release, so no file is opened.
    if rows[0].problems:
        return Bytes(rows)
    try:
        content = (folder / SUMS).read_bytes()
    except OSError as error:
        return Bytes([*rows, Row("signature", SIGNATURE, (f"{SUMS}: {error.strerror}",))])
    public, problem = _signer(content, folder, allowed)
    rows.append(Row("signature", SIGNATURE, problem))
    present = {name for name, status in entries.items() if stat.S_ISREG(status.st_mode)}
    listed, problems = _read_sums(content)
    problems += list(_compare(folder, present - {SUMS, SIGNATURE}, listed))
    rows.append(Row("sums", f"{len(listed)} files", tuple(problems)))
    rows.append(Row("modes", f"{len(entries)} files and folders", tuple(_modes(folder, entries))))
    stated = None
    problem = ("there is no signer",)
    if public is not None:
        stated, problem = _statement(folder, public, {name: listed[name] for name in listed if name != STATEMENT})
    rows.append(Row("statement", STATEMENT, problem))
    rows.append(Row("keys", SIGNERS, tuple(_named(folder, public))))
    return Bytes(rows, stated, listed, hashlib.sha256(content).hexdigest(), public)


def _strange(entries: dict[str, os.stat_result]) -> Iterator[str]:
    for name, status in sorted(entries.items()):
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            kind = "a link" if stat.S_ISLNK(status.st_mode) else "neither a file nor a folder"
            yield f"{name} is {kind}"


def _signer(content: bytes, folder: Path, allowed: Path) -> tuple[bytes | None, tuple[str, ...]]:
    try:
        return signatures.verify(content, folder / SIGNATURE, allowed), ()
    except SignatureError as error:
        return None, (": ".join(filter(None, (error.message, error.hint))),)


def _read_sums(content: bytes) -> tuple[dict[str, str], list[str]]:
    """Return path -> sha256, and the problems of the file of sums."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return {}, [f"{SUMS} cannot be read: {error}"]
    sums = [layout.read_sum(line) for line in text.splitlines()]
    listed = dict(each for each in sums if each is not None)
    if not text.endswith("\n") or None in sums or list(listed) != sorted(listed) or len(listed) != len(sums):
        return listed, [f"{SUMS} is not a sorted list of sums, one for each file"]
    return listed, []


def _compare(folder: Path, present: set[str], listed: dict[str, str]) -> Iterator[str]:
    yield from (f"{name} is not in {SUMS}" for name in sorted(present - listed.keys()))
    for name, digest in listed.items():
        if name not in present:
            yield f"{name} is missing"
        elif files.sha256(folder / name) != digest:
            yield f"{name} has another sum"


def _modes(folder: Path, entries: dict[str, os.stat_result]) -> Iterator[str]:
    for name, status in sorted({"": folder.stat(), **entries}.items()):
        wanted = 0o755 if stat.S_ISDIR(status.st_mode) or name in PROGRAMS else 0o644
        mode = stat.S_IMODE(status.st_mode)
        if mode != wanted:
            yield f"{name or 'the folder'} has mode {mode:04o} instead of {wanted:04o}"


def _statement(folder: Path, public: bytes, sums: dict[str, str]) -> tuple[Statement | None, tuple[str, ...]]:
    try:
        text = (folder / STATEMENT).read_text(encoding="utf-8")
        stated = statement.read(signatures.open_sealed(text, statement.MEDIA_TYPE, public))
    except (OSError, UnicodeDecodeError) as error:
        return None, (f"{STATEMENT} cannot be read: {error}",)
    except SignatureError as error:
        return None, (": ".join(filter(None, (error.message, error.hint))),)
    except StatementError as error:
        return None, (str(error),)
    problems = [f"{name} is not a subject" for name in sorted(sums.keys() - stated.subjects.keys())]
    problems += [f"the subject {name} is missing" for name in sorted(stated.subjects.keys() - sums.keys())]
    problems += [
        f"{name} has another sum in the statement"
        for name in sorted(sums.keys() & stated.subjects.keys())
        if sums[name] != stated.subjects[name]
    ]
    return stated, tuple(problems)


def _named(folder: Path, public: bytes | None) -> Iterator[str]:
    if public is None:
        yield "there is no signer"
        return
    key = f"{public[4 : 4 + public[3]].decode(errors='replace')} {base64.b64encode(public).decode()}"
    try:
        text = (folder / SIGNERS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield f"{SIGNERS} cannot be read: {error}"
        return
    if text != signatures.allowed_signers_line(key):
        yield f"{SIGNERS} is not about the key that signed the release"


def as_table(rows: Sequence[Row]) -> str:
    """Return a line for each check, and one for each additional problem."""
    lines: list[list[str]] = []
    for row in rows:
        first, *others = row.problems or ("ok",)
        lines.append([row.check, row.looked_at, first])
        lines += [["", "", other] for other in others]
    return report.table(["check", "of", "result"], lines)


def as_junit(rows: Sequence[Row]) -> str:
    """Return the checks as a test suite."""
    return report.as_junit("verify.release", [("release", row.check, "; ".join(row.problems)) for row in rows])


def own_signers(scratch: Path) -> Path:
    """Write a file that allows only the user's key. Raises `SignatureError` if there is none."""
    public = layout.keys_dir() / f"{layout.SIGNING_KEY}.pub"
    try:
        kind, key, *_ = public.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        raise SignatureError(
            f"you have no key: there is no {public}",
            "for another release: --allowed-signers FILE, with its publisher's file",
        ) from None
    file = scratch / "allowed_signers"
    file.write_text(signatures.allowed_signers_line(f"{kind} {key}"), encoding="utf-8")
    return file


def _rebuilds(options: argparse.Namespace, folder: Path) -> Rebuilds | None:
    """Return the requested number of rebuilds. Raises `SignatureError` for incomplete options."""
    if options.threshold is None and options.signers is None and options.attestations is None:
        return None
    if options.threshold is None or options.threshold < 1 or options.signers is None:
        raise SignatureError(
            "--threshold N, at least 1, and --signers FILE belong together",
            "add the missing option; --attestations FOLDER needs both",
        )
    return Rebuilds(options.threshold, options.signers.resolve(), options.attestations or threshold.folder_of(folder))


def _summarize(
    options: argparse.Namespace, folder: Path, allowed: Path, examined: Examined, rebuilds: Rebuilds | None
) -> None:
    """Write the signed summary of a verification. Raises `SignatureError`."""
    seen = examined.seen
    statements = [rebuilds.folder / f"{signer}.json" for signer in examined.counted] if rebuilds is not None else []
    result = summary.Summary(
        seen.stated.version if seen.stated is not None else "unknown",
        {**seen.files, SUMS: seen.sums} if seen.sums else seen.files,
        files.sha256(allowed),
        summary.inputs(folder, statements),
        not any(row.problems for row in examined.rows),
        rebuilds.threshold if rebuilds is not None else 0,
        datetime.now(UTC),
    )
    try:
        options.summary.write_text(summary.seal(result, _summary_key(options)), encoding="utf-8")
    except OSError as error:
        raise SignatureError(f"{options.summary} cannot be written: {error.strerror}") from error


def _summary_key(options: argparse.Namespace) -> Path:
    key: Path = options.summary_key or layout.keys_dir() / layout.SIGNING_KEY
    return key


def _check_summary(options: argparse.Namespace) -> None:
    """Check before the verification that a summary can be signed. Raises `SignatureError`."""
    if options.summary is None:
        if options.summary_key is not None:
            raise SignatureError("--summary-key KEY needs --summary FILE", "add --summary FILE")
        return
    if options.trust_embedded_key:
        raise SignatureError(
            "a summary needs a trusted signer, not the key inside the release", "add --allowed-signers FILE"
        )
    if not _summary_key(options).is_file():
        raise SignatureError(
            f"there is no key {_summary_key(options)}", "name yours with --summary-key, see ssh-keygen(1)"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m verify.release", description=__doc__.splitlines()[0].split("`")[0])
    report.add_options(parser)
    trusted = parser.add_mutually_exclusive_group()
    trusted.add_argument(
        "--allowed-signers", type=Path, metavar="FILE", help="the allowed signers; default: your own key"
    )
    trusted.add_argument(
        "--trust-embedded-key",
        action="store_true",
        help="trust the key inside the release: detects damage, but not forgery",
    )
    parser.add_argument(
        "--threshold", type=int, metavar="N", help="number of signers who must have rebuilt the release"
    )
    parser.add_argument("--signers", type=Path, metavar="FILE", help="allowed signers whose rebuilds count")
    parser.add_argument(
        "--attestations",
        type=Path,
        metavar="FOLDER",
        help="their statements; default: attestations/ beside the release",
    )
    parser.add_argument("--summary", type=Path, metavar="FILE", help="write the result as a signed statement (VSA)")
    parser.add_argument("--summary-key", type=Path, metavar="KEY", help="private key that signs it; default: yours")
    fresh.add_options(parser)
    for name, folder in (("apk", Tools.apk), ("image", Tools.images)):
        parser.add_argument(
            f"--{name}-tools", type=Path, metavar="FOLDER", default=folder, help=f"created by doit; default: {folder}"
        )
    parser.add_argument("folder", type=Path, help="the folder of the release")
    options = parser.parse_args(argv)
    try:
        _check_summary(options)
        with tempfile.TemporaryDirectory(prefix="nabla-signers-") as scratch:
            if options.trust_embedded_key:
                print(
                    "verify.release: anybody may have made this release, because its own key is trusted",
                    file=sys.stderr,
                )
                allowed = options.folder / SIGNERS
            else:
                allowed = options.allowed_signers or own_signers(Path(scratch))
            tools = Tools(options.apk_tools, options.image_tools)
            tools.check()
            for needed in (options.folder, allowed, *filter(None, [options.signers])):
                if not needed.exists():
                    raise SignatureError(f"there is no {needed}")
            folder = options.folder.resolve()
            rebuilds = _rebuilds(options, folder)
            examined = examine(folder, allowed.resolve(), tools, rebuilds, fresh.source(options))
            rows = examined.rows
            if options.summary is not None:
                _summarize(options, folder, allowed.resolve(), examined, rebuilds)
    except (SignatureError, ToolError, FreshnessError) as error:
        print(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 2
    if options.json:
        print(report.as_json([asdict(row) for row in rows]))
    elif options.junit:
        print(as_junit(rows))
    else:
        print(as_table(rows))
    return 1 if any(row.problems for row in rows) else 0
