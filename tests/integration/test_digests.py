# SPDX-License-Identifier: Apache-2.0
"""Built artifacts have the committed sums; the summed forms depend neither on a user's key nor on a version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nabla.core import digest, paths
from nabla.core.artifacts import APK_TOOLS, INDEX
from nabla.packages import apk, catalog
from nabla.packages.catalog import read_build_record
from nabla.release import digests

CACHE = paths.cache_dir()
ENVIRONMENT = dict(os.environ)  # each test clears it; the paths of cache and keys decide what is up to date
RECIPES = ("zlib", "bzip2")


@pytest.mark.timeout(1800)
def test_everything_has_the_committed_sum() -> None:
    """What CI compares: `doit digests` generates the summed forms of the artifacts and reads them all."""
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "PYTEST_CURRENT_TEST"}
    done = subprocess.run(
        [sys.executable, "-m", "doit", "digests"], cwd=paths.ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "have the committed sums" in done.stderr


def test_unsigned_packages_are_those_of_any_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages and index signed with another key differ; without signatures they are identical."""
    monkeypatch.setenv("NABLA_CACHE", str(CACHE))
    log = tmp_path / "log"
    ours = [part.apk for name in RECIPES for part in read_build_record(name).parts]
    monkeypatch.setenv("NABLA_KEYS", str(tmp_path / "keys"))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in RECIPES:
        built = read_build_record(name)
        for part in built.parts:
            files = files_of(built.key, part.name)
            scratch = tmp_path / "scratch" / part.name
            apk.make_package(built, part, files, theirs / part.apk.name, tools=APK_TOOLS.path, scratch=scratch, log=log)
    for number, apks in enumerate((ours, [theirs / path.name for path in ours])):
        apk.unsigned(apks, tmp_path / str(number), tools=APK_TOOLS.path, log=log)
    assert all(digest.sha256_file(path) != digest.sha256_file(theirs / path.name) for path in ours)
    assert digest.tree_digest(tmp_path / "0") == digest.tree_digest(tmp_path / "1")
    assert (tmp_path / "0" / INDEX.name).stat().st_size > 0


def files_of(key: str, part: str) -> Path:
    """Return the files of a package; loading the module takes longer than most tests."""
    from nabla.packages import builder

    return builder.files_path(key, part)


def test_every_package_is_summed() -> None:
    names = {f"out/reference/apk/{part.apk.name}" for name in catalog.names() for part in read_build_record(name).parts}
    assert set(digests.read("packages")) == {*names, f"out/reference/apk/{INDEX.name}"}
