# SPDX-License-Identifier: Apache-2.0
"""Releases with TUF metadata, on a real web server: the real client accepts releases and refuses attacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.engine.remote.servers import free_port
from verify.release import files, fresh, layout, trust
from verify.release.fresh import FreshnessError, RefusedError, Source
from verify.release.rebuild import threshold

from .sites import CONTENT, Published, number


def test_fetch(site: Published) -> None:
    """The newest release, byte by byte, in the modes of releases; an older one by its version; packages."""
    assert site.fetch() == "1.1.0"
    seen = trust.examine_bytes(site.base / "fetched", site.base / "fetched" / layout.SIGNERS)
    assert [row.problems for row in seen.rows] == [()] * len(seen.rows)
    assert fresh.fetch(site.client(), site.base / "old", "1.0.0") == "1.0.0"
    assert fresh.fetch_packages(site.client(), site.base / "packages") == 3
    assert (site.base / "packages" / "libstdc++-13.2.1-r0.apk").read_bytes() == b"package"
    with pytest.raises(RefusedError, match=r"offers no release 1\.2\.0"):
        fresh.fetch(site.client(), site.base / "none", "1.2.0")
    assert {path.name for path in site.base.iterdir() if path.name.startswith(".")} == set()


def test_statements_of_rebuilds_are_published(site: Published) -> None:
    release = site.base / "made" / "1.1.0"
    statements = threshold.folder_of(release)
    statements.mkdir(parents=True)
    (statements / "alice.json").write_text("{}")
    site.site().publish(site.private(), release)
    assert (site.folder / "releases" / "attestations" / "1.1.0" / "alice.json").read_text() == "{}"
    targets = json.loads(max(site.metadata.glob("*.targets.json"), key=number).read_text())["signed"]["targets"]
    assert {"releases/attestations/1.1.0/alice.json", "releases/attestations/1.1.0/SHA256SUMS"} <= targets.keys()
    assert fresh.fetch(site.client(), site.base / "statements", "attestations/1.1.0") == "attestations/1.1.0"
    assert (site.base / "statements" / "alice.json").read_text() == "{}"


def test_a_release_is_compared_with_the_newest(site: Published) -> None:
    def problems(version: str, sums: str = "") -> list[str]:
        path = site.base / "made" / version / layout.SUMS
        return list(fresh.check(site.client(), version, sums or files.sha256(path)))

    assert problems("1.1.0") == []
    assert problems("1.0.0") == ["the newest release is 1.1.0"]
    assert problems("1.1.0", "0" * 64) == ["the server offers another release 1.1.0"]
    assert problems("2.0.0", "0" * 64) == ["the server offers no release 2.0.0", "the newest release is 1.1.0"]
    assert site.fetch() == "1.1.0"


def test_command_line(site: Published, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NABLA_KEYS", str(site.base / "user" / "keys"))
    target = str(site.base / "release")
    assert fresh.main([site.url, target]) == 2
    assert "hint: add --root FILE" in capsys.readouterr().err
    root = str(site.metadata / "1.root.json")
    assert fresh.main(["--root", root, site.url, target]) == 0
    assert capsys.readouterr().out == f"release 1.1.0 in {target}\n"
    assert fresh.main([site.url, target]) == 2
    assert "exists" in capsys.readouterr().err
    # The known metadata is beside the user's keys, and the root need not be named again.
    assert fresh.main(["--packages", f"{site.url}/", f"{target}-packages"]) == 0
    assert (site.base / "user" / "repositories").is_dir()
    shutil.rmtree(site.metadata)
    assert fresh.main([site.url, f"{target}-2"]) == 2
    (site.base / "user" / "repositories").rename(site.base / "forgotten")
    assert fresh.main(["--root", __file__, site.url, f"{target}-2"]) == 1
    assert "the metadata is malformed" in capsys.readouterr().err


# The power of a server, or of an attacker between, with everything that was ever published.


def test_rollback_to_an_earlier_state(site: Published) -> None:
    """All files of an earlier day, correctly signed and not yet expired."""
    shutil.copytree(site.folder, site.base / "earlier")
    site.release("1.2.0")
    assert site.fetch() == "1.2.0"
    _replace(site, site.base / "earlier")
    site.refused("offers older metadata than before")
    # A new client cannot know.
    assert site.fetch("stranger") == "1.1.0"


def test_rollback_of_the_snapshot(site: Published) -> None:
    """A new timestamp of a stolen online key that names the old snapshot."""
    assert site.fetch() == "1.1.0"
    before = max(site.metadata.glob("*.snapshot.json"), key=number)
    site.release("1.2.0")
    assert site.fetch() == "1.2.0"
    shutil.copy(before, site.metadata / "9.snapshot.json")
    meta = {"snapshot.json": {"version": number(before)}}
    site.rewrite("timestamp.json", "online", lambda signed: signed.update(version=9, meta=meta))
    site.refused("offers older metadata than before")


def test_rollback_of_the_targets(site: Published) -> None:
    """A new snapshot of a stolen online key that names the old targets: without their key there is nothing newer."""
    site.release("1.2.0")
    assert site.fetch() == "1.2.0"
    site.rewrite(
        "3.snapshot.json",
        "online",
        lambda signed: signed.update(version=9, meta={"targets.json": {"version": 2}}),
        "9.snapshot.json",
    )
    site.rewrite(
        "timestamp.json",
        "online",
        lambda signed: signed.update(version=9, meta={"snapshot.json": {"version": 9}}),
    )
    site.refused("offers older metadata than before")


def test_freeze(empty: Published) -> None:
    """The server shows the same state until the timestamp has expired."""
    empty.start(days=-10)
    empty.release("1.0.0", days=-10)
    empty.refused("offers nothing new: timestamp.json is expired")
    # A new timestamp alone does not keep the snapshot fresh forever.
    empty.site(-31).refresh(empty.private())
    empty.rewrite("timestamp.json", "online", lambda signed: signed.update(expires="2999-01-01T00:00:00Z"))
    empty.refused("offers nothing new: snapshot.json is expired")


def test_freeze_after_fresh_days(site: Published) -> None:
    """The known metadata is kept, and the next visit is refused."""
    assert site.fetch() == "1.1.0"
    site.site(-8).refresh(site.private())
    site.refused("offers nothing new: timestamp.json is expired")
    site.site().refresh(site.private("online"))
    assert site.fetch() == "1.1.0"


def test_expired_targets(empty: Published) -> None:
    empty.start()
    empty.release("1.0.0", days=-91)
    empty.site().refresh(empty.private())
    empty.refused("offers nothing new: .*targets is expired")


def test_expired_root(empty: Published) -> None:
    empty.start(days=-366)
    empty.release("1.0.0")
    empty.refused("offers nothing new: .*root.json is expired")
    # People sign the next root, whose content is the same.
    empty.site().rotate("root")
    empty.sign("ann", "cem")
    assert empty.fetch() == "1.0.0"


def test_mix_and_match_of_metadata(site: Published) -> None:
    """The snapshot of one day and the targets of another."""
    shutil.copy(site.metadata / "1.targets.json", site.metadata / "2.targets.json")
    site.refused("does not belong to the metadata|older metadata")


def test_mix_and_match_of_files(site: Published) -> None:
    """A file of the old release under the name of the new one; both have the same size."""
    shutil.copy(site.folder / "releases/1.0.0/licenses.md", site.folder / "releases/1.1.0/licenses.md")
    site.refused("does not belong to the metadata")


@pytest.mark.parametrize("size", [0, 7, 9, 1 << 20])
def test_files_of_another_size(site: Published, size: int) -> None:
    (site.folder / "releases/1.1.0/kernel/vmlinux").write_bytes(b"k" * size)
    site.refused("does not belong to the metadata")


def test_a_missing_file(site: Published) -> None:
    (site.folder / "releases/1.1.0/kernel/vmlinux").unlink()
    with pytest.raises(FreshnessError, match=r"cannot be read: .*404"):
        site.fetch()
    assert not (site.base / "fetched").exists()


def test_no_server(site: Published) -> None:
    absent = Source(f"http://127.0.0.1:{free_port()}", site.metadata / "1.root.json", site.base / "absent")
    with pytest.raises(FreshnessError, match=r"cannot be read: .*refused"):
        fresh.fetch(absent, site.base / "fetched")


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json"])
def test_metadata_of_a_thief(site: Published, name: str) -> None:
    """Signed by a key that no root names; with the same content, and without a signature."""
    site.rewrite(name, "thief", lambda signed: None)
    site.refused("not signed by enough|does not belong")
    data = json.loads((site.metadata / name).read_text())
    data["signatures"] = []
    (site.metadata / name).write_text(json.dumps(data))
    site.refused("not signed by enough|does not belong")


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json", "2.root.json"])
def test_malformed_metadata(site: Published, name: str) -> None:
    for content in (b"", b"{}", b"[" * 9999, b'{"signed": 1, "signatures": []}', b"\xff", b"[]", b"null"):
        (site.metadata / name).write_bytes(content)
        site.refused("malformed|does not belong|signed by")


def test_endless_metadata(site: Published) -> None:
    with (site.metadata / "timestamp.json").open("ab") as stream:
        stream.truncate(1 << 30)
    site.refused("does not belong to the metadata")


def _list(site: Published, text: str, release: str = "1.1.0") -> None:
    """Publish other sums of a release, as its publisher can."""
    (site.folder / "releases" / release / layout.SUMS).write_bytes(text.encode())
    site.site().publish(site.private())


def test_sums_that_list_themselves(site: Published) -> None:
    """Each file is fetched once."""
    sums = site.folder / "releases" / "1.1.0" / layout.SUMS
    _list(site, f"{'0' * 64} *{layout.SUMS}\n" * 2 + sums.read_text())
    assert site.fetch() == "1.1.0"
    assert (site.base / "fetched" / "kernel" / "vmlinux").read_bytes() == CONTENT["kernel/vmlinux"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\0b", "a\x1b[2J", "a\\b", ""])
def test_sums_with_names_of_other_places(site: Published, name: str) -> None:
    _list(site, f"{'0' * 64} *{name}\n")
    site.refused("SHA256SUMS is malformed")


def test_files_that_are_no_text(site: Published) -> None:
    (site.folder / "releases" / "1.1.0" / layout.SUMS).write_bytes(b"\xff")
    site.site().publish(site.private())
    site.refused("a file is malformed: .*codec")


def test_a_state_that_cannot_be_stored(site: Published) -> None:
    (site.base / "file").touch()
    inside = Source(site.url, site.metadata / "1.root.json", site.base / "file" / "state")
    with pytest.raises(FreshnessError, match="Not a directory") as caught:
        fresh.fetch(inside, site.base / "fetched")
    assert caught.value.hint == "check the path and its permissions"


def _replace(site: Published, folder: Path) -> None:
    """Serve another state."""
    shutil.rmtree(site.folder)
    shutil.copytree(folder, site.folder)
