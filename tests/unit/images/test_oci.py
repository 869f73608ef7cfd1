# SPDX-License-Identifier: Apache-2.0
"""Properties of the container image that need no build."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from nabla.core.errors import CommandError, ConfigError, HostError
from nabla.images import oci, podman_run
from nabla.images.podman_run import Podman


@pytest.mark.parametrize("version", ["", "1.0+local", "1/2", "-1", "a b", "x" * 129, "é"])
def test_a_version_that_is_no_tag(version: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tag"):
        oci.make(version, tmp_path, tmp_path, tmp_path, tmp_path / "layout", tools=tmp_path)
    assert not (tmp_path / "layout").exists()


def test_the_archive_tells_nothing_of_the_host(tmp_path: Path) -> None:
    """Neither owners nor dates, modes or the order of names."""
    archives = []
    for number, names in enumerate((("b", "a", "c/d"), ("c/d", "a", "b"))):
        folder = tmp_path / f"{number}"
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
            (folder / name).chmod(0o600 + 0o44 * number)
            os.utime(folder / name, (number, number))
        oci.archive(folder, tmp_path / f"{number}.tar")
        archives.append((tmp_path / f"{number}.tar").read_bytes())
    assert archives[0] == archives[1]
    with tarfile.open(tmp_path / "0.tar") as archive:
        assert archive.getnames() == ["a", "b", "c", "c/d"]


def test_a_user_who_is_alone(tmp_path: Path) -> None:
    """A user without a second ID runs the VM as root of the namespace; then the image's command must be given."""
    words = Podman(one_id=True).run_argv("1.0", [])
    entry = json.loads(str(words[words.index("--entrypoint") + 1]))
    assert entry == ["/nabla-run", "--run-as", "0", *oci.ENTRY_POINT[1:]]
    assert words[-len(oci.DEFAULT_COMMAND) :] == list(oci.DEFAULT_COMMAND)
    assert words[words.index("--user") + 1] == "0:0"
    assert Podman().run_argv("1.0", ["true"]) == ["podman", "run", "--rm", "localhost/nabla-linux:1.0", "true"]


def test_without_podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="podman is missing") as caught:
        podman_run.check()
    assert "apt-get install podman" in caught.value.hint


def test_podman_that_fails(tmp_path: Path) -> None:
    """A trial reports, loading raises; any failing program serves."""
    podman = Podman(("false",))
    assert podman.try_out("1.0") == "exit status 1"
    assert "cat: " in Podman(("cat",)).try_out("1.0")
    with pytest.raises(CommandError):
        podman.load(tmp_path / "archive")
