# SPDX-License-Identifier: Apache-2.0
"""An allowed signer, one who is not allowed, and a result."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from nabla.engine.remote import stores
from nabla.engine.remote.record import NAMESPACE
from nabla.engine.remote.settings import Settings

KEY = "ab" * 32


@dataclass(frozen=True)
class Signer:
    """A key, and the file that allows it."""

    key: Path
    allowed: Path

    def settings(self, **values: object) -> Settings:
        """Settings that accept its records."""
        return Settings(allowed_signers=self.allowed, key=self.key, **values)  # type: ignore[arg-type]


def new_signer(folder: Path, name: str, options: str = f'namespaces="{NAMESPACE}"') -> Signer:
    """Generate a key in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key], check=True)
    allowed = folder / f"{name}.allowed"
    allowed.write_text(f"# who may sign\n{name} {options} {key.with_name(f'{name}.pub').read_text()}")
    return Signer(key, allowed)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    """The allowed signer, in a path with a space."""
    return new_signer(tmp_path / "the keys", "builder")


@pytest.fixture
def stranger(tmp_path: Path) -> Signer:
    """A signer that no file allows."""
    return new_signer(tmp_path / "the keys", "stranger")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No store of the user, an empty cache, and every warning."""
    monkeypatch.setenv("NABLA_STORE", "")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NABLA_KEYS", str(tmp_path / "config" / "keys"))
    stores._warned.clear()


@pytest.fixture
def result(tmp_path: Path) -> dict[str, Path]:
    """The outputs of a step: a program, and a folder with all kinds of entries."""
    program, folder = tmp_path / "program", tmp_path / "folder"
    program.write_bytes(b"\x7fELF" + bytes(1 << 20) + b"end")
    program.chmod(0o755)
    (folder / "closed").mkdir(parents=True)
    (folder / "file").write_text("text\n")
    (folder / "file").chmod(0o640)
    (folder / "hard").hardlink_to(folder / "file")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "closed" / "n\udcffme").write_text("")
    (folder / "closed").chmod(0o555)
    (folder / "empty").mkdir()
    return {"0": program, "1": folder}
