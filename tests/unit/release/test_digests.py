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
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two built files and their sums."""
    monkeypatch.setattr(digests, "ROOT", tmp_path)
    monkeypatch.setattr(digests, "DIGESTS", tmp_path / "digests")
    monkeypatch.setattr(digests, "relative", lambda path: str(path.relative_to(tmp_path)))
    (tmp_path / "out" / "tree").mkdir(parents=True)
    (tmp_path / "out" / "file").write_text("one")
    (tmp_path / "out" / "tree" / "inner").write_text("two")
    digests.write("group", digests_of(tmp_path))
    return tmp_path


def digests_of(checkout: Path) -> dict[str, str]:
    return digests.sums([checkout / "out" / "file", checkout / "out" / "tree"])


def test_equal_sums_pass(checkout: Path) -> None:
    assert digests.check({"group": digests_of(checkout)}) == 2
    assert digests.write("group", digests_of(checkout)) == []


def test_form_is_that_of_sha256sum(checkout: Path) -> None:
    """The sums can be verified without Python."""
    subprocess.run(["sha256sum", "--strict", "-c", "digests/group.sha256"], cwd=checkout, check=True)
    (checkout / "out" / "file").write_text("other")
    assert subprocess.run(["sha256sum", "-c", "digests/group.sha256"], cwd=checkout, check=False).returncode == 1


def test_changed_byte_is_named_with_both_sums(checkout: Path) -> None:
    (checkout / "out" / "file").write_text("onf")
    with pytest.raises(DigestError, match=r"an artifact differs from the committed sum: out/file$") as caught:
        digests.check({"group": digests_of(checkout)})
    expected, got = (hashlib.sha256(text).hexdigest() for text in (b"one", b"onf"))
    assert f"expected {expected}, got {got}" in caught.value.hint
    assert "doit lock:digests" in caught.value.hint
    assert digests.write("group", digests_of(checkout)) == [f"out/file: expected {expected}, got {got}"]
    assert digests.check({"group": digests_of(checkout)}) == 2


def test_new_and_lost_files_differ(checkout: Path) -> None:
    (checkout / "out" / "tree" / "inner").rename(checkout / "out" / "tree" / "other")
    with pytest.raises(DigestError, match="out/tree/inner and 1 more") as caught:
        digests.check({"group": digests_of(checkout)})
    assert "out/tree/inner: is no longer built" in caught.value.hint
    assert "out/tree/other: is new" in caught.value.hint


def test_unbuilt_is_no_success(checkout: Path) -> None:
    (checkout / "out" / "file").unlink()
    with pytest.raises(DigestError, match="out/file was not built"):
        digests_of(checkout)


@pytest.mark.parametrize("line", ["", "abc  out/file", f"{'0' * 64} out/file", f"{'0' * 64}  /etc/passwd"])
def test_malformed_lines_are_named(checkout: Path, line: str) -> None:
    with (checkout / "digests" / "group.sha256").open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(DigestError, match=r"group\.sha256:3"):
        digests.check({"group": digests_of(checkout)})


def test_missing_and_stale_files_are_named(checkout: Path) -> None:
    with pytest.raises(DigestError, match=r"digests/other\.sha256 is missing"):
        digests.check({"group": digests_of(checkout), "other": {}})
    (checkout / "digests" / "old.sha256").write_text("")
    with pytest.raises(DigestError, match=r"digests/old\.sha256: there is no such group"):
        digests.check({"group": digests_of(checkout)})


@pytest.mark.parametrize("group", list(DIGEST_GROUPS))
def test_committed_sums_are_well_formed(group: str) -> None:
    """Every group has a committed file with exactly the group's paths."""
    wanted = [relative(path) for path in DIGEST_GROUPS[group]]
    committed = digests.read(group)
    assert committed
    assert all(any(path == each or path.startswith(f"{each}/") for each in wanted) for path in committed)
