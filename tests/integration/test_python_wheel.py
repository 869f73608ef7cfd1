# SPDX-License-Identifier: Apache-2.0
"""The wheel: reproducible, and all that an ordinary user without a network needs."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from nabla.core import version
from nabla.core.artifacts import WHEEL, WHEEL_IMAGE, image_path
from nabla.core.paths import NABLA_RUN, PYTHON_PACKAGE, VMLINUX
from nabla.images import wheel_tasks

SCRIPT = """\
import nabla_linux, os, sys
assert nabla_linux.__file__.startswith(sys.prefix), nabla_linux.__file__
assert os.geteuid() != 0
with nabla_linux.Sandbox.create(memory="128M") as sandbox:
    print(sandbox.commands.run("echo $((6 * 7))").stdout.strip(), sandbox.run_code("x = 1; x + 1").text)
warm = nabla_linux.warm_python(memory="128M")
with nabla_linux.Sandbox.create(snapshot=warm) as sandbox:
    print(sandbox.run_code("print('warm')").stdout.strip())
image = nabla_linux.parts.image()
print(image.stat().st_blocks * 512 < image.stat().st_size / 2, len(list(image.parent.glob("*.ext3"))))
"""


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The wheel that `doit wheel` has written."""
    files = list(WHEEL.path.glob("*.whl"))
    if len(files) != 1:
        pytest.fail("out/wheel has no wheel; hint: ./doit.sh wheel", pytrace=False)
    return files[0]


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own belong to this user alone."""
    folder = Path(tempfile.mkdtemp(prefix="nabla-wheel-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_same_bytes(wheel: Path, tmp_path: Path) -> None:
    """Another time, another place, other times of files."""
    (tmp_path / "scratch").mkdir()
    again = tmp_path / "again.whl"
    inputs = []
    for name, path in (("run", NABLA_RUN), ("kernel", VMLINUX), ("python.ext3", image_path(WHEEL_IMAGE))):
        inputs.append(tmp_path / name)
        shutil.copyfile(path, inputs[-1])
    current = version.version()
    launcher, kernel, image = inputs
    wheel_tasks.make(current, launcher, kernel, image, again, scratch=tmp_path / "scratch")
    assert again.read_bytes() == wheel.read_bytes()
    assert wheel.name == wheel_tasks.file_name(current)


def test_record(wheel: Path) -> None:
    """Each file is listed with its sum; programs are executable; all modules are there."""
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        listed = {row[0]: row[1] for row in csv.reader(archive.read(record).decode().splitlines())}
        assert set(listed) == set(archive.namelist())
        for name, sum_of in listed.items():
            if name != record:
                value = urlsafe_b64encode(sha256(archive.read(name)).digest()).rstrip(b"=").decode()
                assert sum_of == f"sha256={value}"
        programs = {member.filename for member in archive.infolist() if member.external_attr >> 16 & 0o111}
        assert programs == {"nabla_linux/parts/nabla-run", "nabla_linux/parts/vmlinux"}
        modules = {f"nabla_linux/{path.relative_to(PYTHON_PACKAGE)}" for path in PYTHON_PACKAGE.rglob("*.py")}
        assert modules <= set(listed)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("1.2.3", "1.2.3"),
        ("1.2.3-dev", "1.2.3.dev0"),
        ("1.2.3-rc1", "1.2.3rc1"),
        ("1.2.3-x.y", "1.2.3+x.y"),
    ],
)
def test_version(given: str, expected: str) -> None:
    assert wheel_tasks.python_version(given) == expected


def test_fresh_environment(wheel: Path, public: Path) -> None:
    """An ordinary user without a network installs it in a new virtual environment, and has sandboxes."""
    if os.geteuid() == 0:
        prefix = ["unshare", "--net", "setpriv", "--reuid=47110", "--regid=47110", "--clear-groups"]
    else:
        prefix = ["unshare", "--map-current-user", "--net"]
    shutil.copy(wheel, public)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(public), "TMPDIR": str(public), "LANG": "C.UTF-8"}

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            [*prefix, *map(str, words)], cwd=public, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # root's own Python may be in its home
    base = Path("/usr/bin/python3" if os.geteuid() == 0 else sys.executable).resolve()
    run(base, "-m", "venv", public / "venv")
    python = public / "venv" / "bin" / "python"
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--quiet", public / wheel.name)
    assert run(python, "-I", "-c", SCRIPT).splitlines() == ["42 2", "warm", "True 1"]
    assert run(python, "-I", "-c", SCRIPT).splitlines() == ["42 2", "warm", "True 1"]
