# SPDX-License-Identifier: Apache-2.0
"""Modes and times of a tree, and names that contain characters that Python treats as line ends."""

from __future__ import annotations

import os
from pathlib import Path

from nabla.core import manifest


def test_normalized_metadata_follow_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o600)
    os.utime(outside, (5, 5))
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "file").write_text("x")
    (tree / "file").chmod(0o777)
    (tree / "link").symlink_to(outside)
    (tree / "dangling").symlink_to("nowhere")
    manifest.normalize_metadata(tree, 1000)
    assert (outside.stat().st_mode & 0o777, outside.stat().st_mtime) == (0o600, 5)
    assert [path.lstat().st_mtime for path in (tree, *tree.iterdir())] == [1000] * 5
    assert [(tree / name).stat().st_mode & 0o777 for name in ("folder", "file")] == [0o755, 0o644]


def test_names_with_odd_separators(tmp_path: Path) -> None:
    for name in ("a\x0bb", "a\u2028b", "a\x85b", "a\x1cb"):
        (tmp_path / name).write_text("x")
    before = manifest.manifest(tmp_path)
    (tmp_path / "a\u2028b").write_text("changed")
    assert manifest.differences(before, manifest.manifest(tmp_path)) == ["a\u2028b"]
