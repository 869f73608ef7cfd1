# SPDX-License-Identifier: Apache-2.0
"""Changes that anyone can make to a release: each fails for its own reason."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from nabla.core import manifest
from nabla.release import provenance, signing
from nabla.release.contents import folder
from verify.release import consistency, layout, statement
from verify.release import trust as checker
from verify.release.layout import CYCLONEDX, INDEX, OCI_ARCHIVE, OCI_LAYOUT, SPDX
from verify.release.statement import Statement
from verify.release.tools import Tools

from .copies import SMALL, Copy, Keys, Tamper


def _allowed(copy: Copy) -> Path:
    """The file that a user received from the signer, not from the release."""
    file = copy.keys[1].with_name("allowed")
    file.write_text(signing.allowed_signers(copy.keys[1]))
    return file


def _problems(copy: Copy, tools: Tools) -> dict[str, str]:
    """Return the failures by the name of the check, without checks that did not run."""
    rows = checker.examine(copy.folder, _allowed(copy), tools).rows
    problems = {row.check: "\n".join(row.problems) for row in rows if row.problems}
    return {name: text for name, text in problems.items() if "not checked, because" not in text}


def _add(copy: Copy) -> None:
    copy.path("bin/helper").write_text("#!/bin/sh\n")
    copy.path("bin/helper").chmod(0o644)


def _swap(copy: Copy) -> None:
    one, other = (f"apk/x86_64/{name}" for name in copy.apks()[:2])
    copy.path(one).rename(copy.path("third"))
    copy.path(other).rename(copy.path(one))
    copy.path("third").rename(copy.path(other))


def _link(copy: Copy) -> None:
    """A link to the same content."""
    copy.path("kernel/vmlinux").unlink()
    copy.path("kernel/vmlinux").symlink_to(folder().path / "kernel" / "vmlinux")


def _fifo(copy: Copy) -> None:
    os.mkfifo(copy.path("keys/more"))


def _mode(copy: Copy, name: str, mode: int) -> None:
    copy.replace(name, copy.path(name).read_bytes())
    copy.path(name).chmod(mode)


def _resum(copy: Copy) -> None:
    """The sums match again, but the signature does not."""
    copy.flip("kernel/vmlinux")
    digest = manifest.file_sha256(copy.path("kernel/vmlinux"))
    copy.sums(
        lambda text: "".join(
            f"{digest} *kernel/vmlinux\n" if "vmlinux" in line else f"{line}\n" for line in text.splitlines()
        )
    )


def _truncate(copy: Copy) -> None:
    data = copy.path(f"images/{SMALL}.ext3.zst").read_bytes()
    copy.replace(f"images/{SMALL}.ext3.zst", data[: len(data) // 2])


def _envelope(copy: Copy, **fields: Any) -> None:
    """Change an envelope, keep its form, and update the sums: only the statement is wrong."""
    data = json.loads(copy.path(layout.STATEMENT).read_text())
    data.update(fields)
    text = json.dumps(data, sort_keys=True, separators=(",", ":")) + "\n"
    copy.replace(layout.STATEMENT, text.encode())
    copy.sign()


def _payload(copy: Copy) -> None:
    statement = copy.statement()
    other = provenance.serialize(Statement("9.9.9", statement.subjects, statement.dependencies))
    _envelope(copy, payload=base64.b64encode(other).decode())


FLIPPED = (
    *(
        "bin/nabla-run",
        "bin/nabla",
        "kernel/vmlinux",
        f"images/{SMALL}.ext3.zst",
        layout.IMAGE_SUMS,
        INDEX,
        OCI_ARCHIVE,
        SPDX,
        CYCLONEDX,
    ),
    *("keys/nabla.rsa.pub", layout.SIGNERS, layout.STATEMENT, "licenses.md", f"{OCI_LAYOUT}/index.json"),
)
# Name, change, the check that must fail, and its message.
OUTSIDE: list[tuple[str, Tamper, str, str]] = [
    *((f"flip {name}", lambda copy, name=name: copy.flip(name), "sums", f"{name} has another sum") for name in FLIPPED),
    ("flip a package", lambda c: c.flip(f"apk/x86_64/{c.apks()[3]}"), "sums", "has another sum"),
    ("flip the sums", lambda c: c.flip(layout.SUMS, 0.01), "signature", "does not match"),
    ("flip the signature", lambda c: c.flip(layout.SIGNATURE, 0.6), "signature", layout.SIGNATURE),
    ("no signature", lambda c: c.path(layout.SIGNATURE).unlink(), "signature", layout.SIGNATURE),
    ("no sums", lambda c: c.path(layout.SUMS).unlink(), "signature", "No such file"),
    ("an added file", _add, "sums", "bin/helper is not in SHA256SUMS"),
    ("a removed file", lambda c: c.path("oci/nabla-linux.oci.tar").unlink(), "sums", "nabla-linux.oci.tar is missing"),
    ("no statement", lambda c: c.path(layout.STATEMENT).unlink(), "statement", "cannot be read"),
    ("set-user-id", lambda c: _mode(c, "bin/nabla-run", 0o4755), "modes", "bin/nabla-run has mode 4755"),
    ("not executable", lambda c: _mode(c, "kernel/vmlinux", 0o644), "modes", "kernel/vmlinux has mode 0644"),
    ("a folder for everybody", lambda c: c.path("bin").chmod(0o777), "modes", "bin has mode 0777"),
    ("swapped packages", _swap, "sums", "has another sum"),
    ("a link", _link, "entries", "kernel/vmlinux is a link"),
    ("a pipe", _fifo, "entries", "keys/more is neither"),
    ("a truncated image", _truncate, "sums", "has another sum"),
    ("other sums", _resum, "signature", "does not match"),
    ("a sum less", lambda c: c.sums(lambda t: t[t.index("\n") + 1 :]), "sums", "is not in SHA256SUMS"),
    ("a sum twice", lambda c: c.sums(lambda t: t[: t.index("\n") + 1] + t), "sums", "not a sorted list"),
    ("another payload", _payload, "statement", "not that of the release's signer"),
    (
        "another payload type",
        lambda c: _envelope(c, payloadType="text/plain"),
        "statement",
        "payload type is 'text/plain'",
    ),
    ("no signature in the envelope", lambda c: _envelope(c, signatures=[]), "statement", "more than one signed"),
    ("something beside the payload", lambda c: _envelope(c, note="x"), "statement", "more than one signed"),
]


@pytest.mark.parametrize(
    ("tamper", "check", "reason"), [case[1:] for case in OUTSIDE], ids=[case[0] for case in OUTSIDE]
)
def test_tampered(copy: Copy, tools: Tools, tamper: Tamper, check: str, reason: str) -> None:
    tamper(copy)
    problems = _problems(copy, tools)
    assert check in problems, problems
    assert reason in problems[check]
    # Content that the signer did not sign is not parsed.
    assert not problems.keys() & consistency.CHECKS.keys()


def test_signed_again_by_a_forger(copy: Copy, tools: Tools, forger: Keys) -> None:
    """Sums, statement and the key inside are consistent."""
    copy.edit(SPDX, lambda document: document["packages"].pop())
    copy.replace(layout.SIGNERS, signing.allowed_signers(forger[1]).encode())
    copy.seal(forger)
    problems = _problems(copy, tools)
    assert "not by an allowed signer" in problems["signature"]
    assert not problems.keys() & consistency.CHECKS.keys()


def test_statement_by_a_forger(copy: Copy, tools: Tools, forger: Keys) -> None:
    """In a release whose sums the signer was tricked into signing."""
    payload = provenance.serialize(copy.statement())
    copy.replace(layout.STATEMENT, signing.seal(payload, statement.MEDIA_TYPE, forger[0]).encode())
    copy.sign()
    assert list(_problems(copy, tools)) == ["statement"]


def test_statement_of_another_release(copy: Copy, tools: Tools) -> None:
    """Signed by the right key, but about other files."""
    copy.flip("bin/nabla-run")
    copy.sign()
    assert _problems(copy, tools) == {"statement": "bin/nabla-run has another sum in the statement"}


def test_key_of_somebody_else_for_later(copy: Copy, tools: Tools, forger: Keys) -> None:
    copy.replace(layout.SIGNERS, signing.allowed_signers(forger[1]).encode())
    copy.seal()
    assert list(_problems(copy, tools)) == ["keys"]
