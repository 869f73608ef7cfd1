# SPDX-License-Identifier: Apache-2.0
"""A directory as the root of a VM, and values that `--mount` refuses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nabla.core.paths import IMAGES
from nabla.fs import ext3, nodes

from .launcher import launch, refused
from .test_directories import give, mounted, share
from .vm import Vm

__all__ = ["share"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "does not name two directories"),
        ("x", "does not name two directories"),
        (":/work", "does not name two directories"),
        ("/tmp:", "is not a directory of the guest"),
        ("/tmp:work", "is not a directory of the guest"),
        ("/tmp:/a/../b", "is not a directory of the guest"),
        ("/tmp:/./b", "is not a directory of the guest"),
        ("/tmp:/", "the root of the guest cannot be replaced"),
        ("/tmp:///", "the root of the guest cannot be replaced"),
        ("/tmp:/a:rw", "unknown flag 'rw'"),
        ("/tmp:/a:", "unknown flag ''"),
        ("/tmp:/a:ro:ro", "repeats a flag"),
        ("/tmp:/a:cache:cache", "repeats a flag"),
        ("/tmp:/" + "x" * 2000, "is not a directory of the guest"),
        ("/nowhere:/a", "--mount: cannot open directory /nowhere: No such file or directory"),
        ("/etc/passwd:/a", "--mount: /etc/passwd is not a directory"),
        ("/proc:/a", "--mount: /proc is in procfs, which cannot be shared"),
    ],
)
def test_wrong_values(value: str, message: str, image: Path) -> None:
    refused(message, "--mount", value, image)


def test_wrong_combinations(image: Path, tmp_path: Path) -> None:
    twice = ("--mount", "/tmp:/a", "--mount", "/usr://a/")
    refused("two directories for /a", *twice, image)
    many = [word for number in range(8) for word in ("--mount", f"/tmp:/{number}")]
    refused("a VM has at most 7 shared directories", *many, image)
    share = ("--mount", "/tmp:/a")
    refused("--snapshot: a VM with a shared directory", *share, "--snapshot", tmp_path / "s", "--ephemeral", image)
    refused("--restore: a VM with a shared directory", *share, "--restore", tmp_path / "s", "--ephemeral", image)
    refused("--ephemeral: the changes to a directory cannot be discarded", "--ephemeral", "--init", "/", "/usr")
    refused("directory /usr has no /sbin/nabla-init", "/usr")
    assert not (tmp_path / "s").exists()


def test_a_mount_that_the_guest_cannot_make(minimal: Vm, share: Path) -> None:
    """GUEST is a file of the image: the command does not run."""
    result = mounted(minimal, f"{share}:/etc/passwd").shell("echo ran")
    assert result.status == 125 and "ran" not in result.output, result.describe()
    assert "nabla-init: /etc/passwd: Not a directory" in result.output + result.errors


def test_dry_run(image: Path, share: Path) -> None:
    result = launch("--dry-run", "--mount", f"{share}:/a:ro:cache", image)
    assert f"descriptor 16, directory, read-only, cached: {share}\n" in result.stdout, result
    assert "stream1=fd:16,share1" in result.stdout


def test_a_start_says_why_it_boots(image: Path, share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NABLA_COLD", raising=False)
    result = launch("--dry-run", "--ephemeral", "--mount", f"{share}:/a", image)
    assert "start: cold, --mount\n" in result.stdout, result


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that unpacks an image into a directory, which the VM's user owns."""

    def unpack(name: str) -> Path:
        target = tmp_path_factory.mktemp(name) / "root"
        ext3.stage(nodes.read_ext(IMAGES / f"{name}.ext3"), target)
        for folder, folders, files in os.walk(target):
            give(Path(folder), *(Path(folder, each) for each in (*folders, *files)))
        return target

    return unpack


@pytest.fixture(scope="module")
def root(tree: Callable[[str], Path]) -> Iterator[Path]:
    """The minimal image as a directory."""
    yield tree("minimal")


def test_a_directory_as_the_root(root: Path) -> None:
    result = Vm(root, memory="64M").shell("echo kept >/root/file; mount | head -n 1; id -u")
    assert result.status == 0, result.describe()
    assert result.output.startswith("share0 on / type 9p (rw,") and result.lines()[-1] == "0"
    assert (root / "root" / "file").read_text() == "kept\n"
    (root / "root" / "file").unlink()


def test_a_root_that_is_read_only(root: Path, share: Path) -> None:
    vm = Vm(root, memory="64M", read_only=True)
    before = sorted(os.listdir(root))
    result = vm.shell("echo x >/file; ls /bin/sh")
    assert "/bin/sh" in result.output and result.status == 0, result.describe()
    assert sorted(os.listdir(root)) == before
    extra = vm.but(options=("--mount", f"{share}:/tmp/work"))
    assert extra.check("echo there >/tmp/work/f; cat /tmp/work/f") == "there\n"
