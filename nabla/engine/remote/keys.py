# SPDX-License-Identifier: Apache-2.0
"""The user's Ed25519 key, which signs releases and entries of stores, by OpenSSH.

Files are signed and verified by `ssh-keygen -Y` (see ssh-keygen(1) and OpenSSH's PROTOCOL.sshsig), which most hosts
have. Ed25519 signatures are deterministic.
"""

from __future__ import annotations

from pathlib import Path

from nabla.core import files
from nabla.core.errors import CommandError, NablaError
from nabla.core.process import run
from verify.release.layout import NAMESPACE, SIGNER, SIGNING_KEY, keys_dir


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


def sign(data: bytes, private: Path, namespace: str = NAMESPACE) -> str:
    """Return OpenSSH's signature of `data`, as text. Raises `SigningError`."""
    words: list[str | Path] = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", private]
    try:
        return run(words, input=data).stdout
    except CommandError as error:
        raise SigningError(f"ssh-keygen cannot sign with {private}", error.hint) from error
