# SPDX-License-Identifier: Apache-2.0
"""Stores as mirrors of all origins: the pinned digest verifies a file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nabla.sources import fetch
from tests.unit import server as http
from tests.unit.sources.conftest import CONTENT, SHA256
from tests.unit.sources.test_fetch import origin, source


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_store_is_a_mirror(
    server: http.Server,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    size: int | None,
) -> None:
    """A store provides the file by its digest; a wrong file causes a warning, an absent one does not."""
    wanted = source(origin(f"{server.url}/file.tar", size=size))
    monkeypatch.setenv("NABLA_STORE", f"{server.url}/store")
    server.files[f"/store/cas/{SHA256}"] = CONTENT
    assert fetch.fetch(wanted).read_bytes() == CONTENT
    assert server.requests == [f"/store/cas/{SHA256}"]
    shutil.rmtree(cache)
    server.files[f"/store/cas/{SHA256}"] = CONTENT[:-1] + b"x"
    assert fetch.fetch(wanted).read_bytes() == CONTENT
    assert "warning: the store" in capfd.readouterr().err
    shutil.rmtree(cache)
    del server.files[f"/store/cas/{SHA256}"]
    assert fetch.fetch(wanted).read_bytes() == CONTENT
    assert "warning" not in capfd.readouterr().err
