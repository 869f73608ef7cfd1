# SPDX-License-Identifier: Apache-2.0
"""Results of steps in the cache: one checkout stores them, others restore them after verification."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from nabla.engine import result_cache
from tests.conftest import Checkout

TASKS = """
from collections.abc import Iterator
from nabla.core.paths import OUT, ROOT
from nabla.core.artifacts import Tree
from nabla.engine.action import Job
from nabla.engine.task import TaskDict, step

FILE, FOLDER = OUT / "file", Tree(OUT / "folder")

def task_made() -> TaskDict:
    return step("made", made, doc="makes both", inputs=[ROOT / "input"], outputs=[FILE, FOLDER], config={"a": 1},
                args=[str(ROOT / "input")], cacheable=True)

def made(job: Job, path: str) -> None:
    with (ROOT / "calls").open("a") as calls:
        calls.write("x")
    text = (ROOT / "input").read_text()
    job.out(FILE).write_text(text)
    job.out(FILE).chmod(0o755)
    job.out(FOLDER).mkdir()
    (job.out(FOLDER) / "copy").write_text(text)
    (job.out(FOLDER) / "link").symlink_to("copy")
    if text == "bad":
        raise RuntimeError
"""


@pytest.fixture
def maker(checkout: Checkout) -> Checkout:
    checkout.task_module("made", TASKS)
    checkout.write("input", "one")
    return checkout


def another(checkout: Checkout, name: str) -> Checkout:
    """A copy of the checkout, in another place and with nothing built."""
    root = checkout.root.parent / name
    shutil.copytree(checkout.root, root, ignore=shutil.ignore_patterns("out", "calls"))
    return Checkout(root)


def calls(checkout: Checkout) -> int:
    path = checkout.root / "calls"
    return len(path.read_text()) if path.exists() else 0


def entry(cache: Path) -> Path:
    (path,) = (cache / "results").glob("??/*")
    return path


def test_another_checkout_takes_it(maker: Checkout, cache: Path) -> None:
    maker.doit("made")
    assert calls(maker) == 1
    assert json.loads((entry(cache) / "manifest.json").read_text())["title"] == "made"
    other = another(maker, "elsewhere")
    assert "made: done" in other.doit("made")
    assert calls(other) == 0
    out = other.root / "out"
    assert (out / "file").read_text() == "one" and os.access(out / "file", os.X_OK)
    assert (out / "folder/copy").read_text() == "one" and (out / "folder/link").readlink() == Path("copy")
    assert "restored from the cache" in (out / "logs/made.log").read_text()
    assert "1 up to date" in other.doit("made")
    # A change in the checkout does not change the cache.
    (out / "file").write_text("changed")
    assert "1 done" in other.doit("made")
    assert (out / "file").read_text() == "one" and calls(other) == 0


@pytest.mark.parametrize("change", ["input", "configuration", "code", "name of the input"])
def test_what_counts(maker: Checkout, change: str) -> None:
    maker.doit("made")
    other = another(maker, "elsewhere")
    match change:
        case "input":
            other.write("input", "two")
        case "configuration":
            other.task_module("made", TASKS.replace('{"a": 1}', '{"a": 2}'))
        case "code":
            other.task_module("made", TASKS.replace('write("x")', 'write("y")'))
        case _:
            other.task_module("made", TASKS.replace('"input"', '"input2"'))
            other.write("input2", "one")
    other.doit("made")
    assert calls(other) == 1


@pytest.mark.parametrize("damage", ["content", "more", "less", "manifest"])
def test_damaged_entry_is_made_again(maker: Checkout, cache: Path, damage: str) -> None:
    maker.doit("made")
    stored = entry(cache)
    match damage:
        case "content":
            (stored / "0").write_text("onE")
        case "more":
            (stored / "1" / "further").write_text("")
        case "less":
            (stored / "1" / "copy").unlink()
        case _:
            (stored / "manifest.json").write_text("{")
    other = another(maker, "elsewhere")
    other.doit("made")
    assert calls(other) == 1
    assert (other.root / "out/file").read_text() == "one"
    assert sorted(path.name for path in (other.root / "out/folder").iterdir()) == ["copy", "link"]
    third = another(maker, "third")
    third.doit("made")
    assert calls(third) == 0


def test_failure_is_not_kept(maker: Checkout, cache: Path) -> None:
    maker.write("input", "bad")
    maker.doit("made", status=1)
    assert not (cache / "results").exists()


def test_fresh(maker: Checkout) -> None:
    maker.doit("made")
    other = another(maker, "elsewhere")
    other.doit("fresh=1", "made")
    assert calls(other) == 1


def test_what_nobody_uses_goes(maker: Checkout, cache: Path) -> None:
    maker.doit("made")
    old = entry(cache)
    taken, unused = old.stat().st_mtime, old.stat().st_mtime - 31 * 86400
    os.utime(old, (unused, unused))
    other = another(maker, "elsewhere")
    other.doit("made")
    assert calls(other) == 0 and old.stat().st_mtime > taken - 1
    os.utime(old, (unused, unused))
    other.write("input", "two")
    other.doit("made")
    assert entry(cache) != old


def test_second_build_of_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the sample it reuses the first build's results; it stores only in its own cache."""
    source = tmp_path / "source"
    source.write_text("x")
    names = [result_cache.key("step", number) for number in range(200)]
    drawn = [name for name in names if result_cache.is_in_sample(name)]
    assert 5 <= len(drawn) <= 60
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path / "first"))
    for name in names:
        result_cache.add(name, "step", {"out": source})
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path / "second"))
    assert [name for name in names if result_cache.find(name)] == []
    monkeypatch.setenv("NABLA_SAMPLE_OF", str(tmp_path / "first"))
    assert [name for name in names if not result_cache.find(name)] == drawn
    source.write_text("y")
    own = result_cache.add(drawn[0], "step", {"out": source})
    assert own.is_relative_to(tmp_path / "second")
    assert result_cache.find(drawn[0]) == own
    other = next(name for name in names if name not in drawn)
    assert result_cache.add(other, "step", {"out": source}).is_relative_to(tmp_path / "second")
    assert (result_cache.entry(other) / "out").read_text() == "y"
    assert len(list((tmp_path / "second" / "results").glob("??/*"))) == 2


def test_known_digests_read_no_content(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is enough; a challenged key has none, and neither has a fresh build."""
    key = "ab" * 32
    (tmp_path / "file").write_text("content")
    assert result_cache.known_digests(key) is None
    folder = result_cache.add(key, "title", {"file": tmp_path / "file"})
    (folder / "file").unlink()
    known = result_cache.known_digests(key)
    assert known is not None and set(known) == {"file"}
    assert result_cache.find(key) is None
    monkeypatch.setenv("NABLA_CHALLENGE", key)
    assert result_cache.known_digests(key) is None
    monkeypatch.delenv("NABLA_CHALLENGE")
    monkeypatch.setenv("NABLA_FRESH", "1")
    assert result_cache.known_digests(key) is None


def test_short_steps_run_again(maker: Checkout) -> None:
    """A second build runs them, and so does a challenge of another result, which they may use."""
    maker.task_module("made", TASKS.replace("cacheable=True", "cacheable=True, repeated=True"))
    maker.doit("made")
    for number, variables in enumerate(({}, {"NABLA_VARY": "1"}, {"NABLA_CHALLENGE": "0" * 64})):
        other = another(maker, f"elsewhere{number}")
        other.doit("made", **variables)  # type: ignore[arg-type]
        assert calls(other) == bool(variables)
