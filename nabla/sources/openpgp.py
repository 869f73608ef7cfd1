# SPDX-License-Identifier: Apache-2.0
"""Verify detached OpenPGP signatures by gpgv with one committed public key.

A stricter library would reject old signatures that upstream cannot replace: musl's uses SHA-1, busybox's a DSA key of
1024 bits. The recipe's sha256 pins the content; the signature identifies the author.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from nabla.core.errors import SignatureError
from nabla.core.process import run
from nabla.sources.recipe import Signature

GPGV = "gpgv"
_CHUNK = 1 << 20
_READERS: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x1f\x8b": lambda path: cast(IO[bytes], gzip.GzipFile(path)),
    b"BZh": bz2.BZ2File,
}


def check(file: Path, signature_file: Path, wanted: Signature, scratch: Path | None = None) -> None:
    """Raise `SignatureError` unless `signature_file` is a signature of `file` by the given certificate.

    `scratch`: the folder for the decompressed data of a file that is signed uncompressed (the kernel: 1.3 GB); default:
    the temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="gpgv-", dir=scratch) as name:
        folder = Path(name)
        keyring = folder / "keyring.gpg"
        keyring.write_bytes(dearmor(wanted.key_path.read_text(encoding="ascii")))
        data = _decompress(file, folder / "data") if wanted.over == "uncompressed" else file
        options: list[str | Path] = ["--homedir", folder, "--keyring", keyring, "--status-fd", "1"]
        result = run([GPGV, *options, signature_file, data], check=False)
    valid = re.findall(r"^\[GNUPG:\] VALIDSIG (\S+) .*?(\S+)$", result.stdout, re.MULTILINE)
    if result.returncode == 0 and any(wanted.fingerprint in pair for pair in valid):
        return
    if valid:
        raise SignatureError(f"{file.name} is signed by {valid[0][-1]}, not by {wanted.fingerprint}")
    errors = [line.removeprefix("gpgv: ") for line in result.stderr.splitlines() if line.startswith("gpgv: ")]
    raise SignatureError(f"the OpenPGP signature of {file.name} is bad: {errors[-1] if errors else 'gpgv failed'}")


def dearmor(text: str) -> bytes:
    """Return the binary form of ASCII-armored OpenPGP data (RFC 9580, section 6). Raises `SignatureError`."""
    blocks = re.findall(r"^-----BEGIN PGP [^-]+-----\r?\n(.*?)^-----END PGP", text, re.MULTILINE | re.DOTALL)
    if not blocks:
        raise SignatureError("a public key file contains no ASCII-armored key")
    binary = b""
    for block in blocks:
        # Header lines end at the first empty line; a line that starts with "=" is the checksum.
        body = re.split(r"^\s*$", block, maxsplit=1, flags=re.MULTILINE)[-1]
        binary += base64.b64decode("".join(line for line in body.split() if not line.startswith("=")))
    return binary


def _decompress(file: Path, target: Path) -> Path:
    with file.open("rb") as stream:
        head = stream.read(6)
    for magic, reader in _READERS.items():
        if head.startswith(magic):
            with reader(file) as source, target.open("wb") as sink:
                while chunk := source.read(_CHUNK):
                    sink.write(chunk)
            return target
    raise SignatureError(f"{file.name} is not compressed, although its signature is over the uncompressed file")
