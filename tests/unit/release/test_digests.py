# SPDX-License-Identifier: Apache-2.0
"""The committed sums: each difference is reported with the expected sum, the actual sum, and a hint."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from nabla.core.artifacts import DIGEST_GROUPS
from nabla.core.paths import relative
from nabla.release import digests
from nabla.release.digests import DigestError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two built files and their sums."""
    monkeypatch.setattr(digests, "ROOT", tmp_path)
    monkeypatch.setattr(digests, "DIGESTS", tmp_path / "digests")
    monkeypatch.setattr(digests, "relative", lambda path: str(path.relative_to(tmp_path)))
    (tmp_path / "out" / "tree").mkdir(parents=True)
    (tmp_path / "out" / "file").write_text("one")
    (tmp_path / "out" / "tree" / "inner").write_text("two")
    digests.write("group", found(tmp_path))
    return tmp_path


def found(place: Path) -> dict[str, str]:
    return digests.sums([place / "out" / "file", place / "out" / "tree"])


def test_equal_sums_pass(place: Path) -> None:
    assert digests.check({"group": found(place)}) == 2
    assert digests.write("group", found(place)) == []


def test_form_is_that_of_sha256sum(place: Path) -> None:
    """The sums can be verified without Python."""
    subprocess.run(["sha256sum", "--strict", "-c", "digests/group.sha256"], cwd=place, check=True)
    (place / "out" / "file").write_text("other")
    assert subprocess.run(["sha256sum", "-c", "digests/group.sha256"], cwd=place, check=False).returncode == 1


def test_changed_byte_is_named_with_both_sums(place: Path) -> None:
    (place / "out" / "file").write_text("onf")
    with pytest.raises(DigestError, match=r"an artifact differs from the committed sum: out/file$") as caught:
        digests.check({"group": found(place)})
    expected, got = (hashlib.sha256(text).hexdigest() for text in (b"one", b"onf"))
    assert f"expected {expected}, got {got}" in caught.value.hint
    assert "doit lock:digests" in caught.value.hint
    assert digests.write("group", found(place)) == [f"out/file: expected {expected}, got {got}"]
    assert digests.check({"group": found(place)}) == 2


def test_new_and_lost_files_differ(place: Path) -> None:
    (place / "out" / "tree" / "inner").rename(place / "out" / "tree" / "other")
    with pytest.raises(DigestError, match="out/tree/inner and 1 more") as caught:
        digests.check({"group": found(place)})
    assert "out/tree/inner: is no longer built" in caught.value.hint
    assert "out/tree/other: is new" in caught.value.hint


def test_unbuilt_is_no_success(place: Path) -> None:
    (place / "out" / "file").unlink()
    with pytest.raises(DigestError, match="out/file was not built"):
        found(place)


@pytest.mark.parametrize("line", ["", "abc  out/file", f"{'0' * 64} out/file", f"{'0' * 64}  /etc/passwd"])
def test_malformed_lines_are_named(place: Path, line: str) -> None:
    with (place / "digests" / "group.sha256").open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(DigestError, match=r"group\.sha256:3"):
        digests.check({"group": found(place)})


def test_missing_and_stale_files_are_named(place: Path) -> None:
    with pytest.raises(DigestError, match=r"digests/other\.sha256 is missing"):
        digests.check({"group": found(place), "other": {}})
    (place / "digests" / "old.sha256").write_text("")
    with pytest.raises(DigestError, match=r"digests/old\.sha256: there is no such group"):
        digests.check({"group": found(place)})


@pytest.mark.parametrize("group", list(DIGEST_GROUPS))
def test_committed_sums_are_well_formed(group: str) -> None:
    """Every group has a committed file with exactly the group's paths."""
    wanted = [relative(path) for path in DIGEST_GROUPS[group]]
    committed = digests.read(group)
    assert committed
    assert all(any(path == each or path.startswith(f"{each}/") for each in wanted) for path in committed)
