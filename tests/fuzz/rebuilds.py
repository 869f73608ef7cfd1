# SPDX-License-Identifier: Apache-2.0
"""Damaged packages and statements of rebuilds: the verifier of a release gets a form and a statement, or an error."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from nabla.core import digest
from verify.release.rebuild import adb, statement
from verify.release.rebuild.adb import AdbError
from verify.release.rebuild.statement import Rebuild, RebuildError

from .engine import Finding, Fuzzer
from .files import _examine, damaged

ENTRIES = 400
_OBJECT, _INT = 0xE << 28, 0x1 << 28


@cache
def _payload() -> bytes:
    """Return a statement about two files."""
    environment = dict.fromkeys(statement.ENVIRONMENT, "x")
    sums = {"bin/nabla-run": "1" * 64, "kernel/vmlinux": "2" * 64}
    rebuild = Rebuild("alice", "1.2.3", "3" * 40, "4" * 64, environment, sums, sums, {})
    return (digest.canonical(statement.form(rebuild)) + "\n").encode()


def _nonsense(draw: random.Random) -> bytes:
    """Return a canonical statement with other values."""
    data = msgspec.json.decode(_payload())
    spot = draw.choice(
        [data, data["predicate"], data["predicate"]["release"], data["subject"][0], data["predicate"]["equal"]]
    )
    values: list[Any] = [
        None,
        -1,
        1 << 70,
        1.5,
        "",
        "x" * 300,
        [],
        {},
        [[]] * 50,
        True,
        "../../x",
        "\x00",
        {"sha256": 1},
    ]
    spot[draw.choice([*spot, "more"])] = draw.choice(values)
    return (digest.canonical(data) + "\n").encode(errors="replace")


def _read_statement(path: Path) -> None:
    rebuild = statement.read(path.read_bytes())
    assert not rebuild.equal.keys() & rebuild.different.keys()
    assert all(len(each) == 64 for each in (rebuild.provenance, *rebuild.subjects.values(), *rebuild.equal.values()))


def _block(kind: int, data: bytes) -> bytes:
    size = 4 + len(data)
    return struct.pack("<I", kind << 30 | size) + data + bytes(-size % 8)


@cache
def _index() -> bytes:
    """Return an index of one package, with a signature."""
    package = [14, *[0] * 12, _INT | 5]
    words = [0, _OBJECT | 8, 3, 0, _OBJECT | 20, 2, _OBJECT | 28, *package]
    return (
        b"ADB.indx" + _block(0, struct.pack(f"<{len(words)}I", *words)) + _block(1, b"signature") + _block(2, b"x" * 40)
    )


def _package(draw: random.Random) -> bytes:
    data = damaged(_index(), draw) if draw.randrange(4) else _index()
    if draw.randrange(2):
        return data
    packer = zlib.compressobj(wbits=-15)
    packed = b"ADBd" + packer.compress(data) + packer.flush()
    return damaged(packed, draw) if draw.randrange(2) else packed


def _read_package(path: Path) -> None:
    assert len(adb.unsigned_sha256(path)) == 64


def rebuilds(seed: int) -> Finding | None:
    """Damaged statements, canonical nonsense, damaged indexes."""
    for number in range(ENTRIES):
        draw = random.Random(seed * ENTRIES + number)
        mutant = seed * ENTRIES + number
        if draw.randrange(2):
            wrong = _examine("data", mutant, _package(draw), _read_package, AdbError)
        else:
            data = _nonsense(draw) if draw.randrange(2) else damaged(_payload(), draw)
            wrong = _examine("data", mutant, data, _read_statement, RebuildError)
        if wrong:
            return Finding("rebuilds", seed, wrong)
    return None


FUZZERS = (Fuzzer("rebuilds", "statements and packages", ENTRIES, rebuilds),)
