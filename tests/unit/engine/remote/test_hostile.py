# SPDX-License-Identifier: Apache-2.0
"""Any attack by a store causes a warning: the build produces the same bytes without it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nabla.core import digest, manifest
from tests.conftest import Checkout
from tests.unit.engine.remote.attacks import ATTACKS, Scene, fewer_outputs
from tests.unit.engine.remote.conftest import Signer, new_signer
from tests.unit.engine.remote.servers import free_port, nginx, odd_server
from tests.unit.engine.remote.test_stores import configure
from tests.unit.engine.test_result_cache import TASKS, another, calls

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The served folder of the first build, and the keys; filled by the first test that needs it."""
    return {"folder": tmp_path_factory.mktemp("good")}


@pytest.fixture
def maker(checkout: Checkout) -> Checkout:
    checkout.task_module("made", TASKS)
    checkout.write("input", "one")
    return checkout


@pytest.fixture
def scene(maker: Checkout, good: dict[str, Path], tmp_path: Path) -> Scene:
    """A copy of the store of a good build, which runs once."""
    if "served" not in good:
        good["signer"] = new_signer(good["folder"], "builder").key
        new_signer(good["folder"], "stranger")
        signer = Signer(good["signer"], good["folder"] / "builder.allowed")
        config = configure(tmp_path / "push.toml", signer, f'url = "file://{good["folder"]}/served"\npush = true')
        maker.doit("made", NABLA_STORE="", NABLA_STORE_CONFIG=str(config), NABLA_CACHE=str(tmp_path / "first"))
        good["served"] = good["folder"] / "served"
    served = tmp_path / "served"
    shutil.copytree(good["served"], served)
    folder = good["folder"]
    return Scene(
        served,
        Signer(folder / "builder", folder / "builder.allowed"),
        Signer(folder / "stranger", folder / "stranger.allowed"),
    )


def build(scene: Scene, maker: Checkout, tmp_path: Path, log: list[str]) -> tuple[Checkout, str]:
    """Build in another checkout with an empty cache; returns it and doit's output."""
    with odd_server(scene.served, lambda handler: scene.answer(handler), log) as url:
        table = f'url = "{scene.url or url}"\n{scene.settings}'
        config = configure(tmp_path / "read.toml", scene.signer, table)
        config.write_text(scene.head + config.read_text())
        other = another(maker, "elsewhere")
        cache = str(tmp_path / "other cache")
        return other, other.doit("made", NABLA_STORE="", NABLA_STORE_CONFIG=str(config), NABLA_CACHE=cache)


def content(checkout: Checkout) -> dict[str, object]:
    """The output of the task."""
    out = checkout.root / "out"
    assert os.access(out / "file", os.X_OK)
    return {"file": (out / "file").read_bytes(), "folder": manifest.manifest(out / "folder")}


EXPECTED = {
    "file": b"one",
    "folder": f"f 644 {digest.sha256_bytes(b'one')} copy\nl - - link -> copy\n",
}


def test_second_checkout_takes_it(scene: Scene, maker: Checkout, tmp_path: Path) -> None:
    """Without an attack nothing is built."""
    log: list[str] = []
    other, output = build(scene, maker, tmp_path, log)
    assert calls(other) == 0 and "warning" not in output, output
    assert "made: fetched from http://127.0.0.1" in output and "signed by builder" in output
    assert content(other) == EXPECTED
    assert [line.split("/")[1] for line in log] == ["ac", "cas", "cas"]


@pytest.mark.parametrize("name", ATTACKS)
def test_poisoned_store(scene: Scene, maker: Checkout, tmp_path: Path, name: str) -> None:
    ATTACKS[name](scene)
    other, output = build(scene, maker, tmp_path, [])
    assert content(other) == EXPECTED
    assert calls(other) == 1, "it was built here"
    warnings = [line for line in output.splitlines() if line.startswith("warning: the store http")]
    assert len(warnings) == 1, output
    assert output.count("warning") == 1 and not any(char in output for char in "\x1b\x07"), output
    assert scene.elsewhere == []
    assert not any(path.name == "escaped" for path in tmp_path.rglob("*"))
    results = list((tmp_path / "other cache/results").glob("??/*"))
    assert len(results) == 1 and "origin" not in (results[0] / "manifest.json").read_text()


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) > 40


def test_entry_with_fewer_outputs(scene: Scene, maker: Checkout, tmp_path: Path) -> None:
    """An allowed signer signed it for this key; it does not fit the step."""
    fewer_outputs(scene)
    other, _ = build(scene, maker, tmp_path, [])
    assert content(other) == EXPECTED and calls(other) == 1


def test_server_that_is_not_there(scene: Scene, maker: Checkout, tmp_path: Path) -> None:
    scene.url = f"http://127.0.0.1:{free_port()}"
    other, output = build(scene, maker, tmp_path, [])
    assert content(other) == EXPECTED and calls(other) == 1
    assert output.count("warning") == 1 and "cannot be reached" in output


def test_failure_is_never_stored(maker: Checkout, tmp_path: Path, signer: Signer) -> None:
    with nginx(tmp_path / "nginx", tmp_path / "served") as address:
        config = configure(tmp_path / "push.toml", signer, f'url = "http://{address}"\npush = true')
        maker.write("input", "bad")
        maker.doit("made", status=1, NABLA_STORE="", NABLA_STORE_CONFIG=str(config))
        assert list((tmp_path / "served").iterdir()) == []
        maker.write("input", "good")
        maker.doit("made", NABLA_STORE="", NABLA_STORE_CONFIG=str(config))
        assert len(list((tmp_path / "served/ac").iterdir())) == 1


def test_offline_build_opens_nothing(scene: Scene, maker: Checkout, tmp_path: Path) -> None:
    log: list[str] = []
    with odd_server(scene.served, lambda _: False, log) as url:
        config = configure(tmp_path / "read.toml", scene.signer, f'url = "{url}"')
        other = another(maker, "elsewhere")
        output = other.doit("offline=1", "made", NABLA_STORE="", NABLA_STORE_CONFIG=str(config))
    assert log == [] and calls(other) == 1 and "warning" not in output
