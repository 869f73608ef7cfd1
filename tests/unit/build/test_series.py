# SPDX-License-Identifier: Apache-2.0
"""Applying a patch series, changing it, and taking it out again, with the build root's own patch program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nabla.build import series
from nabla.core.errors import PatchError

OLD = 1_000_000_000

EDIT = """\
Subject: edit

--- a/one
+++ b/one
@@ -1,3 +1,3 @@
 a
-b
+B
 c
"""
NEW = """\
Subject: new file, run by hand

diff --git a/dir/two b/dir/two
new file mode 100755
--- /dev/null
+++ b/dir/two
@@ -0,0 +1 @@
+two
"""
AGAIN = EDIT.replace("-b", "-B").replace("+B", "+BB").replace("Subject: edit", "Subject: again")
REMOVE = """\
Subject: remove

--- a/three
+++ /dev/null
@@ -1 +0,0 @@
-three
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> series.Series:
    """A tree of two old files."""
    monkeypatch.setenv("NABLA_CACHE", str(user_cache))
    folder = tmp_path / "tree"
    folder.mkdir()
    for name, text in {"one": "a\nb\nc\n", "three": "three\n", "idle": "idle\n"}.items():
        (folder / name).write_text(text)
        os.utime(folder / name, (OLD, OLD))
    return series.Series(folder, tmp_path / "memory")


def patches(tmp_path: Path, *texts: str) -> list[Path]:
    folder = tmp_path / "patches"
    folder.mkdir(exist_ok=True)
    patches = [folder / f"{number:04}-x.patch" for number in range(1, len(texts) + 1)]
    for path, text in zip(patches, texts, strict=True):
        path.write_text(text)
    return patches


def test_apply_change_and_take_out(tmp_path: Path, tree: series.Series) -> None:
    tree.apply(patches(tmp_path, EDIT, NEW, AGAIN, REMOVE))
    assert (tree.tree / "one").read_text() == "a\nBB\nc\n"
    assert (tree.tree / "dir" / "two").stat().st_mode & 0o777 == 0o755
    assert not (tree.tree / "three").exists()
    assert (tree.tree / "idle").stat().st_mtime == OLD
    # A new file needs a time that make understands.
    assert (tree.tree / "one").stat().st_mtime > OLD

    os.utime(tree.tree / "dir" / "two", (OLD, OLD))
    tree.apply(patches(tmp_path, EDIT, NEW))
    assert (tree.tree / "one").read_text() == "a\nB\nc\n"
    assert (tree.tree / "three").read_text() == "three\n"
    # Unchanged by the new series, hence not touched.
    assert (tree.tree / "dir" / "two").stat().st_mtime == OLD

    tree.apply([])
    assert (tree.tree / "one").read_text() == "a\nb\nc\n"
    # Back to upstream's content, but newer than what was compiled from the patched file.
    assert (tree.tree / "one").stat().st_mtime > OLD
    assert not (tree.tree / "dir" / "two").exists()


def test_failing_patch_is_named_and_changes_nothing(tmp_path: Path, tree: series.Series) -> None:
    tree.apply(patches(tmp_path, EDIT))
    with pytest.raises(PatchError, match=r"0002-x\.patch does not apply \(patch 2 of 3\)") as caught:
        tree.apply(patches(tmp_path, NEW, EDIT.replace("-b", "-x"), REMOVE))
    assert "one" in caught.value.hint
    assert (tree.tree / "one").read_text() == "a\nB\nc\n"
    assert not (tree.tree / "dir").exists()
    tree.apply(patches(tmp_path, NEW, EDIT))
    assert (tree.tree / "one").read_text() == "a\nB\nc\n"
    assert (tree.tree / "dir" / "two").exists()


def test_context_must_match_to_the_word(tmp_path: Path, tree: series.Series) -> None:
    with pytest.raises(PatchError, match="does not apply"):
        tree.apply(patches(tmp_path, EDIT.replace(" c\n", " other\n")))


def test_interrupted_call_is_repaired(tmp_path: Path, tree: series.Series, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = series._replace

    def interrupted(source: Path, target: Path) -> None:
        if target.name == "three":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(series, "_replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tree.apply(patches(tmp_path, EDIT, REMOVE))
    monkeypatch.setattr(series, "_replace", replace)
    tree.apply([])
    assert (tree.tree / "one").read_text() == "a\nb\nc\n"
    assert (tree.tree / "three").read_text() == "three\n"


@pytest.mark.parametrize("name", ["a/../../evil", "a//etc/passwd"])
def test_patch_of_a_file_outside(tmp_path: Path, tree: series.Series, name: str) -> None:
    with pytest.raises(PatchError, match="only change files in"):
        tree.apply(patches(tmp_path, EDIT.replace("b/one", name)))


def test_patch_without_change(tmp_path: Path, tree: series.Series) -> None:
    with pytest.raises(PatchError, match="the patch is empty"):
        tree.apply(patches(tmp_path, "Subject: nothing\n"))
