# SPDX-License-Identifier: Apache-2.0
"""nabla.release.signing with real keys; its signatures are checked by OpenSSH and OpenSSL themselves."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nabla.release import signing
from nabla.release.signing import SigningError
from verify.release import layout, signatures
from verify.release.signatures import SignatureError

KIND = "application/vnd.in-toto+json"
DATA = b"some\x00 data\n"


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A new key of this user, in a path with a space."""
    monkeypatch.setenv("NABLA_KEYS", str(tmp_path / "my keys"))
    return signing.ensure_key()


def _signed(folder: Path, keys: tuple[Path, Path], data: bytes = DATA) -> tuple[Path, Path]:
    """Write signature and allowed signers in the form of a release."""
    signature, allowed = folder / "data.sig", folder / "allowed_signers"
    signature.write_text(signing.sign(data, keys[0]))
    allowed.write_text(signing.allowed_signers(keys[1]))
    return signature, allowed


def _public(keys: tuple[Path, Path]) -> bytes:
    return base64.b64decode(keys[1].read_text().split()[1])


def test_key_is_made_once_and_private(keys: tuple[Path, Path]) -> None:
    before = keys[0].read_bytes()
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    assert signing.ensure_key() == keys
    assert keys[0].read_bytes() == before
    assert {path.name for path in keys[0].parent.iterdir()} == {"nabla.ed25519", "nabla.ed25519.pub", ".lock"}


def test_lost_public_key_comes_back(keys: tuple[Path, Path]) -> None:
    before = keys[0].read_bytes(), keys[1].read_text().split()[:2]
    keys[1].unlink()
    signing.ensure_key()
    assert (keys[0].read_bytes(), keys[1].read_text().split()[:2]) == before


def test_many_at_once_make_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NABLA_KEYS", str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(signing.ensure_key) for _ in range(8)]:
            future.result()
    derived = subprocess.run(["ssh-keygen", "-y", "-f", tmp_path / layout.SIGNING_KEY], capture_output=True, text=True)
    assert derived.stdout.split()[1] == (tmp_path / f"{layout.SIGNING_KEY}.pub").read_text().split()[1]


def test_signatures_repeat_and_verify(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    signature, allowed = _signed(tmp_path, keys)
    assert signing.sign(DATA, keys[0]) == signature.read_text()
    assert signatures.verify(DATA, signature, allowed) == _public(keys)


def test_the_documented_command_verifies(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    signature, allowed = _signed(tmp_path, keys)
    words: list[str | Path] = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        allowed,
        "-I",
        "nabla",
        "-n",
        "file",
        "-s",
        signature,
    ]
    assert subprocess.run(words, input=DATA, check=False).returncode == 0
    assert subprocess.run(words, input=DATA + b"x", check=False).returncode != 0


def test_other_data_fails(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    signature, allowed = _signed(tmp_path, keys)
    with pytest.raises(SignatureError, match="does not match"):
        signatures.verify(DATA + b"x", signature, allowed)


def test_another_key_fails(tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, allowed = _signed(tmp_path, keys)
    monkeypatch.setenv("NABLA_KEYS", str(tmp_path / "others"))
    other = tmp_path / "other.sig"
    other.write_text(signing.sign(DATA, signing.ensure_key()[0]))
    with pytest.raises(SignatureError, match="not by an allowed signer"):
        signatures.verify(DATA, other, allowed)


def test_another_namespace_fails(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    """A signature made for mail or for git must not pass for one of a release."""
    _, allowed = _signed(tmp_path, keys)
    words: list[str | Path] = ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", keys[0]]
    other = tmp_path / "other.sig"
    other.write_bytes(subprocess.run(words, input=DATA, check=True, capture_output=True).stdout)
    with pytest.raises(SignatureError):
        signatures.verify(DATA, other, allowed)


@pytest.mark.parametrize("damage", ["", "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n", "\x00"])
def test_damaged_signature_fails(tmp_path: Path, keys: tuple[Path, Path], damage: str) -> None:
    signature, allowed = _signed(tmp_path, keys)
    signature.write_text(damage)
    with pytest.raises(SignatureError):
        signatures.verify(DATA, signature, allowed)


def test_envelope_round_trip(keys: tuple[Path, Path]) -> None:
    text = signing.seal(DATA, KIND, keys[0])
    assert text == signing.seal(DATA, KIND, keys[0])
    assert signatures.open_sealed(text, KIND, _public(keys)) == DATA


def test_envelope_is_verified_by_openssl(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    """As in docs/release.md: with the key from ssh-keygen, without any program of nabla."""
    text = signing.seal(DATA, KIND, keys[0])
    pem = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00" + _public(keys)[-32:]
    (tmp_path / "key.der").write_bytes(pem)
    (tmp_path / "signature").write_bytes(base64.b64decode(json.loads(text)["signatures"][0]["sig"]))
    (tmp_path / "signed").write_bytes(signatures.encoded(text))
    words: list[str | Path] = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-rawin",
        "-pubin",
        "-keyform",
        "DER",
        "-inkey",
        "key.der",
    ]
    words += ["-sigfile", "signature", "-in", "signed"]
    assert subprocess.run(words, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "signed").write_bytes(signatures.encoded(text) + b"x")
    assert subprocess.run(words, cwd=tmp_path, check=False).returncode != 0


def _changed(text: str, **fields: object) -> str:
    return json.dumps({**json.loads(text), **fields}, sort_keys=True, separators=(",", ":")) + "\n"


def test_envelope_of_another_type_fails(keys: tuple[Path, Path]) -> None:
    text = signing.seal(DATA, "text/plain", keys[0])
    with pytest.raises(SignatureError, match="payload type is 'text/plain'"):
        signatures.open_sealed(text, KIND, _public(keys))
    with pytest.raises(SignatureError, match="not that of the release's signer"):
        signatures.open_sealed(_changed(text, payloadType=KIND), KIND, _public(keys))


def test_envelope_with_another_payload_fails(keys: tuple[Path, Path]) -> None:
    text = _changed(signing.seal(DATA, KIND, keys[0]), payload=base64.b64encode(b"other").decode())
    with pytest.raises(SignatureError, match="not that of the release's signer"):
        signatures.open_sealed(text, KIND, _public(keys))


def test_envelope_by_another_key_fails(
    tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NABLA_KEYS", str(tmp_path / "others"))
    text = signing.seal(DATA, KIND, signing.ensure_key()[0])
    with pytest.raises(SignatureError, match="not that of the release's signer"):
        signatures.open_sealed(text, KIND, _public(keys))


def test_envelope_with_more_in_it_fails(keys: tuple[Path, Path]) -> None:
    text = signing.seal(DATA, KIND, keys[0])
    for changed in (_changed(text, note="hello"), _changed(text, signatures=[]), text + "\n"):
        with pytest.raises(SignatureError, match="more than one signed payload"):
            signatures.open_sealed(changed, KIND, _public(keys))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"payload": "*", "payloadType": "x", "signatures": [1]}'])
def test_no_envelope(text: str, keys: tuple[Path, Path]) -> None:
    with pytest.raises(SignatureError, match="not a DSSE envelope"):
        signatures.open_sealed(text, KIND, _public(keys))


def test_key_with_a_pass_phrase(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "key"], check=True)
    with pytest.raises(SigningError, match="cannot read the key"):
        signing.seal(DATA, KIND, tmp_path / "key")


def test_key_of_another_kind(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "key"], check=True)
    with pytest.raises(SigningError, match="not an Ed25519 key"):
        signing.seal(DATA, KIND, tmp_path / "key")
