# SPDX-License-Identifier: Apache-2.0
"""A copy of the release that can be tampered with.

Copies consist of hard links; a changed file is replaced in its copy, never written to. All copies are signed again with
a key of the test, so that a test can also play the signer, whose files must be consistent too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.release import assembly, signing
from verify.release import layout, signatures, statement
from verify.release.statement import Statement

SMALL = "minimal"  # the image to tamper with
Keys = tuple[Path, Path]


@dataclass
class Copy:
    """A copy of the release, to be tampered with. `keys`: the signer's."""

    folder: Path
    keys: Keys

    def path(self, name: str) -> Path:
        return self.folder / name

    def replace(self, name: str, data: bytes) -> None:
        """Replace a file's content, without changing its hard links."""
        path = self.path(name)
        mode = path.stat().st_mode
        path.unlink()
        path.write_bytes(data)
        path.chmod(mode)

    def flip(self, name: str, at: float = 0.5) -> None:
        """Flip one bit of a file."""
        data = bytearray(self.path(name).read_bytes())
        data[int(at * (len(data) - 1))] ^= 1
        self.replace(name, bytes(data))

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        """Change a JSON document."""
        data = json.loads(self.path(name).read_bytes())
        change(data)
        self.replace(name, json.dumps(data).encode())

    def sums(self, change: Callable[[str], str]) -> None:
        """Change the file of sums, without signing it."""
        self.replace(layout.SUMS, change(self.path(layout.SUMS).read_text()).encode())

    def statement(self) -> Statement:
        return statement.read(signatures.payload(self.path(layout.STATEMENT).read_text()))

    def seal(self, keys: Keys | None = None) -> None:
        """Write statement, sums and signature again, as the signer can."""
        statement = self.statement()
        assembly.seal(statement.version, statement.dependencies, (keys or self.keys)[0], self.folder)

    def sign(self) -> None:
        """Write sums and signature again, but not the statement."""
        sums = assembly.sums(assembly.digests(self.folder, but=(layout.SUMS, layout.SIGNATURE)))
        self.replace(layout.SUMS, sums.encode())
        self.replace(layout.SIGNATURE, signing.sign(sums.encode(), self.keys[0]).encode())

    def apks(self) -> list[str]:
        """Return the names of all package files."""
        return sorted(path.name for path in self.path("apk/x86_64").glob("*.apk"))


Tamper = Callable[[Copy], object]


def link(source: Path, target: Path) -> None:
    """Copy a folder by hard links; modes and times of folders are preserved."""
    shutil.copytree(source, target, copy_function=os.link)


def make_key(folder: Path) -> Keys:
    """Return a new key."""
    private = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "x", "-f", private], check=True)
    return private, private.with_name("key.pub")
