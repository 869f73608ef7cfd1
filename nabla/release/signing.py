# SPDX-License-Identifier: Apache-2.0
"""Sign releases with the user's Ed25519 key (nabla.engine.remote.keys).

Files are signed by OpenSSH. Statements are signed with the same key in a DSSE envelope, the format of tools for
provenance (https://github.com/secure-systems-lab/dsse).
"""

from __future__ import annotations

from pathlib import Path

from nabla.core import digest
from nabla.engine.remote.keys import SigningError, ensure_key, sign
from verify.release.signatures import allowed_signers_line

__all__ = ["SigningError", "allowed_signers", "ensure_key", "seal", "sign"]


def allowed_signers(public: Path) -> str:
    """Return the file for `ssh-keygen -Y verify -f` that allows one public key. Raises `SigningError`."""
    try:
        kind, key, *_ = public.read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise SigningError(f"{public} is not a public key of OpenSSH: {error}") from error
    return allowed_signers_line(f"{kind} {key}")


def seal(payload: bytes, kind: str, private: Path) -> str:
    """Return a DSSE envelope around a payload, signed. `kind`: its media type. Raises `SigningError`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    try:
        key = load_ssh_private_key(private.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise SigningError(f"cannot read the key {private}: {error}", "the key must not have a passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{private} is not an Ed25519 key")
    envelope = Envelope(payload, kind, {})
    envelope.sign(CryptoSigner(key))
    return digest.canonical(envelope.to_dict()) + "\n"
