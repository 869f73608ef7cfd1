# SPDX-License-Identifier: Apache-2.0
"""How nabla-run opens images and kernels whose paths other users may change."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla.core.paths import NABLA_RUN, VMLINUX

from .launcher import OWN_ERROR, Ordinary, launch, refused

OTHER = 47110
REFUSED = "root does not follow the symbolic link"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder of another user."""
    folder = Path(tempfile.mkdtemp(prefix="nabla-test-"))
    os.chown(folder, OTHER, OTHER)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def accepted(*words: str | Path) -> None:
    result = launch("--dry-run", *words)
    assert result.returncode == 0, result.stderr


def link(at: Path, target: str | Path, owner: int = 0) -> Path:
    at.symlink_to(target)
    os.chown(at, owner, owner, follow_symlinks=False)
    return at


@pytest.mark.parametrize("owner", [0, OTHER])
def test_links_in_folders_of_others(shared: Path, image: Path, as_root: bool, owner: int) -> None:
    """Neither the last component nor one before it, regardless of the owner of the link."""
    assert as_root, "hint: the tests that need another user run as root"
    name = link(shared / "image", image, owner)
    folder = link(shared / "folder", image.parent, owner)
    for path in (name, folder / image.name, shared / "." / ".." / shared.name / "image"):
        refused(REFUSED, path)
        refused(REFUSED, "--ephemeral", "--disk", f"{path},ro", image)
        accepted("--follow-symlinks", path)
    kernel = link(shared / "vmlinux", VMLINUX, owner)
    refused(REFUSED, "--kernel", kernel, image)
    accepted("--follow-symlinks", "--kernel", kernel, image)


def test_links_of_root(shared: Path, image: Path, tmp_path: Path) -> None:
    """They are followed, also several, relative and absolute ones, up to a link that is not root's."""
    (tmp_path / "a").mkdir()
    one = link(tmp_path / "a" / "one", f"../{image.name}")
    two = link(tmp_path / "two", "a")
    three = link(tmp_path / "three", two.resolve().parent)
    for path in (one, two / "one", three / "two" / ".." / "two" / "one", three / image.name):
        accepted(path)
    accepted(os.path.relpath(two / "one"))
    last = link(tmp_path / "last", link(shared / "image", image))
    refused(REFUSED, last)
    refused("No such file", link(tmp_path / "dangling", "nowhere"))
    loop = link(tmp_path / "loop", "loop")
    refused("Symbolic link loop", loop)
    refused("Not a directory", f"{one}/")
    refused("Not a directory", f"{one}/x")


def test_link_in_a_sticky_folder(image: Path) -> None:
    """In /tmp, root's own links are safe, those of others are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o1777)
        accepted(link(folder / "own", image))
        refused(REFUSED, link(folder / "other", image, OTHER))
        folder.chmod(0o777)
        refused(REFUSED, folder / "own")


def test_open_descriptors(image: Path) -> None:
    """The links of /proc and /dev/fd name open files, which root has."""
    with image.open("rb") as stream:
        for path in (f"/proc/self/fd/{stream.fileno()}", f"/dev/fd/{stream.fileno()}"):
            result = launch("--dry-run", "--ephemeral", path, pass_fds=[stream.fileno()])
            assert result.returncode == 0, result.stderr


def test_ordinary_users_follow_links(ordinary: Ordinary) -> None:
    path = ordinary.folder / "link"
    path.symlink_to("disk.ext3")
    result = ordinary.run("--dry-run", "--ephemeral", path)
    assert result.returncode == 0, result.stderr


def test_path_that_changes_all_the_time(shared: Path, image: Path, tmp_path: Path) -> None:
    """An image that becomes a link, a FIFO and an image again: never is anything opened but a regular file."""
    secret = tmp_path / "secret"
    shutil.copyfile(image, secret)
    target = shared / "image"
    script = """
        import os, sys
        target, image, secret = sys.argv[1:]
        spare = target + ".new"
        print("up", flush=True)
        while os.getppid() != 1:
            os.symlink(secret, spare); os.rename(spare, target)
            os.mkfifo(spare); os.rename(spare, target)
            os.link(image, spare); os.rename(spare, target)
    """
    copy = shared / "own"
    shutil.copyfile(image, copy)
    os.link(copy, target)
    words = ["python3", "-c", "\n".join(line[8:] for line in script.splitlines()), *map(str, (target, copy, secret))]
    seen: set[str] = set()
    every = {"opened", REFUSED, "neither a regular file"}
    with subprocess.Popen(words, stdout=subprocess.PIPE) as changer:
        assert changer.stdout is not None
        assert changer.stdout.readline() == b"up\n"
        for number in range(5000):
            if number >= 150 and every <= seen:
                break
            result = launch("--dry-run", "--ephemeral", target)
            message = result.stderr.removeprefix("nabla-run: ")
            if result.returncode == 0:
                seen.add("opened")
                continue
            assert result.returncode == OWN_ERROR
            kinds = [kind for kind in (REFUSED, "neither a regular file") if kind in message]
            assert kinds, message
            seen.update(kinds)
        assert changer.poll() is None
        changer.kill()
    assert every <= seen


def test_device_is_not_opened(strace: str, tmp_path: Path) -> None:
    """Opening a FIFO or a device has effects; its type is checked first."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        log = tmp_path / "log"
        words = [strace, "-o", str(log), "-y", "-e", "trace=open,openat,openat2", str(NABLA_RUN), str(path)]
        assert subprocess.run(words, capture_output=True, check=False).returncode == OWN_ERROR
        opened = [line for line in log.read_text().splitlines() if str(path) in line]
        assert opened
        assert all("O_PATH" in line for line in opened), opened
