# SPDX-License-Identifier: Apache-2.0
"""The release in out/release, signed by a key of the tests, and copies of it to tamper with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla.core.paths import WORK, relative
from nabla.release import signing
from nabla.release.contents import folder
from verify.release import layout
from verify.release.tools import Tools

from .copies import Copy, Keys, link, make_key


@pytest.fixture(scope="session")
def built() -> Path:
    """The release of this checkout."""
    path = folder().path
    if not (path / layout.SUMS).is_file():
        pytest.fail(f"{relative(path)} is missing; hint: ./doit.sh test builds it first", pytrace=False)
    return path


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools()


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_key(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="session")
def forger(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_key(tmp_path_factory.mktemp("forger"))


@pytest.fixture(scope="session")
def released() -> Iterator[Path]:
    """A folder on the file system of the release, for hard links."""
    path = Path(tempfile.mkdtemp(prefix="test-release-", dir=WORK))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def signed(built: Path, released: Path, signer: Keys) -> Path:
    """The release, signed by the test's signer; complete."""
    target = released / "signed"
    # Signing sets modes and times, also of shared files: to their present values.
    link(built, target)
    copy = Copy(target, signer)
    copy.replace(layout.SIGNERS, signing.allowed_signers(signer[1]).encode())
    copy.seal()
    return target


@pytest.fixture
def copy(signed: Path, released: Path, signer: Keys) -> Iterator[Copy]:
    target = released / "copy"
    link(signed, target)
    yield Copy(target, signer)
    shutil.rmtree(target)
