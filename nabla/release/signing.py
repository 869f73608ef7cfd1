# SPDX-License-Identifier: Apache-2.0
"""Sign releases with the user's Ed25519 key, which is generated and stored beside the key of packages.

Files are signed and verified by OpenSSH (`ssh-keygen -Y`, see ssh-keygen(1) and OpenSSH's PROTOCOL.sshsig), which most
hosts have. Statements are signed with the same key in a DSSE envelope, the format of tools for provenance
(https://github.com/secure-systems-lab/dsse). Ed25519 signatures are deterministic.
"""

from __future__ import annotations

from pathlib import Path

from nabla.core import digest, files
from nabla.core.errors import CommandError, NablaError
from nabla.core.process import run
from verify.release.layout import NAMESPACE, SIGNER, SIGNING_KEY, keys_dir
from verify.release.signatures import allowed_signers_line


class SigningError(NablaError):
    """A key cannot be used."""


def ensure_key() -> tuple[Path, Path]:
    """Return the user's private and public key; generates them if absent. Raises `CommandError`, `HostError`."""
    folder = keys_dir()
    private, public = folder / SIGNING_KEY, folder / f"{SIGNING_KEY}.pub"
    if private.is_file() and public.is_file():
        return private, public
    files.make_folder(folder)
    with files.lock(folder / ".lock", "waiting for another process that generates the key"):
        if private.is_file():
            # Never overwritten: its signatures would no longer verify.
            public.write_text(run(["ssh-keygen", "-y", "-f", private], input="").stdout)
        else:
            new = folder / f".{SIGNING_KEY}.new"
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
        raise SigningError(f"{public} is not a public key of OpenSSH: {error}") from error
    return allowed_signers_line(f"{kind} {key}")


def sign(data: bytes, private: Path) -> str:
    """Return OpenSSH's signature of `data`, as text. Raises `SigningError`."""
    words: list[str | Path] = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", private]
    try:
        return run(words, input=data).stdout
    except CommandError as error:
        raise SigningError(f"ssh-keygen cannot sign with {private}", error.hint) from error


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
