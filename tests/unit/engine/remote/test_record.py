# SPDX-License-Identifier: Apache-2.0
"""The signed record of a result, and its form as an ActionResult of Bazel's caches."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nabla.core import digest
from nabla.engine.remote import action_result, keys, record
from nabla.engine.remote.record import EntryError, Output
from tests.unit.engine.remote.conftest import KEY, Signer, new_signer
from verify.release.layout import NAMESPACE as RELEASE

OUTPUTS = {"0": Output("file", "1" * 64, 0o755, "2" * 64, 10, 20), "1": Output("tree", "3" * 64, 0o755, "4" * 64, 5, 6)}


def entry(signer: Signer, **changes: Any) -> bytes:
    """An entry with a correct signature of a changed record."""
    base = msgspec.to_builtins(record.Record(1, KEY, "musl:build", int(time.time()), OUTPUTS))
    text = digest.canonical({**base, **changes}).encode()
    return action_result.encode(text, keys.sign(text, signer.key, record.NAMESPACE).encode(), [])


def test_what_is_sealed_is_read(signer: Signer) -> None:
    signed = record.unseal(record.seal(KEY, "musl:build", OUTPUTS, signer.key), KEY, signer.settings())
    assert (signed.signer, signed.record.title, signed.record.outputs) == ("builder", "musl:build", OUTPUTS)
    assert abs(signed.record.created - time.time()) < 3600


def test_unchanged_record_is_accepted(signer: Signer) -> None:
    """This shows that the changes below are the reason for the refusals."""
    assert record.unseal(entry(signer), KEY, signer.settings()).record.outputs == OUTPUTS


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"key": "cd" * 32}, "belongs to another key"),
        ({"version": 2}, "is malformed"),
        ({"key": KEY.upper()}, "is malformed"),
        ({"more": 1}, "is malformed"),
        ({"outputs": {}}, "is malformed"),
        ({"outputs": {"../x": msgspec.to_builtins(OUTPUTS["0"])}}, "an output named '../x'"),
        ({"outputs": {"manifest.json": msgspec.to_builtins(OUTPUTS["0"])}}, "an output named 'manifest.json'"),
        ({"outputs": {"0": {**msgspec.to_builtins(OUTPUTS["0"]), "size": record.MAX_BLOB + 1}}}, "is malformed"),
        ({"outputs": {"0": {**msgspec.to_builtins(OUTPUTS["0"]), "size": -1}}}, "is malformed"),
        ({"outputs": {"0": {**msgspec.to_builtins(OUTPUTS["0"]), "mode": 0o4755}}}, "is malformed"),
        ({"outputs": {"0": {**msgspec.to_builtins(OUTPUTS["0"]), "blob": "../../x"}}}, "is malformed"),
        ({"outputs": {"0": {**msgspec.to_builtins(OUTPUTS["0"]), "kind": "device"}}}, "is malformed"),
        ({"created": int(time.time()) + 3 * 86400}, "in the future"),
        ({"created": 1 << 50}, "is malformed"),
    ],
)
def test_signed_nonsense_is_refused(signer: Signer, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(EntryError, match=what):
        record.unseal(entry(signer, **changes), KEY, signer.settings())


def test_replay_is_limited_by_time(signer: Signer) -> None:
    old = entry(signer, created=int(time.time()) - 10 * 86400)
    record.unseal(old, KEY, signer.settings(max_age=11 * 86400.0))
    with pytest.raises(EntryError, match="too long ago"):
        record.unseal(old, KEY, signer.settings(max_age=9 * 86400.0))
    with pytest.raises(EntryError, match="not_before"):
        record.unseal(old, KEY, signer.settings(not_before=time.time() - 86400))


def test_other_signers_are_refused(tmp_path: Path, signer: Signer, stranger: Signer) -> None:
    with pytest.raises(EntryError, match="not by an allowed signer"):
        record.unseal(entry(stranger), KEY, signer.settings())
    expired = new_signer(tmp_path, "former", f'namespaces="{record.NAMESPACE}",valid-before="20200101"')
    with pytest.raises(EntryError, match=r"signature|signer"):
        record.unseal(entry(expired), KEY, expired.settings())
    elsewhere = new_signer(tmp_path, "releases", f'namespaces="{RELEASE}"')
    with pytest.raises(EntryError, match=r"signature|signer|match"):
        record.unseal(entry(elsewhere), KEY, elsewhere.settings())
    signer.allowed.unlink()
    with pytest.raises(EntryError, match="no signer is allowed"):
        record.unseal(entry(signer), KEY, signer.settings())


def test_signature_of_a_release_does_not_count(signer: Signer) -> None:
    """The same key signs both; the namespace separates them."""
    text, _ = action_result.decode(entry(signer))
    foreign = action_result.encode(text, keys.sign(text, signer.key, RELEASE).encode(), [])
    signer.allowed.write_text(f"builder {signer.key.with_name('builder.pub').read_text()}")
    record.unseal(entry(signer), KEY, signer.settings())
    with pytest.raises(EntryError, match="does not match"):
        record.unseal(foreign, KEY, signer.settings())


@pytest.mark.parametrize("data", [b"", b"x", b"{}", b"\xff" * 50, b"<html>login</html>", b"\x0a\xff\xff\xff\xff\x7f"])
def test_other_answers_are_refused(signer: Signer, data: bytes) -> None:
    with pytest.raises(EntryError):
        record.unseal(data, KEY, signer.settings())


def test_huge_entry_is_refused(signer: Signer) -> None:
    data = entry(signer)
    with pytest.raises(EntryError, match="more than"):
        record.unseal(data + bytes(record.MAX_ENTRY), KEY, signer.settings())


def test_every_change_of_the_record_is_refused(signer: Signer) -> None:
    """Whatever changes in the entry, the result is the signed record, or none."""
    good = record.seal(KEY, "musl:build", OUTPUTS, signer.key)
    expected = record.unseal(good, KEY, signer.settings()).record
    generator = random.Random(16)
    for _ in range(60):
        bad = bytearray(good)
        if generator.random() < 0.3:
            del bad[generator.randrange(len(bad)) :]
        else:
            bad[generator.randrange(len(bad))] ^= 1 << generator.randrange(8)
        try:
            assert record.unseal(bytes(bad), KEY, signer.settings()).record == expected
        except EntryError as error:
            assert "\n" not in str(error)


def test_servers_of_bazel_accept_the_form(signer: Signer) -> None:
    """What bazel-remote checks: the message parses, blobs are valid digests, a worker is named, it is not empty."""
    message = action_result._message()()
    message.ParseFromString(record.seal(KEY, "musl:build", OUTPUTS, signer.key))
    assert [(each.path, each.digest.hash, each.digest.size_bytes) for each in message.output_files] == [
        ("0.zst", "2" * 64, 10),
        ("1.zst", "4" * 64, 5),
    ]
    assert message.execution_metadata.worker == action_result.WORKER
    # A server may write the message again.
    assert record.unseal(message.SerializeToString(), KEY, signer.settings()).record.outputs == OUTPUTS


def test_protobufs_own_reader_reads_it(signer: Signer) -> None:
    """Fields by number, as in any other implementation."""
    data = record.seal(KEY, "musl:build", OUTPUTS, signer.key)
    fields = dict(_fields(data))
    assert json.loads(fields[5])["key"] == KEY
    assert fields[7].startswith(b"-----BEGIN SSH SIGNATURE-----")
    assert dict(_fields(fields[9])) == {1: b"nabla"}


def test_openssh_alone_verifies_it(tmp_path: Path, signer: Signer) -> None:
    """With the command of docs/store.md."""
    text, signature = action_result.decode(record.seal(KEY, "musl:build", OUTPUTS, signer.key))
    (tmp_path / "record.sig").write_bytes(signature)
    words: list[str | Path] = ["-f", signer.allowed, "-I", "builder", "-n", record.NAMESPACE, "-s"]
    subprocess.run(["ssh-keygen", "-Y", "verify", *words, tmp_path / "record.sig"], input=text, check=True)


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    at = 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    fields = []
    while at < len(data):
        tag = number()
        assert tag & 7 == 2
        length = number()
        fields.append((tag >> 3, data[at : at + length]))
        at += length
    return fields
