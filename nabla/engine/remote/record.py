# SPDX-License-Identifier: Apache-2.0
"""The signed record of a result: its key, and the digest and size of every blob.

A digest identifies its blob, but only the signer can state that a blob belongs to a key. The record therefore contains
the key and a version of the format, and is signed for a separate namespace: an entry that was moved to another key, or
a signature made for a release, is refused. No record is parsed before its signature is verified.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from nabla.core import digest, files
from nabla.core.paths import cache_dir
from nabla.engine.remote import action_result, keys
from nabla.engine.remote.settings import Settings
from verify.release import signatures

NAMESPACE = "nabla-store"
VERSION: Literal[1] = 1
MAX_ENTRY = 256 << 10
MAX_BLOB = 16 << 30
_AHEAD = 86400.0  # seconds that a signer's clock may be ahead

Hex = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOB)]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]")


class EntryError(Exception):
    """An entry of a store cannot be used; the text contains the reason."""


class NoSignersError(EntryError):
    """The file of allowed signers is absent: no entry of any store can be used."""


class Output(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One file or folder of a result. `digest`: as in the result cache; `unpacked`: bytes of the decompressed blob."""

    kind: Literal["file", "tree"]
    digest: Hex
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)]
    blob: Hex
    size: Size
    unpacked: Size


class Record(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A result. `created`: seconds since 1970, by the clock of the signer."""

    version: Literal[1]
    key: Hex
    title: Annotated[str, msgspec.Meta(max_length=200)]
    created: Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]
    outputs: Annotated[dict[str, Output], msgspec.Meta(min_length=1, max_length=200)]


@dataclass(frozen=True)
class Signed:
    """A record after its check, and the name of its signer in the file of allowed signers."""

    record: Record
    signer: str


def seal(key: str, title: str, outputs: Mapping[str, Output], private: Path) -> bytes:
    """Return the entry of a result, signed now. Raises `SigningError`."""
    record = Record(VERSION, key, title[:200], int(time.time()), dict(outputs))
    text = digest.canonical(msgspec.to_builtins(record)).encode()
    signature = keys.sign(text, private, NAMESPACE).encode()
    blobs = [(f"{name}.zst", each.blob, each.size) for name, each in sorted(outputs.items())]
    return action_result.encode(text, signature, blobs)


def unseal(data: bytes, key: str, settings: Settings) -> Signed:
    """Return the record in an entry for a key, after all checks. Raises `EntryError`."""
    if len(data) > MAX_ENTRY:
        raise EntryError(f"the entry has more than {MAX_ENTRY} bytes")
    try:
        text, signature = action_result.decode(data)
    except action_result.MalformedError:
        raise EntryError("the entry is damaged") from None
    if not signature:
        raise EntryError("the entry is not signed")
    signer = _verify(text, signature, settings.allowed_signers)
    try:
        record = msgspec.json.decode(text, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EntryError(f"the record is malformed ({printable(str(error))})") from None
    if record.key != key:
        raise EntryError(f"the record belongs to another key, {record.key[:12]}…")
    if bad := next((name for name in record.outputs if not _NAME.fullmatch(name) or name == "manifest.json"), None):
        raise EntryError(f"the record contains an output named {printable(bad)!r}")
    _check_age(record.created, settings)
    return Signed(record, signer)


def printable(text: str) -> str:
    """Return a server's text as one line without control characters, shortened."""
    return _UNPRINTABLE.sub("?", text)[:120]


def _verify(text: bytes, signature: bytes, allowed: Path) -> str:
    if not allowed.is_file():
        raise NoSignersError(f"no signer is allowed: there is no file {allowed}")
    with files.scratch(cache_dir() / "tmp") as scratch:
        path = scratch / "the signature"
        path.write_bytes(signature)
        try:
            public = signatures.verify(text, path, allowed, NAMESPACE)
        except (signatures.SignatureError, UnicodeDecodeError) as error:
            raise EntryError(f"{error} (allowed signers: {allowed})") from None
    return _name(public, allowed)


def _name(public: bytes, allowed: Path) -> str:
    wanted = base64.b64encode(public).decode()
    for line in allowed.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if wanted in words and not line.startswith("#"):
            return words[0]
    return wanted[-12:]  # signed by a certificate of an allowed authority


def _check_age(created: float, settings: Settings) -> None:
    now = time.time()
    day = time.strftime("%Y-%m-%d", time.gmtime(created))
    if created > now + _AHEAD:
        raise EntryError(f"the record was signed in the future, on {day}: a clock is wrong")
    if created < settings.not_before:
        raise EntryError(f"the record was signed on {day}, before the first accepted day (not_before)")
    if settings.max_age is not None and created < now - settings.max_age:
        raise EntryError(f"the record was signed on {day}, too long ago (max_age_days)")
