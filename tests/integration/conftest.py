# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the built images as VMs. A missing artifact is a failure with a hint, never a skipped test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nabla.core.paths import IMAGES, NABLA_RUN, VMLINUX, relative

from .confined import Bare
from .hostile import sanitized as sanitized
from .hostile import victim as victim
from .launcher import Launcher, Ordinary, compile_stand_in, ordinary_user
from .vm import Vm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder: it boots a VM."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.vm)


def image_of(name: str) -> Path:
    """Return the path of a built image; fail if anything that a boot needs is missing."""
    image = IMAGES / f"{name}.ext3"
    for needed in (NABLA_RUN, VMLINUX, image):
        if not needed.exists():
            pytest.fail(f"{relative(needed)} is missing; hint: ./doit.sh test builds it first", pytrace=False)
    return image


@pytest.fixture(scope="session")
def minimal() -> Vm:
    """Nabla's libc, busybox and init alone."""
    return Vm(image_of("minimal"), memory="64M", ephemeral=True)


@pytest.fixture(scope="session")
def alpine() -> Vm:
    """Alpine with nabla's libc and busybox instead of its own."""
    return Vm(image_of("alpine"), ephemeral=True)


@pytest.fixture(scope="session")
def testing() -> Vm:
    """Alpine with the programs of tests/guest, an unmodified CPython and numpy."""
    return Vm(image_of("test"), memory="512M", ephemeral=True)


@pytest.fixture(scope="module")
def bare(testing: Vm, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """The kernel without nabla-run, with disks and a file of the host at known descriptors."""
    return Bare(tmp_path_factory.mktemp("bare"), testing.image)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a private, writable copy of a built image."""

    def make(name: str) -> Path:
        target = tmp_path / f"{name}.ext3"
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", image_of(name), target], check=True)
        target.chmod(0o644)
        return target

    return make


@pytest.fixture
def image(copy_of: Callable[[str], Path]) -> Path:
    """A private copy of the minimal image."""
    return copy_of("minimal")


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that nabla-run can start instead of the kernel."""
    return compile_stand_in(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture
def launcher(image: Path, stand_in: Path) -> Launcher:
    """nabla-run with a private image and the stand-in."""
    return Launcher(image, stand_in)


@pytest.fixture(scope="session")
def as_root() -> bool:
    """True if root runs the tests."""
    return os.geteuid() == 0


@pytest.fixture(scope="module")
def ordinary() -> Iterator[Ordinary]:
    """A user who is not root."""
    with ordinary_user(image_of("minimal")) as user:
        yield user


@pytest.fixture(scope="session")
def strace() -> str:
    """Path of the host's strace."""
    path = shutil.which("strace")
    if path is None:
        pytest.fail("strace is missing: it records the VM's host calls; hint: install strace", pytrace=False)
    return path
