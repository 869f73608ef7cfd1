# SPDX-License-Identifier: Apache-2.0
"""`doit boot` as a function: its effect without a terminal, and the place of changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nabla.commands import boot
from nabla.core.errors import CommandError

from .conftest import image_of
from .networked import free_port


@pytest.fixture(autouse=True)
def own_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a temporary folder instead of the developer's own disks."""
    monkeypatch.setattr(boot, "RUN", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["minimal", "alpine"])
def test_guest_describes_itself(capfd: pytest.CaptureFixture[str], name: str, own_run_folder: Path) -> None:
    image_of(name)
    boot.boot(name, "128M", ephemeral=False, words=[])
    shown = capfd.readouterr().out
    assert "system:  Linux 6.1.176" in shown
    assert "MemTotal: " in shown
    assert "  / ext4 (/dev/root)" in shown
    assert "BusyBox v1.37.0" in shown
    assert ("curl 8." in shown) == (name == "alpine")
    assert not own_run_folder.exists()


def test_commands_and_changes(capfd: pytest.CaptureFixture[str]) -> None:
    before = image_of("minimal").read_bytes()
    boot.boot("minimal", "64M", ephemeral=False, words=["/bin/sh", "-c", "echo kept >/root/mine"])
    boot.boot("minimal", "64M", ephemeral=True, words=["/bin/sh", "-c", "cat /root/mine || echo nothing"])
    boot.boot("minimal", "64M", ephemeral=False, words=["/bin/cat", "/root/mine"])
    assert capfd.readouterr().out.split() == ["nothing", "kept"]
    assert image_of("minimal").read_bytes() == before


def test_failing_command() -> None:
    image_of("minimal")
    with pytest.raises(CommandError, match="ended with status 7"):
        boot.boot("minimal", "64M", ephemeral=True, words=["/bin/sh", "-c", "exit 7"])
    with pytest.raises(CommandError, match="ended with status 125"):
        boot.boot("minimal", "1M", ephemeral=True, words=["/bin/true"])


def test_options_of_the_launcher(capfd: pytest.CaptureFixture[str]) -> None:
    """Some options by name, all others split as in a shell."""
    image_of("minimal")
    boot.boot(
        "minimal",
        "64M",
        ephemeral=True,
        words=["/bin/sh", "-c", 'id -u; echo "$A"; cat /etc/resolv.conf'],
        net="user",
        publish=[f"{free_port()}:80"],
        option=["--user nobody --dns 10.9.9.9", "--env 'A=two words'"],
    )
    assert capfd.readouterr().out.splitlines() == ["65534", "two words", "nameserver 10.9.9.9"]
    with pytest.raises(CommandError, match="No closing quotation"):
        boot.boot("minimal", "64M", ephemeral=True, words=["/bin/true"], option=["--env 'A=x"])
