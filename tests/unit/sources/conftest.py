# SPDX-License-Identifier: Apache-2.0
"""A server with one file."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest

from nabla.sources.origins import url
from tests.unit import server as http

CONTENT = random.Random(7).randbytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(url, "_dead", {})
    with http.running() as running:
        running.files["/file.tar"] = CONTENT
        yield running
