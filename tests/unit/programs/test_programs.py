# SPDX-License-Identifier: Apache-2.0
"""Sets of programs: committed ones are complete, errors are reported, packages become nodes with owners and modes."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path

import pytest

from nabla.core.errors import LockError
from nabla.fs.nodes import Node
from nabla.sandbox import lockfile
from tests.programs import cases, image
from tests.programs.cases import Case, ProgramError
from tests.unit.debs import deb, member

GOOD = """\
summary = "a set"
size = "8M"
memory = "64M"

[[case]]
name = "one"
script = "echo one"
expected = "one\\n"
"""
REQUIREMENTS = lockfile.Requirements(
    "bookworm", {"a": ""}, {"bin/awk": "mawk"}, {"etc/passwd": "root\n", "bin/x": "#!/bin/sh\n"}, ("tmp",)
)


@pytest.mark.parametrize("name", cases.names())
def test_committed_sets(name: str) -> None:
    """Each lock matches its request, and each case prints whole lines."""
    suite = cases.load(name)
    requirements, lock = lockfile.current(suite.pins)
    assert set(requirements.packages) <= {file.name for file in lock.files}
    assert all(case.expected.endswith("\n") for case in suite.cases.case)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('memory = "64M"', 'memory = "much"', "cases.toml:3: memory"),
        ('"echo one"', '"echo one"\nwhy = 1', "cases.toml:8: case\\[1\\].why"),
        ("one\\n", "", "cases.toml:8: case\\[1\\].expected"),
        ("[[case]]", GOOD[GOOD.index("[[case]]") :] + "[[case]]", "two cases 'one'"),
    ],
)
def test_broken_sets(old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "FOLDER", tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cases.toml").write_text(GOOD)
    assert cases.load("set").cases.case[0].name == "one"
    (tmp_path / "set" / "cases.toml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ProgramError, match=message):
        cases.load("set")


@pytest.mark.parametrize(
    ("script", "account"),
    [
        ("echo one", ""),
        ("echo one; exit 3", "one: status 3"),
        ("echo two", "--- output\ntwo\n"),
        ("echo one; echo said >&2; kill -9 $$", "--- errors\nsaid\n"),
    ],
)
def test_what_counts_as_different(script: str, account: str) -> None:
    problem = cases.compare(Case(name="one", script="", expected="one\n"), ["sh", "-c", script])
    assert account in problem
    assert bool(problem) == bool(account)


def test_packages_become_nodes(tmp_path: Path) -> None:
    """Owners, set-user-id bits and hard links are those of the package, paths those of the merged layout."""
    package = tmp_path / "a.deb"
    members = [
        member("./bin/su", "su", mode=0o4755),
        member("./usr/bin/hard", type=tarfile.LNKTYPE, linkname="./bin/su"),
        member("./usr/share/doc/a/copyright", "text"),
        member("./var/mail", type=tarfile.DIRTYPE, mode=0o2775, gid=8),
    ]
    package.write_bytes(deb(members))
    tree = image.unpack(REQUIREMENTS, [package])
    assert (tree["/usr/bin/su"].mode, tree["/usr/bin/su"].content()) == (0o4755, b"su")
    assert tree["/usr/bin/hard"] == tree["/usr/bin/su"]
    assert (tree["/var/mail"].mode, tree["/var/mail"].gid) == (0o2775, 8)
    assert tree["/bin"].target == "usr/bin"
    assert tree["/usr/bin/awk"].target == "mawk"
    assert (tree["/etc/passwd"].mode, tree["/usr/bin/x"].mode) == (0o644, 0o755)
    assert "/usr/share/doc/a/copyright" not in tree
    with pytest.raises(LockError, match="two packages hold /usr/bin/"):
        image.unpack(REQUIREMENTS, [package, package])


def test_digest_knows_every_field(tmp_path: Path) -> None:
    node = Node("file", 0o644, data=b"x")
    digests = {
        image.tree_digest({"/x": each})
        for each in (
            node,
            dataclasses.replace(node, mode=0o755),
            dataclasses.replace(node, uid=1),
            dataclasses.replace(node, gid=1),
            dataclasses.replace(node, mtime=1),
            dataclasses.replace(node, data=b"y"),
            Node("link", 0o777, target="x"),
        )
    }
    assert len(digests) == 7
