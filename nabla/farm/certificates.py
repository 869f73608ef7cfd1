# SPDX-License-Identifier: Apache-2.0
"""The certificate authority of a farm, and the certificates of its scheduler, workers and clients.

Each farm has its own authority, in a folder of its owner. Only members with a certificate of this authority can
connect. Keys are ECDSA on P-256. The private key of the authority never leaves the folder.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nabla.core import files
from nabla.core.errors import ConfigError

ROLES = ("scheduler", "worker", "client")
AUTHORITY = "ca"
_YEARS = datetime.timedelta(days=5 * 365)
_LEAF = datetime.timedelta(days=2 * 365)
# The clock of another machine may be behind.
_BEHIND = datetime.timedelta(days=1)
_HINT = "`doit farm:key` creates it; copy ca.pem and the files of one role to each other machine (docs/farm.md)"


@dataclass(frozen=True)
class Credentials:
    """The files of one role."""

    authority: Path
    certificate: Path
    key: Path


def find(folder: Path, role: str) -> Credentials:
    """Return the files of a role. Raises `ConfigError` if one is absent, malformed, or not valid at this time."""
    credentials = Credentials(folder / f"{AUTHORITY}.pem", folder / f"{role}.pem", folder / f"{role}.key")
    for path in (credentials.authority, credentials.certificate, credentials.key):
        if not path.is_file():
            raise ConfigError(f"the farm's file {path} is missing", _HINT)
    authority = _check_time(credentials.authority)
    certificate = _check_time(credentials.certificate)
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:
        raise ConfigError(f"{credentials.certificate} was not issued by {credentials.authority}", _HINT) from None
    return credentials


def create(folder: Path) -> list[Path]:
    """Create an authority if the folder has none, and the absent certificates of all roles; return the new files."""
    created: list[Path] = []
    files.make_folder(folder)
    folder.chmod(0o700)
    with files.lock(folder / ".lock", "waiting for another process that creates keys"):
        authority, private = folder / f"{AUTHORITY}.pem", folder / f"{AUTHORITY}.key"
        if not private.is_file():
            key = ec.generate_private_key(ec.SECP256R1())
            _write_key(private, key)
            _write(authority, _certificate("nabla farm", key, key, None).public_bytes(serialization.Encoding.PEM))
            created += [private, authority]
        issuer = x509.load_pem_x509_certificate(authority.read_bytes())
        issuer_key = serialization.load_pem_private_key(private.read_bytes(), None)
        if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{private} is not an elliptic-curve key", "move the folder away and run again")
        for role in ROLES:
            path = folder / f"{role}.pem"
            if path.is_file():
                continue
            key = ec.generate_private_key(ec.SECP256R1())
            _write_key(folder / f"{role}.key", key)
            certificate = _certificate(f"nabla {role}", key, issuer_key, issuer)
            _write(path, certificate.public_bytes(serialization.Encoding.PEM))
            created += [folder / f"{role}.key", path]
    return created


def now() -> datetime.datetime:
    """Return the time of this host's clock."""
    return datetime.datetime.now(datetime.UTC)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
) -> x509.Certificate:
    """Return a certificate; without an issuer, the certificate of an authority."""
    begin = now()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    is_authority = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _BEHIND)
        .not_valid_after(begin + (_YEARS if is_authority else _LEAF))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .add_extension(_usage(is_authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not is_authority:
        # Workers and clients listen, too: they send data to each other.
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _check_time(path: Path) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path} is not a certificate: {error}", _HINT) from None
    present = now()
    if present < certificate.not_valid_before_utc:
        day = certificate.not_valid_before_utc.date()
        raise ConfigError(f"{path} is not valid before {day}", f"is the clock right? It shows {present.date()}")
    if present > certificate.not_valid_after_utc:
        day = certificate.not_valid_after_utc.date()
        raise ConfigError(
            f"{path} was valid until {day}; the clock shows {present.date()}",
            "if the clock is right, remove the file and run `doit farm:key` where the authority is",
        )
    return certificate


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    form = serialization.PrivateFormat.PKCS8
    _write(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), 0o600)


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    partial = path.with_name(f".{path.name}.new")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(content)
    partial.rename(path)
