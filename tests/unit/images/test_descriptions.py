# SPDX-License-Identifier: Apache-2.0
"""Image descriptions: the committed ones are valid, errors name file, line and key, lists are joined."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from nabla.core.errors import ImageError
from nabla.core.paths import ROOT, ROOTFS
from nabla.images import descriptions

GOOD = """\
name = "thing"
summary = "a thing"
size = "8M"
parts = ["init"]
drop = ["/boot"]

[[file]]
path = "/etc/hostname"
content = "thing"

[[file]]
path = "/etc/motd"
content = "hello"
mode = "0600"
owner = "1:2"

[[node]]
path = "/dev/null"
type = "char"
major = 1
minor = 3
"""


def load(tmp_path: Path, text: str) -> descriptions.Description:
    path = tmp_path / "thing.toml"
    path.write_text(text)
    return descriptions.load_file(path)


def test_committed_descriptions_are_valid() -> None:
    assert {"alpine", "minimal", "test", "stock"} <= set(descriptions.names())
    for name in descriptions.names():
        assert descriptions.load(name).name == name


def test_values(tmp_path: Path) -> None:
    description = load(tmp_path, GOOD)
    assert description.bytes == 8 << 20
    assert [file.path for file in description.file] == ["/etc/hostname", "/etc/motd"]
    assert description.uuid == load(tmp_path, GOOD).uuid
    assert description.uuid != descriptions.load("minimal").uuid != description.hash_seed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "thing"', 'name = "other"', "thing.toml:1: name: "),
        ('name = "thing"', 'name = "Thing"', "thing.toml:1: name: "),
        ('summary = "a thing"\n', "", "the key `summary` is missing"),
        ('size = "8M"\n', "", "the key `size` is missing"),
        ('size = "8M"', 'size = "8"', "thing.toml:3: size: "),
        ('size = "8M"', "size = 8", "thing.toml:3: size: expected str"),
        ('parts = ["init"]\n', "", "the key `parts` is missing"),
        ('parts = ["init"]', 'parts = ["systemd"]', "thing.toml:4: parts[1]: invalid enum value 'systemd'"),
        ('parts = ["init"]', 'parts = []\nbase = "nothing"', "thing.toml:5: base: there is no recipe 'nothing'"),
        ('parts = ["init"]', 'parts = []\nextends = "nothing"', "thing.toml:5: extends: there is no "),
        ('parts = ["init"]', 'parts = []\nextends = "thing"', "a cycle"),
        ('drop = ["/boot"]', 'drop = ["boot"]', "thing.toml:5: drop[1]: "),
        ('drop = ["/boot"]', 'drop = ["/boot/../etc"]', "thing.toml:5: drop[1]: "),
        ('mode = "0600"', 'mode = "rw"', "thing.toml:14: file[2].mode: "),
        ('mode = "0600"', 'modes = "0600"', "thing.toml:14: file[2].modes: there is no such key"),
        ('owner = "1:2"', 'owner = "root"', "thing.toml:15: file[2].owner: "),
        ('owner = "1:2"', 'source = "LICENSE"', "thing.toml:11: file[2]: a file has either `content` or `source`"),
        ('content = "hello"', 'source = "no/such/file"', "file[2].source: there is no file"),
        ('content = "hello"', 'source = "/etc/passwd"', "file[2].source: /etc/passwd is not in this repository"),
        ('type = "char"', 'type = "pipe"', "thing.toml:19: node[1].type: invalid enum value 'pipe'"),
        ("major = 1", "major = 1000", "thing.toml:20: node[1].major: "),
    ],
)
def test_broken_descriptions(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ImageError) as error:
        load(tmp_path, GOOD.replace(old, new))
    assert message in error.value.message


def test_extends(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(GOOD.replace('"thing"', '"base"', 1))
    text = 'name = "thing"\nsummary = "more"\nextends = "base"\nsize = "16M"\n[[link]]\npath = "/a"\ntarget = "b"\n'
    description = load(tmp_path, text)
    assert (description.name, description.summary, description.bytes) == ("thing", "more", 16 << 20)
    assert description.parts == ("init",)
    assert len(description.file) == 2
    assert description.link[0].path == "/a"
    replaced = load(tmp_path, text.replace('size = "16M"', 'parts = ["musl"]'))
    assert (replaced.parts, replaced.size) == (("musl",), "8M")


def test_circle_of_two(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('name = "base"\nsummary = "x"\nextends = "thing"\n')
    with pytest.raises(ImageError, match="a cycle"):
        load(tmp_path, 'name = "thing"\nsummary = "x"\nextends = "base"\n')


def test_documented_example(tmp_path: Path) -> None:
    """The example in docs/images.md is a valid description of an image that extends alpine."""
    (example,) = re.findall(
        r"^```toml\n(.*?)^```$", (ROOT / "docs" / "images.md").read_text(), re.DOTALL | re.MULTILINE
    )
    path = tmp_path / "mine.toml"
    path.write_text(example)
    for name in ("alpine", "base"):
        shutil.copy(ROOTFS / f"{name}.toml", tmp_path)
    description = descriptions.load_file(path)
    assert description.base == "alpine-base"
    assert description.drop[-1] == "/etc/motd"
    path.write_text(re.sub(r"(?m)^# (?=base|parts)", "", example))
    assert descriptions.load_file(path).parts == ("init", "musl", "busybox")
