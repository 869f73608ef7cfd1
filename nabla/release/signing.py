# SPDX-License-Identifier: Apache-2.0
"""Signatures of releases, with an Ed25519 key that the project makes for its user and keeps beside the key of packages.

Files are signed and verified by OpenSSH (`ssh-keygen -Y`, see ssh-keygen(1) and OpenSSH's PROTOCOL.sshsig), which is on
most machines already. Statements are signed with the same key in a DSSE envelope, the form that tools for provenance
read (https://github.com/secure-systems-lab/dsse). Ed25519 needs no random numbers: a signature of the same bytes with
the same key is the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nabla.core import digest, files, paths
from nabla.core.errors import CommandError, NablaError
from nabla.core.process import run

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import Key  # type: ignore[attr-defined]

KEY_NAME = "nabla.ed25519"
SIGNER = "nabla"  # the name of the key's owner in a file of allowed signers
NAMESPACE = "file"  # what the signature is for; OpenSSH's own word for files

_MAGIC = b"SSHSIG"
_VERSION = 1
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_KEY_TYPE = b"ssh-ed25519"


class SigningError(NablaError):
    """A key cannot be used, or a signature is not what it must be."""


def ensure_key() -> tuple[Path, Path]:
    """Return the user's private and public key, made now if there is none. Raises `CommandError`, `HostError`."""
    folder = paths.keys_dir()
    private, public = folder / KEY_NAME, folder / f"{KEY_NAME}.pub"
    if private.is_file() and public.is_file():
        return private, public
    files.make_folder(folder)
    with files.lock(folder / ".lock", "waiting for another process that makes the key"):
        if private.is_file():
            # Never overwritten: what it has signed would not verify any more.
            public.write_text(run(["ssh-keygen", "-y", "-f", private], input="").stdout)
        else:
            new = folder / f".{KEY_NAME}.new"
            for path in (new, new.with_name(f"{new.name}.pub")):
                path.unlink(missing_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", SIGNER, "-f", new])
            new.with_name(f"{new.name}.pub").rename(public)
            new.rename(private)
        public.chmod(0o644)
    return private, public


def allowed_signers(public: Path) -> str:
    """Return the file for `ssh-keygen -Y verify -f` that allows one public key. Raises `SigningError`."""
    try:
        kind, key, *_ = public.read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise SigningError(f"{public} is no public key of OpenSSH: {error}") from error
    return allowed_signers_line(f"{kind} {key}")


def allowed_signers_line(key: str) -> str:
    """Return what allows one key, given by its type and its base64."""
    return f'{SIGNER} namespaces="{NAMESPACE}" {key}\n'


def sign(data: bytes, private: Path) -> str:
    """Return OpenSSH's signature of `data`, as text. Raises `SigningError`."""
    words: list[str | Path] = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", private]
    try:
        return run(words, input=data).stdout
    except CommandError as error:
        raise SigningError(f"ssh-keygen cannot sign with {private}", error.hint) from error


def verify(data: bytes, signature: Path, allowed: Path) -> bytes:
    """Check OpenSSH's signature of `data` by one of the allowed signers; return the public key, as OpenSSH writes it.

    Raises `SigningError` when the signature is damaged, of other data, of another namespace or of nobody allowed.
    """
    known = run(["ssh-keygen", "-Y", "find-principals", "-s", signature, "-f", allowed], input="", check=False)
    if known.returncode != 0:
        raise SigningError(f"{signature.name} is not by an allowed signer", known.stderr.strip())
    problem = ""
    for name in known.stdout.split("\n")[0].split(","):
        words: list[str | Path] = [
            "ssh-keygen",
            "-Y",
            "verify",
            "-n",
            NAMESPACE,
            "-I",
            name,
            "-s",
            signature,
            "-f",
            allowed,
        ]
        result = run(words, input=data, check=False)
        if result.returncode == 0:
            return _signer(signature)
        problem = problem or (result.stderr or result.stdout).strip()
    raise SigningError(f"{signature.name} does not fit what it signs", problem)


def seal(payload: bytes, kind: str, private: Path) -> str:
    """Return a DSSE envelope around a payload, signed. `kind`: its media type. Raises `SigningError`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    try:
        key = load_ssh_private_key(private.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise SigningError(f"cannot read the key {private}: {error}", "it must be without a pass phrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{private} is no Ed25519 key")
    envelope = Envelope(payload, kind, {})
    envelope.sign(CryptoSigner(key))
    return digest.canonical(envelope.to_dict()) + "\n"


def open_sealed(text: str, kind: str, public: bytes) -> bytes:
    """Return the payload of a DSSE envelope after a check of its type and of its signature by a key.

    `public`: as `verify` returns it. Raises `SigningError`.
    """
    from securesystemslib.exceptions import VerificationError

    envelope = _parse(text)
    # Anything beside what is signed could be changed by anybody.
    if digest.canonical(envelope.to_dict()) + "\n" != text or len(envelope.signatures) != 1:
        raise SigningError("the envelope holds more than one signed payload")
    if envelope.payload_type != kind:
        raise SigningError(f"the envelope's payload type is {envelope.payload_type!r} instead of {kind!r}")
    try:
        envelope.verify([_library_key(public)], 1)
    except VerificationError as error:
        raise SigningError("the signature in the envelope is not that of the release's signer") from error
    return bytes(envelope.payload)


def encoded(text: str) -> bytes:
    """Return the bytes that the signature in an envelope is of (DSSE's pre-authentication encoding).

    Raises `SigningError` when this is no envelope.
    """
    return bytes(_parse(text).pae())


def payload(text: str) -> bytes:
    """Return the payload of an envelope without asking who signed it. Raises `SigningError` when this is none."""
    return bytes(_parse(text).payload)


def _parse(text: str) -> Envelope:
    from securesystemslib.dsse import Envelope

    try:
        return Envelope.from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SigningError(f"this is no DSSE envelope: {type(error).__name__}: {error}") from error


def _signer(signature: Path) -> bytes:
    """Return the public key that a signature of OpenSSH names; only for signatures that ssh-keygen has verified."""
    lines = signature.read_text(encoding="ascii").split()
    body = "".join(lines)
    body = body[len(_BEGIN.replace(" ", "")) : -len(_END.replace(" ", ""))]
    try:
        raw = base64.b64decode(body, validate=True)
        version, length = struct.unpack_from(">II", raw, len(_MAGIC))
    except (binascii.Error, struct.error) as error:
        raise SigningError(f"{signature.name} cannot be parsed: {error}") from error
    start = len(_MAGIC) + 8
    if not raw.startswith(_MAGIC) or version != _VERSION or start + length > len(raw):
        raise SigningError(f"{signature.name} cannot be parsed: no signature of form {_VERSION}")
    return raw[start : start + length]


def _library_key(public: bytes) -> Key:
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    kind = public[4 : 4 + len(_KEY_TYPE)]
    if kind != _KEY_TYPE:
        raise SigningError("the release's signer has no Ed25519 key")
    key: Any = load_ssh_public_key(_KEY_TYPE + b" " + base64.b64encode(public))
    found: Key = SSlibKey.from_crypto(key)
    return found
