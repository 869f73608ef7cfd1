# SPDX-License-Identifier: Apache-2.0
"""OpenPGP signatures, with real keys made for these tests."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from nabla.core.errors import SignatureError
from nabla.sources import openpgp
from nabla.sources.recipe import Signature

DATA = Path(__file__).parent / "data"
FIRST = "4DB988CE9F5AD764D0809D251826564978C8A69F"
SECOND = "E6EDB0E7EE3A04A3DF8FF5661F544E3B25F9E42B"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nabla.sources.recipe.KEYS", DATA)


def test_good() -> None:
    openpgp.check(DATA / "signed.txt", DATA / "signed.txt.asc", Signature(key="first.asc", fingerprint=FIRST))


def test_changed_file(tmp_path: Path) -> None:
    changed = tmp_path / "signed.txt"
    changed.write_text("other words\n")
    with pytest.raises(SignatureError, match=r"signature of signed.txt is bad: BAD signature"):
        openpgp.check(changed, DATA / "signed.txt.asc", Signature(key="first.asc", fingerprint=FIRST))


def test_key_of_another_person() -> None:
    with pytest.raises(SignatureError, match="No public key"):
        openpgp.check(DATA / "signed.txt", DATA / "signed.txt.asc", Signature(key="second.asc", fingerprint=SECOND))


def test_right_key_in_the_file_but_another_wanted() -> None:
    with pytest.raises(SignatureError, match=f"signed by {FIRST}, not by {SECOND}"):
        openpgp.check(DATA / "signed.txt", DATA / "signed.txt.asc", Signature(key="first.asc", fingerprint=SECOND))


@pytest.mark.parametrize("compress", [lzma.compress, gzip.compress, bz2.compress])
def test_signature_over_the_uncompressed_file(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    packed = tmp_path / "signed.txt.packed"
    packed.write_bytes(compress((DATA / "signed.txt").read_bytes()))
    wanted = Signature(key="first.asc", fingerprint=FIRST, over="uncompressed")
    openpgp.check(packed, DATA / "signed.txt.asc", wanted)
    with pytest.raises(SignatureError, match="not compressed"):
        openpgp.check(DATA / "signed.txt", DATA / "signed.txt.asc", wanted)


def test_no_signature_at_all(tmp_path: Path) -> None:
    empty = tmp_path / "empty.asc"
    empty.write_text("")
    with pytest.raises(SignatureError, match="is bad"):
        openpgp.check(DATA / "signed.txt", empty, Signature(key="first.asc", fingerprint=FIRST))


def test_key_file_without_a_key() -> None:
    with pytest.raises(SignatureError, match="no ASCII-armored key"):
        openpgp.dearmor("hello")
