# SPDX-License-Identifier: Apache-2.0
"""Damaged entries and blobs of stores: the reader returns the signed content or an error, and writes nowhere else."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import msgspec
import zstandard

from nabla.core import digest
from nabla.engine.remote import action_result, bundle, keys, record
from nabla.engine.remote.record import EntryError, Output
from nabla.engine.remote.settings import Settings

from .engine import Finding, Fuzzer
from .files import _examine, damaged

ENTRIES = 40
KEY = "ab" * 32
_FOLDER = tempfile.TemporaryDirectory(prefix="nabla-fuzz-")


@cache
def _signer() -> Settings:
    key = Path(_FOLDER.name, "key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    allowed = Path(_FOLDER.name, "allowed")
    allowed.write_text(f"fuzzer {key.with_name('key.pub').read_text()}")
    return Settings(allowed_signers=allowed, key=key)


@cache
def _good() -> bytes:
    key = _signer().key
    assert key is not None
    return record.seal(KEY, "a step", {"0": Output("file", "1" * 64, 0o755, "2" * 64, 10, 20)}, key)


def _signed(text: bytes) -> bytes:
    key = _signer().key
    assert key is not None
    return action_result.encode(text, keys.sign(text, key, record.NAMESPACE).encode(), [])


def _nonsense(draw: random.Random) -> bytes:
    """Return an entry with a good signature of a damaged record: the parser itself is reached."""
    text = action_result.decode(_good())[0]
    if draw.randrange(2):
        return _signed(damaged(text, draw))
    data = msgspec.json.decode(text)
    spot = data if draw.randrange(2) else data["outputs"]["0"]
    name = draw.choice([*spot, "more", "\udc80".encode(errors="replace").decode()])
    spot[name] = draw.choice([None, -1, 1 << 70, 1.5, "", "x" * 300, [], {}, [[]] * 50, True, "../../x", "\x00"])
    return _signed(digest.canonical(data).encode(errors="replace"))


def _read_entry(path: Path) -> None:
    signed = record.unseal(path.read_bytes(), KEY, _signer())
    assert signed.record.key == KEY and signed.signer == "fuzzer"
    for name, output in signed.record.outputs.items():
        assert "/" not in name and name not in ("", ".", "..") and 0 <= output.size <= record.MAX_BLOB


def _archive(draw: random.Random) -> bytes:
    """Return a tar archive with names, links and kinds that an attacker would choose."""
    raw = io.BytesIO()
    names = ["a", "a/b", "..", "../x", "/x", "a/../../x", "./a", "a//b", "a/", "\udcff", "x" * 300, "", "."]
    kinds = [tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for _ in range(draw.randrange(1, 8)):
            member = tarfile.TarInfo(draw.choice(names))
            member.type = draw.choice(kinds)
            member.linkname = draw.choice(["..", "/", "a", "../x", "a/b", "/etc/passwd"])
            member.mode = draw.choice([0o644, 0o755, 0, 0o7777])
            member.mtime = draw.choice([0, 1, -1, 1 << 40, 1 << 70])
            content = b"x" * draw.choice([0, 1, 600])
            member.size = len(content) if member.type == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    data = raw.getvalue()
    return damaged(data, draw) if draw.randrange(2) else data


def _read_blob(path: Path) -> None:
    """Unpack it as a tree and as a file, in a monitored folder."""
    inner = path.parent / "inner"
    inner.mkdir()
    before = sorted(path.parent.iterdir())
    size = 1 << 16
    for number in range(2):
        output = Output("tree" if number else "file", "0" * 64, 0o755, "0" * 64, size, size)
        try:
            bundle.unpack(path, output, inner / str(number))
        except EntryError:
            continue
        finally:
            assert sorted(path.parent.iterdir()) == before, "it wrote outside of its target"
            assert {each.name for each in inner.iterdir()} <= {"0", "1"}
        raise AssertionError("the digest was not compared")


def entries(seed: int) -> Finding | None:
    """Damaged entries, signed nonsense, hostile archives."""
    for number in range(ENTRIES):
        draw = random.Random(seed * ENTRIES + number)
        match draw.randrange(4):
            case 0:
                data, read = damaged(_good(), draw), _read_entry
            case 1:
                data, read = _nonsense(draw), _read_entry
            case _:
                blob = zstandard.compress(_archive(draw))
                data, read = damaged(blob, draw) if draw.randrange(4) == 0 else blob, _read_blob
        wrong = _examine("data", seed * ENTRIES + number, data, read, EntryError)
        if wrong:
            return Finding("entries", seed, wrong)
    return None


FUZZERS = (Fuzzer("entries", "entries and blobs", ENTRIES, entries),)
