# SPDX-License-Identifier: Apache-2.0
"""Signatures of a release: OpenSSH's of its sums, and the DSSE envelope around its statement."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verify.release.layout import NAMESPACE, SIGNER

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import Key  # type: ignore[attr-defined]

_MAGIC = b"SSHSIG"
_VERSION = 1
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_KEY_TYPE = b"ssh-ed25519"
# The start of a public key. Other types start with the same letters: a key can have many certificates.
_KEY_START = struct.pack(">I", len(_KEY_TYPE)) + _KEY_TYPE


class SignatureError(Exception):
    """A signature is invalid. `hint`: details."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def allowed_signers_line(key: str) -> str:
    """Return the line of a file of allowed signers for one key, which is given by type and base64."""
    return f'{SIGNER} namespaces="{NAMESPACE}" {key}\n'


def verify(data: bytes, signature: Path, allowed: Path, namespace: str = NAMESPACE) -> bytes:
    """Check OpenSSH's signature of `data` by one of the allowed signers; return the public key in OpenSSH's format.

    Raises `SignatureError` if the signature is damaged, is for other data or another namespace, or is by another
    signer.
    """
    known = _ssh_keygen("-Y", "find-principals", "-s", signature, "-f", allowed)
    if known.returncode != 0:
        raise SignatureError(f"{signature.name} is not by an allowed signer", known.stderr.strip())
    problem = ""
    for name in known.stdout.split("\n")[0].split(","):
        result = _ssh_keygen("-Y", "verify", "-n", namespace, "-I", name, "-s", signature, "-f", allowed, data=data)
        if result.returncode == 0:
            return _signer(signature)
        problem = problem or (result.stderr or result.stdout).strip()
    raise SignatureError(f"{signature.name} does not match the signed data", problem)


def seal(content: bytes, kind: str, private: Path, namespace: str) -> str:
    """Return a DSSE envelope around `content` whose signature is OpenSSH's. `kind`: its media type.

    Raises `SignatureError` if the key cannot sign.
    """
    from securesystemslib.dsse import Envelope

    signed = bytes(Envelope(content, kind, {}).pae())
    signature = _output("-Y", "sign", "-q", "-n", namespace, "-f", private, data=signed)
    public = base64.b64decode(_output("-y", "-f", private).split()[1])
    data = {
        "payload": base64.b64encode(content).decode(),
        "payloadType": kind,
        "signatures": [{"keyid": fingerprint(public), "sig": base64.b64encode(signature.encode()).decode()}],
    }
    return canonical(data) + "\n"


def open_sealed(text: str, kind: str, public: bytes) -> bytes:
    """Return the payload of a DSSE envelope after a check of its type and of its signature by a key.

    `public`: as `verify` returns it. Raises `SignatureError`.
    """
    from securesystemslib.exceptions import VerificationError

    envelope = _parse_one(text, kind)
    try:
        envelope.verify([_library_key(public)], 1)
    except VerificationError as error:
        raise SignatureError("the signature in the envelope is not that of the release's signer") from error
    return bytes(envelope.payload)


def open_signed(text: str, kind: str, name: str, allowed: Path, namespace: str) -> tuple[bytes, bytes]:
    """Return the payload of a DSSE envelope whose signature is OpenSSH's, and the public key.

    `name`: the identity in the file of allowed signers that must have signed. Raises `SignatureError`.
    """
    envelope = _parse_one(text, kind)
    ((key_id, signature),) = envelope.signatures.items()
    with tempfile.TemporaryDirectory(prefix="nabla-signature-") as scratch:
        file = Path(scratch, "signature")
        file.write_bytes(bytes.fromhex(signature.signature))
        words = ("-n", namespace, "-I", name, "-s", file, "-f", allowed)
        result = _ssh_keygen("-Y", "verify", *words, data=bytes(envelope.pae()))
        if result.returncode != 0:
            raise SignatureError(f"no allowed signer {name} signed it", (result.stderr or result.stdout).strip())
        public = _signer(file)
    if not public.startswith(_KEY_START):
        raise SignatureError(f"{name} has no Ed25519 key")
    if key_id != fingerprint(public):
        raise SignatureError("the envelope does not name the key that signed it")
    return bytes(envelope.payload), public


def fingerprint(public: bytes) -> str:
    """Return the fingerprint of a public key, in the format of `ssh-keygen -l`."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip('=')}"


def encoded(text: str) -> bytes:
    """Return the signed bytes of an envelope (DSSE's pre-authentication encoding).

    Raises `SignatureError` for a malformed envelope.
    """
    return bytes(_parse(text).pae())


def payload(text: str) -> bytes:
    """Return the payload of an envelope without a check of its signer. Raises `SignatureError` if it is malformed."""
    return bytes(_parse(text).payload)


def canonical(data: Any) -> str:
    """Return JSON data as canonical text."""
    return json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _output(*words: str | Path, data: bytes = b"") -> str:
    result = _ssh_keygen(*words, data=data)
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise SignatureError("the statement cannot be signed", lines[-1] if lines else "")
    return result.stdout


def _ssh_keygen(*words: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[str]:
    argv = ["ssh-keygen", *words]
    try:
        done = subprocess.run(argv, input=data, capture_output=True, check=False)
    except FileNotFoundError:
        raise SignatureError("ssh-keygen is missing", "install the package openssh-client") from None
    texts = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(argv, done.returncode, *texts)


def _parse_one(text: str, kind: str) -> Envelope:
    """Parse an envelope in canonical form with one signature and this type of payload."""
    envelope = _parse(text)
    # Unsigned parts could be changed by anybody.
    if canonical(envelope.to_dict()) + "\n" != text or len(envelope.signatures) != 1:
        raise SignatureError("the envelope contains more than one signed payload")
    if envelope.payload_type != kind:
        raise SignatureError(f"the envelope's payload type is {envelope.payload_type!r} instead of {kind!r}")
    return envelope


def _parse(text: str) -> Envelope:
    from securesystemslib.dsse import Envelope

    try:
        return Envelope.from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SignatureError(f"this is not a DSSE envelope: {type(error).__name__}: {error}") from error


def _signer(signature: Path) -> bytes:
    """Return the public key that a signature of OpenSSH names; only for signatures that ssh-keygen has verified."""
    lines = signature.read_text(encoding="ascii").split()
    body = "".join(lines)
    body = body[len(_BEGIN.replace(" ", "")) : -len(_END.replace(" ", ""))]
    try:
        raw = base64.b64decode(body, validate=True)
        version, length = struct.unpack_from(">II", raw, len(_MAGIC))
    except (binascii.Error, struct.error) as error:
        raise SignatureError(f"{signature.name} cannot be parsed: {error}") from error
    start = len(_MAGIC) + 8
    if not raw.startswith(_MAGIC) or version != _VERSION or start + length > len(raw):
        raise SignatureError(f"{signature.name} cannot be parsed: no signature of version {_VERSION}")
    return raw[start : start + length]


def _library_key(public: bytes) -> Key:
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    if not public.startswith(_KEY_START):
        raise SignatureError("the release's signer has no Ed25519 key")
    key: Any = load_ssh_public_key(_KEY_TYPE + b" " + base64.b64encode(public))
    sealing_key: Key = SSlibKey.from_crypto(key)
    return sealing_key
