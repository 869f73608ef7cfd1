# SPDX-License-Identifier: Apache-2.0
"""A web server with releases and TUF metadata."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.release.copies import Keys, make_key
from tests.unit.engine.remote.servers import nginx

from .sites import PEOPLE, Published


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Keys]:
    base = tmp_path_factory.mktemp("people")
    for name in PEOPLE:
        (base / name).mkdir()
    return {name: make_key(base / name) for name in PEOPLE}


@pytest.fixture
def empty(tmp_path: Path, people: dict[str, Keys]) -> Iterator[Published]:
    """A web server without content."""
    published = Published(tmp_path, people)
    published.folder.mkdir()
    with nginx(tmp_path / "nginx", published.folder) as address:
        published.url = f"http://{address}"
        yield published


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, people: dict[str, Keys]) -> Path:
    """A site with the releases 1.0.0 and 1.1.0, not served."""
    published = Published(tmp_path_factory.mktemp("prepared"), people)
    published.start()
    published.release("1.0.0")
    published.release("1.1.0")
    return published.base


@pytest.fixture
def site(empty: Published, prepared: Path) -> Published:
    """A site with the releases 1.0.0 and 1.1.0."""
    shutil.copytree(prepared, empty.base, dirs_exist_ok=True)
    return empty
