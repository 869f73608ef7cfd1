# SPDX-License-Identifier: Apache-2.0
"""Image descriptions become file trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from nabla.core.errors import ImageError
from nabla.fs.nodes import Node
from nabla.images import compose, descriptions


def describe(tmp_path: Path, text: str) -> descriptions.Description:
    path = tmp_path / "thing.toml"
    path.write_text('name = "thing"\nsummary = "x"\nsize = "8M"\nparts = []\n' + text)
    return descriptions.load_file(path)


def test_own_entries(tmp_path: Path) -> None:
    text = """
        [[folder]]
        path = "/srv/www"
        mode = "1777"
        owner = "7:8"
        [[file]]
        path = "/LICENSE"
        source = "LICENSE"
        [[link]]
        path = "/etc/link"
        target = "../LICENSE"
        [[node]]
        path = "/dev/null"
        type = "char"
        major = 1
        minor = 3
        mode = "0666"
    """
    tree = compose.compose(describe(tmp_path, text), print)
    assert set(tree) == {"/srv", "/srv/www", "/LICENSE", "/etc", "/etc/link", "/dev", "/dev/null"}
    assert tree["/srv/www"] == Node("dir", 0o1777, 7, 8)
    assert b"Apache License" in tree["/LICENSE"].content()
    assert tree["/dev/null"].device == (1, 3)


@pytest.mark.buildroot  # reads the base, a download
def test_alpine_minus_what_is_dropped(tmp_path: Path) -> None:
    tree = compose.compose(describe(tmp_path, 'base = "alpine-base"\ndrop = ["/boot", "/lib/modules"]\n'), print)
    assert "/usr/bin/curl" in tree
    assert not [path for path in tree if path.startswith(("/boot", "/lib/modules/"))]
    with pytest.raises(ImageError, match="no /nothing to drop"):
        compose.compose(describe(tmp_path, 'base = "alpine-base"\ndrop = ["/nothing"]\n'), print)
