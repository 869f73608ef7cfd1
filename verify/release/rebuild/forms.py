# SPDX-License-Identifier: Apache-2.0
"""Signature-free forms of the files of a release: equal for two builds of a commit by different signers.

    packages, their index       the blocks without signatures; the index without the sizes of the packages
    bills of materials, report  digests of packages, the index and the bills are replaced by those of their forms;
                                serial numbers, and sizes of packages, are left out
    the statement               version and dependencies; each subject is compared as a file
    every other file            its bytes

The public keys of the signer, the sums and their signature have no form.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from verify.release import files as file_digests
from verify.release import layout, signatures, statement
from verify.release.layout import CYCLONEDX, INDEX, REPORT, REPOSITORY, SPDX, STATEMENT
from verify.release.rebuild import adb

# Files that a signer adds.
WITHOUT_FORM = frozenset({layout.SUMS, layout.SIGNATURE, layout.SIGNERS, layout.PACKAGE_KEY})

_SERIAL = re.compile(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
_SIZE = re.compile(r'(<td class="number") data-sort="[0-9]+">[^<]*<')


class FormError(Exception):
    """A file has no signature-free form because it is malformed."""


def of_release(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Return path -> sha256 of the form, for the files of a release with their sha256. Raises `FormError`, OSError."""
    forms: dict[str, str] = {}
    replaced: dict[str, str] = {}
    try:
        for path in sorted(files, key=_rank):
            if path in WITHOUT_FORM:
                continue
            forms[path] = _form(folder, path, files[path], replaced)
            if forms[path] != files[path]:
                replaced[files[path]] = forms[path]
                # Bills of materials contain the SHA-512 of packages, too.
                replaced[file_digests.sha512(folder / path)] = forms[path]
    except (adb.AdbError, UnicodeDecodeError, signatures.SignatureError, statement.StatementError) as error:
        raise FormError(f"{path}: {error}") from error
    return forms


def _rank(path: str) -> tuple[int, str]:
    """Return the order in which forms are computed: a document comes after the files whose digests it contains."""
    order = (INDEX, SPDX, CYCLONEDX, REPORT, STATEMENT)
    return (order.index(path) + 1 if path in order else 0, path)


def _form(folder: Path, path: str, sha256: str, replaced: Mapping[str, str]) -> str:
    if path == INDEX or (path.startswith(f"{REPOSITORY}/") and path.endswith(".apk")):
        return adb.unsigned_sha256(folder / path)
    if path == STATEMENT:
        payload = signatures.payload((folder / path).read_text(encoding="utf-8"))
        stated = statement.read(payload)
        return _sha256(signatures.canonical(statement.form(statement.without_subjects(stated))))
    if path in (SPDX, CYCLONEDX):
        return _sha256(_SERIAL.sub("urn:uuid:", _replace((folder / path).read_text(encoding="utf-8"), replaced)))
    if path == REPORT:
        text = (folder / path).read_text(encoding="utf-8")
        return _sha256(_replace(_ROW.sub(lambda row: _without_size(row[0], replaced), text), replaced))
    return sha256


def _replace(text: str, replaced: Mapping[str, str]) -> str:
    digests = r"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{128})(?![0-9a-f])"
    return re.sub(digests, lambda digest: replaced.get(digest[0], digest[0]), text)


def _without_size(row: str, replaced: Mapping[str, str]) -> str:
    about_package = any(digest in replaced for digest in re.findall(r"[0-9a-f]{64}", row))
    return _SIZE.sub(r"\1><", row) if about_package else row


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
