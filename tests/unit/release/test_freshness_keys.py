# SPDX-License-Identifier: Apache-2.0
"""Keys of a site with TUF metadata: rotation, loss and theft; mistakes of the publisher."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from nabla.core.errors import CommandError, ConfigError, NablaError, VerifyError
from nabla.release import freshness_tasks
from nabla.release.freshness import PublishError
from tests.unit.verify.test_rebuilds import make_release
from verify.release import files, layout

from .sites import CONTENT, NOW, Published


def test_rotated_keys(site: Published) -> None:
    """The key of releases and the online key change; clients of each age follow the chain of roots."""
    assert site.fetch() == "1.1.0"
    for role in ("targets", "snapshot", "timestamp"):
        site.site().rotate(role, site.public("new"), site.public("targets" if role == "targets" else "online"))
    site.sign("ann", "ben")
    site.refused("not signed by enough")
    site.site().publish(site.private("new"))
    assert site.fetch() == "1.1.0"
    assert site.fetch("stranger") == "1.1.0"
    with pytest.raises(PublishError, match="none of the keys signs for the role targets"):
        site.site().publish(site.private())
    # A wrong key changes nothing that clients fetch.
    release = make_release(site.base / "made" / "1.2.0", site.keys["targets"], "1.2.0", CONTENT)
    with pytest.raises(PublishError, match="none of the keys signs for the role targets"):
        site.site().publish(site.private(), release)
    assert site.fetch() == "1.1.0"


def test_rotated_root(site: Published) -> None:
    """All three people are replaced, one after the other, and an old client follows."""
    assert site.fetch() == "1.1.0"
    site.site().rotate("root", site.public("new"), site.public("ann"))
    site.sign("ben", "cem")
    site.site().rotate("root", site.public("targets"), site.public("ben"))
    site.sign("new", "cem")
    site.site().rotate("root", site.public("online"), site.public("cem"), number=3)
    site.sign("new", "targets", "cem")
    assert site.site().staged.exists()
    site.sign("online")
    assert not site.site().staged.exists()
    assert site.fetch() == site.fetch("stranger") == "1.1.0"
    assert (site.base / "client" / "root.json").resolve().name == "4.root.json"


def test_root_by_too_few(site: Published) -> None:
    """One stolen root key cannot name other keys; a root of the right people must have the next version."""
    assert site.fetch() == "1.1.0"
    site.site().rotate("targets", site.public("thief"), site.public("targets"))
    site.sign("ann")
    site.site().staged.rename(site.metadata / "2.root.json")
    site.refused("not signed by enough")
    (site.metadata / "2.root.json").unlink()
    shutil.copy(site.metadata / "1.root.json", site.metadata / "2.root.json")
    site.refused("older metadata than before")


def test_new_root_needs_its_own_people(site: Published) -> None:
    """The old root's people cannot hand the site to keys that did not sign."""
    site.site().rotate("root", site.public("new", "thief"), site.public("ann", "ben"), number=3)
    site.sign("ann", "ben", "cem", "new")
    assert site.site().staged.exists()
    site.site().staged.rename(site.metadata / "2.root.json")
    site.refused("not signed by enough")


def test_lost_key_of_releases(site: Published) -> None:
    """The drill of docs/freshness.md: a thief has the key of releases and the online key, and publishes."""
    assert site.fetch() == "1.1.0"
    (site.base / "made" / "1.9.9").mkdir()
    evil = make_release(site.base / "made" / "1.9.9", site.keys["thief"], "1.9.9", CONTENT)
    site.site().publish(site.private(), evil)
    assert site.fetch("victim") == "1.9.9"
    shutil.rmtree(site.folder / "releases" / "1.9.9")
    for role in ("targets", "snapshot", "timestamp"):
        site.site().rotate(role, site.public("new"), site.public("targets" if role == "targets" else "online"))
    site.sign("ann", "cem")
    assert site.site().publish(site.private("new")) == "1.1.0"
    assert site.fetch() == site.fetch("victim") == site.fetch("stranger") == "1.1.0"
    # The thief's keys are worth nothing now.
    site.rewrite("timestamp.json", "online", lambda signed: signed.update(version=99))
    site.refused("not signed by enough")


def test_fast_forward_is_repaired_by_rotation(site: Published) -> None:
    """A thief signed the largest version: after a rotation of the online key, clients accept small ones again."""
    largest = 2**31
    site.rewrite("timestamp.json", "online", lambda signed: signed.update(version=largest))
    assert site.fetch() == "1.1.0"
    (site.metadata / "timestamp.json").unlink()
    site.site().refresh(site.private())
    site.refused("older metadata than before")
    for role in ("snapshot", "timestamp"):
        site.site().rotate(role, site.public("new"), site.public("online"))
    site.sign("ben", "cem")
    site.site().publish(site.private("targets", "new"))
    assert site.fetch() == "1.1.0"


def test_lost_root_key(site: Published) -> None:
    """One of three is lost: the two others replace it."""
    site.site().rotate("root", site.public("new"), site.public("cem"))
    site.sign("ann", "ben")
    assert site.fetch() == "1.1.0"
    site.site().rotate("root")
    with pytest.raises(PublishError, match="is not a root key"):
        site.sign("cem")


# Mistakes of the publisher.


def test_refused_by_the_publisher(site: Published) -> None:
    publisher = site.site()
    other = make_release(site.base / "other", site.keys["targets"], "1.1.0", {**CONTENT, "licenses.md": b"x"})
    with pytest.raises(PublishError, match=r"another release 1\.1\.0 is published"):
        publisher.publish(site.private(), other)
    (other / "licenses.md").write_bytes(b"y")
    with pytest.raises(PublishError, match="the release is damaged"):
        publisher.publish(site.private(), other)
    with pytest.raises(PublishError, match="has a root"):
        publisher.init([], 1, {})
    with pytest.raises(PublishError, match="no root waits"):
        publisher.sign(site.private("ann")[0])
    with pytest.raises(ConfigError, match="there is no role 'mirrors'"):
        publisher.rotate("mirrors")
    with pytest.raises(PublishError, match="is not a key of the role targets"):
        publisher.rotate("targets", remove=site.public("ann"))
    with pytest.raises(PublishError, match="has no key left"):
        publisher.rotate("targets", remove=site.public("targets"))
    with pytest.raises(ConfigError, match="4 of 3 root keys"):
        publisher.rotate("root", number=4)
    with pytest.raises(ConfigError, match="only the root has a threshold"):
        publisher.rotate("targets", number=1)
    with pytest.raises(PublishError, match="not a public key of OpenSSH"):
        publisher.rotate("targets", add=[Path(__file__)])
    (site.folder / "releases" / "1.1.0" / "a?b").touch()
    with pytest.raises(PublishError, match="cannot be part of an address"):
        publisher.publish(site.private())


def test_publishing_needs_a_root_and_a_release(empty: Published) -> None:
    empty.start()
    with pytest.raises(PublishError, match="there is no release to publish"):
        empty.site().publish(empty.private())
    shutil.rmtree(empty.metadata)
    with pytest.raises(NablaError, match="has no root"):
        empty.site().refresh(empty.private())


def test_versions_are_ordered_as_versions(empty: Published) -> None:
    empty.start()
    for version in ("1.10.0-rc1", "1.9.0"):
        empty.release(version)
    assert empty.fetch() == "1.10.0-rc1"
    empty.release("1.10.0")
    assert empty.fetch() == "1.10.0"


@pytest.mark.parametrize("version", ["1.2.3-dev", "1.2.3-foo", "1.2.3-1", "../../x", "/x", "1.2", "1.2.3\n", ""])
def test_versions_that_cannot_be_published(site: Published, version: str) -> None:
    """Nothing is written, inside or outside the site."""
    release = make_release(site.base / "made" / "odd" / "odd", site.keys["targets"], version, CONTENT)
    before = sorted(site.base.rglob("*"))
    with pytest.raises(PublishError, match="is not a version that can be published"):
        site.site().publish(site.private(), release)
    assert sorted(site.base.rglob("*")) == before
    assert site.fetch() == "1.1.0"


@pytest.mark.parametrize("name", ["a?b", "a b", "a%2fb", "a#b", "ü"])
def test_a_release_with_an_odd_name_changes_nothing(site: Published, name: str) -> None:
    """Clients are not sent to a release that they cannot fetch."""
    release = make_release(site.base / "made" / "odd" / "1.2.0", site.keys["targets"], "1.2.0", {**CONTENT, name: b"x"})
    before = {path: path.read_bytes() for path in site.folder.rglob("*") if path.is_file()}
    with pytest.raises(PublishError, match="cannot be part of an address"):
        site.site().publish(site.private(), release)
    assert {path: path.read_bytes() for path in site.folder.rglob("*") if path.is_file()} == before
    assert site.fetch() == "1.1.0"


def test_an_interrupted_copy_is_not_published(site: Published) -> None:
    """Remains of an earlier attempt are replaced."""
    (site.folder / ".1.2.0.partial").mkdir()
    (site.folder / ".1.2.0.partial" / "rest").touch()
    site.release("1.2.0")
    assert site.fetch() == "1.2.0"
    assert not (site.folder / ".1.2.0.partial").exists()
    assert not (site.folder / "releases" / "1.2.0" / "rest").exists()
    # A link there is removed, not followed.
    release = make_release(site.base / "made" / "1.3.0", site.keys["targets"], "1.3.0", CONTENT)
    (site.folder / ".1.3.0.partial").symlink_to(site.base)
    site.site().publish(site.private(), release)
    assert site.fetch() == "1.3.0"


def test_refresh_returns_the_first_expiry(empty: Published) -> None:
    empty.start(days=-364)
    with pytest.raises(PublishError, match="has no targets"):
        empty.site().refresh(empty.private())
    empty.release("1.0.0", days=-88)
    assert round((empty.site().refresh(empty.private()) - NOW).total_seconds() / 86400) == 1
    empty.site().rotate("root")
    empty.sign("ann", "ben")
    assert round((empty.site().refresh(empty.private()) - NOW).total_seconds() / 86400) == 2
    empty.site().publish(empty.private())
    assert round((empty.site().refresh(empty.private()) - NOW).total_seconds() / 86400) == 7


def test_the_staged_root_is_described(site: Published) -> None:
    """By the fingerprints that ssh-keygen prints."""

    def shown(name: str) -> str:
        argv = ["ssh-keygen", "-l", "-f", str(site.keys[name][1])]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()[1]

    site.site().rotate("root", site.public("new"), site.public("cem"), number=3)
    first, *lines = site.site().changes()
    assert first.startswith("root 2, expires ")
    assert lines[0] == "root: signatures needed: 3 (changed), keys:"
    marked = {"ann": "", "ben": "", "cem": " (removed)", "new": " (new)"}
    assert set(lines[1:5]) == {f"  {shown(name)}{mark}" for name, mark in marked.items()}
    assert lines[5:7] == ["targets: signatures needed: 1, keys:", f"  {shown('targets')}"]
    # Another key by the identifier of an earlier one is new; a key can be missing.
    data = json.loads(site.site().staged.read_text())
    (targets,), (timestamp,) = (data["signed"]["roles"][role]["keyids"] for role in ("targets", "timestamp"))
    thief = site.keys["thief"][1].read_text().split()[1]
    data["signed"]["keys"][targets]["keyval"]["public"] = base64.b64decode(thief)[-32:].hex()
    del data["signed"]["keys"][timestamp]
    site.site().staged.write_text(json.dumps(data))
    lines = list(site.site().changes())
    assert {f"  {shown('thief')} (new)", f"  {shown('targets')} (removed)"} <= set(lines)
    assert f"  not an Ed25519 key: {timestamp!r} (new)" in lines
    shutil.copy(max(site.metadata.glob("*.targets.json")), site.site().staged)
    with pytest.raises(PublishError, match="is not a root"):
        site.sign("ann")


def test_commands(empty: Published) -> None:
    """The lines of docs/freshness.md, as the functions of the commands."""
    folder, people = str(empty.folder), {name: (str(key), str(public)) for name, (key, public) in empty.keys.items()}
    root = [people[name][1] for name in ("ann", "ben", "cem")]
    with pytest.raises(ConfigError, match="keys are missing"):
        freshness_tasks.init(root, 2, "", people["online"][1], [folder])
    with pytest.raises(ConfigError, match="the arguments are SITE"):
        freshness_tasks.init(root, 2, people["targets"][1], people["online"][1], [])
    freshness_tasks.init(root, 2, people["targets"][1], people["online"][1], [folder])
    freshness_tasks.sign([folder])
    assert empty.site().staged.exists()
    for name in ("ann", "ben"):
        freshness_tasks.sign([folder, people[name][0]])
    release = make_release(empty.base / "made" / "1.0.0", empty.keys["targets"], "1.0.0", CONTENT)
    keys = [people["targets"][0], people["online"][0]]
    freshness_tasks.publish(keys, [folder, str(release)])
    freshness_tasks.refresh(keys[1:], [folder])
    freshness_tasks.rotate("snapshot", [people["new"][1]], [people["online"][1]], 0, [folder])
    for name in ("ben", "cem"):
        freshness_tasks.sign([folder, people[name][0]])
    freshness_tasks.publish([*keys, people["new"][0]], [folder])
    words = ["--state", str(empty.base / "state"), empty.url, str(empty.base / "fetched")]
    with pytest.raises(CommandError, match="nothing was fetched"):
        freshness_tasks.fetch(words)
    freshness_tasks.fetch(["--root", str(empty.metadata / "1.root.json"), *words])
    assert files.sha256(empty.base / "fetched" / layout.SUMS) == files.sha256(release / layout.SUMS)
    (empty.folder / "releases" / "1.0.0" / "kernel" / "vmlinux").write_bytes(b"evil")
    with pytest.raises(VerifyError, match="are refused"):
        freshness_tasks.fetch([*words[:-1], str(empty.base / "again")])
