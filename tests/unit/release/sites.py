# SPDX-License-Identifier: Apache-2.0
"""A site with releases and TUF metadata, its keys, and its client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nabla.release import freshness, signing
from nabla.release.freshness import Site
from tests.integration.release.copies import Keys
from tests.unit.verify.test_rebuilds import make_release
from verify.release import fresh
from verify.release.fresh import RefusedError, Source

NOW = datetime.now(UTC)
PEOPLE = ("ann", "ben", "cem", "targets", "online", "new", "thief")
CONTENT = {
    "bin/nabla-run": b"launcher",
    "kernel/vmlinux": b"kernel",
    "apk/x86_64/Packages.adb": b"index",
    "apk/x86_64/libstdc++-13.2.1-r0.apk": b"package",
}


@dataclass
class Published:
    """A site, its keys, releases to publish, and a client's folder."""

    base: Path
    keys: dict[str, Keys]
    url: str = ""

    @property
    def folder(self) -> Path:
        return self.base / "site"

    @property
    def metadata(self) -> Path:
        return self.folder / "metadata"

    def site(self, days: float = 0) -> Site:
        """The site at a time that may be in the past."""
        return freshness.at(str(self.folder), NOW + timedelta(days=days))

    def private(self, *names: str) -> list[Path]:
        return [self.keys[name][0] for name in names or ("targets", "online")]

    def public(self, *names: str) -> list[Path]:
        return [self.keys[name][1] for name in names]

    def start(self, days: float = 0) -> None:
        online = self.keys["online"][1]
        roles = {"targets": self.keys["targets"][1], "snapshot": online, "timestamp": online}
        self.site(days).init(self.public("ann", "ben", "cem"), 2, roles)
        self.sign("ann", "ben", days=days)

    def sign(self, *names: str, days: float = 0) -> None:
        for name in names:
            self.site(days).sign(self.keys[name][0])

    def release(self, version: str, days: float = 0) -> Path:
        """Make and publish a release."""
        content = {**CONTENT, "licenses.md": version.encode()}
        folder = make_release(self.base / "made" / version, self.keys["targets"], version, content)
        self.site(days).publish(self.private(), folder)
        return folder

    def client(self, name: str = "client", first: int | None = 1) -> Source:
        """A client that trusts the root of this version, or its known metadata."""
        if first is not None:
            shutil.copy(self.metadata / f"{first}.root.json", self.base / f"{name}.root.json")
        root = self.base / f"{name}.root.json" if first is not None else None
        return Source(self.url, root, self.base / name)

    def fetch(self, name: str = "client", first: int | None = 1) -> str:
        """Fetch the newest release."""
        target = self.base / "fetched"
        shutil.rmtree(target, ignore_errors=True)
        return fresh.fetch(self.client(name, first), target)

    def refused(self, reason: str, name: str = "client") -> None:
        """A client refuses the server's files, and nothing is written."""
        with pytest.raises(RefusedError, match=reason):
            self.fetch(name)
        assert not (self.base / "fetched").exists()

    def rewrite(self, name: str, key: str, change: Callable[[Any], object], target: str = "") -> None:
        """Change metadata and sign it with a key."""
        from tuf.api.metadata import Metadata

        data = json.loads((self.metadata / name).read_text())
        change(data["signed"])
        metadata = Metadata.from_dict(data)
        metadata.sign(signing.library_signer(self.keys[key][0]))
        (self.metadata / (target or name)).write_bytes(metadata.to_bytes())


def number(path: Path) -> int:
    """The version in the name of a file of metadata."""
    return int(path.name.split(".")[0])
