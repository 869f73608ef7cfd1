# SPDX-License-Identifier: Apache-2.0
"""Another machine takes the whole release from this one's store: nothing is compiled, and the bytes are the same."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nabla.core import manifest
from nabla.core.artifacts import ARTIFACTS
from tests.conftest import ROOT, Checkout
from tests.machines import Machine, Network, reachable_folder
from tests.results import run_once
from tests.unit.engine.remote.servers import nginx_process
from verify.release.layout import keys_dir

# These name the commit, which differs if this checkout has changes that are not committed.
_WITH_COMMIT = {"SHA256SUMS", "SHA256SUMS.sig", "provenance/nabla.intoto.json", "report/index.html"}
_CHALLENGED = "packages:tree"
KEYS = keys_dir()


def sums(folder: Path) -> dict[str, str]:
    """Path -> digest and mode of all files."""
    return {
        str(path.relative_to(folder)): f"{manifest.file_sha256(path)} {path.stat().st_mode:o}"
        for path in folder.rglob("*")
        if path.is_file()
    }


def commit(root: Path) -> str:
    git = ["git", "-c", "safe.directory=*", "rev-parse", "HEAD"]
    return subprocess.run(git, cwd=root, capture_output=True, text=True, check=False).stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_release_from_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own network, user, home, cache and checkout. Then a real package of the store is built again and compared."""
    monkeypatch.setenv("NABLA_KEYS", str(KEYS))
    with reachable_folder() as base:
        run_once(
            "a release from the store of another machine",
            lambda: _take_and_challenge(base, monkeypatch),
            tmp_path,
            Path(__file__),
            ROOT / "tests" / "machines.py",
        )


def _take_and_challenge(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = base / "served"
    monkeypatch.setenv("NABLA_STORE_SIGNERS", str(base / "own signers"))
    Checkout(ROOT).doit("cache:push", "--current", NABLA_STORE=f"file://{served}/nabla", NABLA_STORE_PUSH="1")
    with Network(base / "machines") as network:
        first, second = network.machine("first"), network.machine("second")
        root = second.checkout()
        _configure(second, f"http://{first.address}/nabla")
        with nginx_process(base / "nginx", served, f"{first.address}:80", first.prefix):
            output = second.doit(root, "-n", "2", "release", _CHALLENGED)
            assert "warning" not in output
            assert not re.search(r"compile: \d+ objects|unpack the build root", output), output
            (mine,), (theirs,) = ARTIFACTS["release"].paths, (root / "out/release").iterdir()
            here, there = sums(mine), sums(theirs)
            left_out = _WITH_COMMIT if commit(root) != commit(ROOT) else set()
            assert {path: there.get(path) for path in here.keys() - left_out} == {
                path: here[path] for path in here.keys() - left_out
            }
            # Its build root comes from the store, too.
            output = second.doit(root, "cache:challenge", "2", _CHALLENGED)
            assert output.count(f"{_CHALLENGED}: the same as first signed") == 2, output
            assert "unpack the build root" in output and "compile: " in output


def _configure(machine: Machine, store: str) -> None:
    """Copy this user's keys to a machine, and allow this user's results there."""
    config = machine.home / ".config" / "nabla"
    shutil.copytree(KEYS, config / "keys")
    public = (config / "keys" / "nabla.ed25519.pub").read_text()
    (config / "store_signers").write_text(f'first namespaces="nabla-store" {public}')
    machine.own(machine.home)
    machine.variables = {"NABLA_STORE": store, "NO_PROXY": "*"}
