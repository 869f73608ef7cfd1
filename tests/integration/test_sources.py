# SPDX-License-Identifier: Apache-2.0
"""The archive of all sources: its contents, and builds whose only origin it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from nabla.core import digest, manifest
from nabla.core.paths import BUSYBOX_BIN, MUSL, OUT, ROOT, relative
from nabla.release import source_archive
from nabla.release.source_archive import SourceArchiveError
from nabla.sandbox import lockfile
from nabla.sources import recipe
from tests.results import run_once

pytestmark = pytest.mark.buildroot


def test_contents(tmp_path: Path) -> None:
    """Everything that recipes and locks pin, once, with its sum; two archives have the same bytes."""
    one = source_archive.write(tmp_path / "one", only=["musl", "busybox"])
    two = source_archive.write(tmp_path / "two", only=["busybox", "musl"])
    assert digest.sha256_file(one) == digest.sha256_file(two)
    two.unlink()
    subprocess.run(["tar", "-xf", one], cwd=tmp_path, check=True)
    (top,) = [path for path in tmp_path.iterdir() if path.name.startswith("nabla-sources-")]
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=top, check=True)
    listed = {line.split(" *")[1] for line in (top / "SHA256SUMS").read_text().splitlines()}
    present = {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file() and not path.is_symlink()}
    assert present == listed | {"SHA256SUMS"}
    cached = {path.name for path in (top / "cache" / "sha256").glob("*/*")}
    for pins in (lockfile.BASE, lockfile.PACKAGING, lockfile.VARY):
        assert {file.sha256 for file in lockfile.read_lock(pins.lock).files} <= cached
    for name in ("musl", "busybox"):
        for source in recipe.load(name).source:
            assert source.local is not None or {origin.sha256 for origin in source.origin} & cached
    assert (top / "checkout" / "patches" / "musl").is_dir()
    assert os.access(top / "build.sh", os.X_OK) and os.access(top / "checkout" / "doit.sh", os.X_OK)
    wheels = {path.name.split("-")[0].lower() for path in (top / "cache" / "wheels").iterdir()}
    assert {"doit", "tuf", "cryptography"} <= wheels
    with tarfile.open(one) as archive:
        assert {(member.uid, member.gid, member.uname) for member in archive} == {(0, 0, "")}


def test_private_and_written_files_are_left_out(tmp_path: Path) -> None:
    """With git, the archive contains the tracked files; without git, all files that no command has written."""
    for name in ("doit.sh", "nabla/a.py", "nabla/__pycache__/a.pyc", ".doit.db.dat", "out/state/doit.sqlite"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def listed() -> set[str]:
        paths = source_archive._committed(tmp_path)
        return {str(path.relative_to(tmp_path)) for path in paths if path.is_file()}

    assert listed() == {"doit.sh", "nabla/a.py"}
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "doit.sh"], check=True)
    assert listed() == {"doit.sh"}


def test_missing_inputs(cache: Path) -> None:
    with pytest.raises(SourceArchiveError, match=r"the Python package \S+ is not in the cache"):
        list(source_archive._wheels())
    with pytest.raises(SourceArchiveError, match="is not in the cache"):
        list(source_archive._pinned([]))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_builds_from_the_archive_alone(tmp_path: Path) -> None:
    """In an empty cache, without a network and as another home: libc and busybox have the same bytes."""
    run_once("libc and busybox from the archive of sources", lambda: _build(tmp_path), tmp_path, Path(__file__))


def _build(folder: Path) -> None:
    archive = source_archive.write(folder, only=["musl", "busybox", "linux"])
    subprocess.run(["tar", "-xf", archive], cwd=folder, check=True)
    archive.unlink()
    (top,) = folder.glob("nabla-sources-*")
    (folder / "home").mkdir()
    # Without the user's cache and a network; a user namespace suffices for both.
    words = ["bwrap", "--unshare-net", "--dev-bind", "/", "/", "--tmpfs", str(Path.home() / ".cache")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "TMPDIR": str(folder / "home")}
    argv = [*words, "--", str(top / "build.sh"), "musl", "busybox"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "compile: " in done.stdout + done.stderr
    for path in (MUSL / "lib" / "ld-musl-x86_64.so.1", BUSYBOX_BIN):
        built = top / "checkout" / path.relative_to(ROOT)
        assert digest.sha256_file(built) == digest.sha256_file(path), relative(path)
    assert manifest.digest(top / "checkout" / "out" / "musl") == manifest.digest(OUT / "musl")
    shutil.rmtree(top)
