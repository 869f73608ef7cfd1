# SPDX-License-Identifier: Apache-2.0
"""Sign releases with the user's Ed25519 key (nabla.engine.remote.keys).

Files are signed by OpenSSH. Statements are signed with the same key in a DSSE envelope, the format of tools for
provenance (https://github.com/secure-systems-lab/dsse): the release's by the key itself, those of rebuilds by OpenSSH,
so that a file of allowed signers determines names, purposes and dates.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nabla.core import digest
from nabla.engine.remote.keys import SigningError, ensure_key, sign
from verify.release import signatures
from verify.release.signatures import allowed_signers_line

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

__all__ = ["SigningError", "allowed_signers", "ensure_key", "library_signer", "seal", "seal_by_ssh", "sign"]


def allowed_signers(public: Path) -> str:
    """Return the file for `ssh-keygen -Y verify -f` that allows one public key. Raises `SigningError`."""
    try:
        kind, key, *_ = public.read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise SigningError(f"{public} is not a public key of OpenSSH: {error}") from error
    return allowed_signers_line(f"{kind} {key}")


def seal(payload: bytes, kind: str, private: Path) -> str:
    """Return a DSSE envelope around a payload, signed. `kind`: its media type. Raises `SigningError`."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, kind, {})
    envelope.sign(library_signer(private))
    return digest.canonical(envelope.to_dict()) + "\n"


def seal_by_ssh(payload: bytes, kind: str, private: Path, namespace: str) -> str:
    """Return a DSSE envelope around a payload whose signature is OpenSSH's. Raises `SigningError`."""
    try:
        return signatures.seal(payload, kind, private, namespace)
    except signatures.SignatureError as error:
        raise SigningError(error.message, error.hint) from error


def library_signer(private: Path) -> CryptoSigner:
    """Return a private key for securesystemslib. Raises `SigningError`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    try:
        key = load_ssh_private_key(private.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise SigningError(f"cannot read the key {private}: {error}", "the key must not have a passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{private} is not an Ed25519 key")
    return CryptoSigner(key)
