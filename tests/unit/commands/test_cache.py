# SPDX-License-Identifier: Apache-2.0
"""doit cache:push, pull, stat, gc and challenge, with a store in a folder and a checkout with one task."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from nabla.core import digest
from tests.conftest import ROOT, Checkout
from tests.unit.engine.remote.conftest import Signer, new_signer
from tests.unit.engine.remote.test_stores import configure
from tests.unit.engine.test_result_cache import TASKS, another, calls

# Like an undeclared input, it makes results differ between machines.
ODD = TASKS.replace(
    'text = (ROOT / "input").read_text()',
    'text = (ROOT / "input").read_text() + ((ROOT / "odd").read_text() if (ROOT / "odd").exists() else "")',
)
ARCHIVE = b"an archive"
RECIPE = f"""
name = "thing"
version = "1"
license = "MIT"
summary = "a thing"
homepage = "https://thing.invalid"

[[source]]
name = "thing"
[[source.origin]]
type = "url"
url = ["https://thing.invalid/thing.tar"]
sha256 = "{digest.sha256_bytes(ARCHIVE)}"
size = {len(ARCHIVE)}
"""


@pytest.fixture
def maker(checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A checkout with the commands, one task, and the settings of a writable store."""
    shutil.copy(ROOT / "nabla/commands/cache_tasks.py", checkout.root / "nabla/commands")
    shutil.copytree(ROOT / "toolchain", checkout.root / "toolchain")
    checkout.task_module("made", ODD)
    checkout.write("input", "one")
    signer = new_signer(tmp_path / "keys", "builder")
    monkeypatch.setenv("NABLA_STORE", "")
    monkeypatch.setenv("NABLA_KEYS", str(tmp_path / "config/keys"))
    config = configure(tmp_path / "store.toml", signer, f'url = "file://{tmp_path}/store"\npush = true')
    monkeypatch.setenv("NABLA_STORE_CONFIG", str(config))
    # The build itself uploads nothing: that is the task of cache:push.
    checkout.doit("made", NABLA_STORE="off")
    assert not (tmp_path / "store").exists()
    return checkout


def test_push_pull_stat(maker: Checkout, tmp_path: Path) -> None:
    assert "1 of 1 results were new" in maker.doit("cache:push")
    assert "0 of 1 results were new" in maker.doit("cache:push")
    assert "0 of 0 results were new" in maker.doit("cache:push", "other:*")
    assert len(list((tmp_path / "store/ac").iterdir())) == 1
    output = maker.doit("cache:stat")
    assert "1 built here" in output and "1 of 1 results of this checkout" in output, output
    other = another(maker, "elsewhere")
    variables = {"NABLA_CACHE": str(tmp_path / "second")}
    assert "1 of 1 missing results were in a store" in other.doit("cache:pull", **variables)  # type: ignore[arg-type]
    output = other.doit("cache:stat", **variables)  # type: ignore[arg-type]
    assert f"1 from file://{tmp_path}/store, signed by builder" in output, output
    other.doit("made", NABLA_STORE="off", **variables)  # type: ignore[arg-type]
    assert calls(other) == 0
    # We do not sign another builder's result.
    shutil.rmtree(tmp_path / "store")
    assert "0 of 0 results were new" in other.doit("cache:push", **variables)  # type: ignore[arg-type]
    assert not (tmp_path / "store/ac").exists()


def test_pinned_files_travel(maker: Checkout, tmp_path: Path, cache: Path) -> None:
    sha256 = digest.sha256_bytes(ARCHIVE)
    path = cache / "sha256" / sha256[:2] / sha256
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ARCHIVE)
    maker.write("recipes/thing/recipe.toml", RECIPE)
    assert "1 of " in maker.doit("cache:push").split("results were new")[1]
    assert (tmp_path / "store/cas" / sha256).read_bytes() == ARCHIVE
    other = another(maker, "elsewhere")
    second = tmp_path / "second"
    output = other.doit("cache:pull", NABLA_CACHE=str(second))
    assert "files were in a store" in output
    assert (second / "sha256" / sha256[:2] / sha256).read_bytes() == ARCHIVE
    # A pinned file is not garbage, however old.
    os.utime(tmp_path / "store/cas" / sha256, (0, 0))
    other.doit("cache:gc", NABLA_CACHE=str(second))
    assert (tmp_path / "store/cas" / sha256).exists()


def test_gc(maker: Checkout, tmp_path: Path, cache: Path) -> None:
    maker.doit("cache:push")
    files = [*(tmp_path / "store").glob("*/*")]
    entry = next((tmp_path / "store/ac").iterdir())
    assert len(files) == 3
    (tmp_path / "store/cas" / ("0" * 64)).write_text("nobody names it")
    old = time.time() - 40 * 86400
    for path in (tmp_path / "store").glob("*/*"):
        if path != entry:
            os.utime(path, (old, old))
    (result,) = (cache / "results").glob("??/*")
    os.utime(result, (old, old))
    output = maker.doit("cache:gc", "--days", "50")
    assert "the cache: 0 removed" in output
    output = maker.doit("cache:gc", "--days", "30")
    assert "the cache: 1 removed" in output and not result.exists()
    # The blobs of a newer entry stay.
    assert sorted((tmp_path / "store").glob("*/*")) == sorted(files)
    os.utime(entry, (old, old))
    maker.doit("cache:gc")
    maker.doit("cache:gc")
    assert list((tmp_path / "store").glob("*/*")) == []


def test_challenge(maker: Checkout, tmp_path: Path) -> None:
    maker.doit("cache:push")
    other = another(maker, "elsewhere")
    second = str(tmp_path / "second")
    other.doit("made", NABLA_CACHE=second)
    assert calls(other) == 0
    output = other.doit("cache:challenge", "1", NABLA_CACHE=second)
    assert "made: the same as builder signed" in output and "1 results are the same" in output, output
    assert calls(other) == 1
    other.write("odd", "evil")
    assert "no store has a result" in other.doit("cache:challenge", "5", "other:*", NABLA_CACHE=second, status=2)
    output = other.doit("cache:challenge", "5", "ma*", NABLA_CACHE=second, status=2)
    assert "made: builder signed" in output and "2 outputs differ from the signed ones" in output, output
    (folder,) = (other.root / "out/challenge").iterdir()
    assert (folder / "signed/0").read_text() == "one" and (folder / "here/0").read_text() == "oneevil"
    # This did not change the store.
    assert len(list((tmp_path / "store/ac").iterdir())) == 1
    third = another(maker, "third")
    third.doit("made", NABLA_CACHE=str(tmp_path / "third cache"))
    assert calls(third) == 0 and (third.root / "out/file").read_text() == "one"


def test_errors(maker: Checkout, tmp_path: Path) -> None:
    for words in (("cache:push",), ("cache:pull",), ("cache:challenge",)):
        output = maker.doit(*words, NABLA_STORE="off", status=2)
        assert output.count("error: ") == 1 and "hint: " in output, output
    assert "no store has a result" in maker.doit("cache:challenge", status=2)
    assert "takes a number first" in maker.doit("cache:challenge", "many", status=2)
    (tmp_path / "store").write_text("a file")
    output = maker.doit("cache:push", status=2)
    assert output.count("error: ") == 1 and "cannot write" in output


def test_signers_are_only_needed_to_read(maker: Checkout, tmp_path: Path) -> None:
    signer = Signer(tmp_path / "keys/builder", tmp_path / "keys/absent")
    configure(tmp_path / "store.toml", signer, f'url = "file://{tmp_path}/store"\npush = true')
    assert "1 of 1 results were new" in maker.doit("cache:push")
    assert "(absent)" in maker.doit("cache:stat")
