# SPDX-License-Identifier: Apache-2.0
"""A share and its surroundings, for tests that attack its file server."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .launcher import NOBODY
from .nine import Refused

SECRET = b"secret of the host"


class Place:
    """A share, and files beside it that no guest may reach."""

    def __init__(self, top: Path) -> None:
        top.chmod(0o755)
        self.share, self.outside = top / "share", top / "outside"
        for folder in (self.share, self.outside):
            folder.mkdir()
            if os.geteuid() == 0:
                os.chown(folder, NOBODY, NOBODY)
        self.secret = self.outside / "secret"
        self.secret.write_bytes(SECRET)
        self.secret.chmod(0o666)
        self.outside.chmod(0o777)
        self.before = self.state()

    def state(self) -> object:
        """Return the state outside that a guest could have changed."""
        status = self.secret.stat()
        return (
            sorted(os.listdir(self.outside)),
            sorted(os.listdir(self.outside.parent)),
            self.secret.read_bytes(),
            stat.S_IMODE(status.st_mode),
            status.st_mtime_ns,
            status.st_nlink,
        )

    def make(self, name: str, content: bytes = b"inside") -> Path:
        """Create a file in the share that the server's user owns."""
        path = self.share / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if os.geteuid() == 0:
            for each in (path, *path.parents):
                if self.share in each.parents:
                    os.chown(each, NOBODY, NOBODY)
        return path


@pytest.fixture
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A share, whose surroundings are compared at the end."""
    top = tmp_path_factory.mktemp("shared")
    for folder in (top.parent, top.parent.parent):
        folder.chmod(0o755)
    attacked = Place(top)
    yield attacked
    assert attacked.state() == attacked.before


def refused(numbers: str, attempt: Callable[[], object]) -> None:
    """Assert that the server refuses with one of these errors."""
    with pytest.raises(Refused) as caught:
        attempt()
    assert str(caught.value) in numbers.split(), caught.value
