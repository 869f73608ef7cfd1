# SPDX-License-Identifier: Apache-2.0
"""The Python package with launcher, kernel and the image of Python, as a reproducible wheel: `doit wheel`.

launcher, kernel, rootfs:python, python/ -> wheel -> out/wheel/

Nothing in it is compressed but the image, by the gzip of the locked image tools: the bytes depend on no library of the
host.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

from nabla.core import digest
from nabla.core import version as versions
from nabla.core.artifacts import IMAGE_TOOLS, WHEEL, WHEEL_IMAGE, image_path
from nabla.core.paths import NABLA_RUN, PYTHON_PACKAGE, ROOT, VMLINUX
from nabla.core.process import run
from nabla.engine.action import Job
from nabla.engine.task import TaskDict, step
from nabla.fs.ext3 import SCRATCH
from nabla.packages import apk
from nabla.sandbox.bwrap import Bind
from verify.epoch import SOURCE_DATE_EPOCH

NAME = "nabla_linux"
# The programs are static: they need no C library of the host.
TAG = "py3-none-manylinux2014_x86_64.musllinux_1_1_x86_64"
_VERSION = re.compile(r"([0-9]+\.[0-9]+\.[0-9]+)(?:-(dev|rc[0-9]+))?(?:-([0-9A-Za-z.]+))?")

_METADATA = """\
Metadata-Version: 2.1
Name: nabla-linux
Version: {version}
Summary: Linux VMs in ordinary processes for untrusted code, without root and without KVM
License: Apache-2.0; the kernel and the programs of the image have licenses of their own, which are in the image
Requires-Python: >=3.11
Description-Content-Type: text/markdown

{description}"""

_WHEEL = """\
Wheel-Version: 1.0
Generator: nabla
Root-Is-Purelib: false
{tags}"""


def _sources() -> dict[str, Path]:
    """The files of the package: names in the wheel, and where they are."""
    modules = sorted(path for path in PYTHON_PACKAGE.rglob("*") if path.suffix == ".py" or path.name == "py.typed")
    return {f"{NAME}/{path.relative_to(PYTHON_PACKAGE)}": path for path in modules}


def task_wheel() -> TaskDict:
    """Write the Python package."""
    made_from = [NABLA_RUN, VMLINUX, image_path(WHEEL_IMAGE), ROOT / "docs" / "python.md", ROOT / "LICENSE"]
    return step(
        "wheel",
        make_wheel,
        doc="write the Python package with launcher, kernel and an image as a wheel",
        inputs=[*made_from, IMAGE_TOOLS, *_sources().values()],
        outputs=[WHEEL],
        args=[versions.version()],
        cacheable=True,
        remote=False,
        repeated=True,
    )


def python_version(version: str) -> str:
    """Return a version of a checkout as PEP 440 writes it.

    >>> python_version("1.2.3"), python_version("1.2.3-dev"), python_version("1.2.3-rc1"), python_version("1.2.3-dev-x")
    ('1.2.3', '1.2.3.dev0', '1.2.3rc1', '1.2.3.dev0+x')
    """
    match = _VERSION.fullmatch(version)
    if not match:
        number, _, rest = version.partition("-")
        return f"{number}+{rest.lower()}"
    number, kind, local = match.groups()
    text = number + {"dev": ".dev0", None: ""}.get(kind, str(kind))
    return f"{text}+{local.lower()}" if local else text


def file_name(version: str) -> str:
    """Return the name of the wheel's file."""
    return f"{NAME}-{python_version(version)}-{TAG}.whl"


def make_wheel(job: Job, version: str) -> None:
    """Step: write the wheel into its folder."""
    folder = job.out(WHEEL)
    folder.mkdir()
    scratch = job.scratch()
    make(version, NABLA_RUN, VMLINUX, image_path(WHEEL_IMAGE), folder / file_name(version), scratch=scratch)


def make(version: str, nabla_run: Path, vmlinux: Path, image: Path, target: Path, *, scratch: Path) -> None:
    """Write a wheel. `scratch`: an empty folder. Raises `CommandError` if gzip fails."""
    copy = scratch / image.name
    shutil.copyfile(image, copy)
    run(apk.command(IMAGE_TOOLS.path, [Bind(scratch, SCRATCH, writable=True)], ["/bin/busybox", "gzip", copy.name]))
    content = {name: (path.read_bytes(), 0o644) for name, path in _sources().items()}
    content |= {
        f"{NAME}/parts/nabla-run": (nabla_run.read_bytes(), 0o755),
        f"{NAME}/parts/vmlinux": (vmlinux.read_bytes(), 0o755),
        f"{NAME}/parts/{copy.name}.gz": (copy.with_name(f"{copy.name}.gz").read_bytes(), 0o644),
        f"{NAME}/parts/{copy.name}.sha256": (f"{digest.sha256_file(image)}\n".encode(), 0o644),
    }
    _write(target, python_version(version), content)


def _write(target: Path, version: str, content: Mapping[str, tuple[bytes, int]]) -> None:
    info = f"{NAME}-{version}.dist-info"
    tags = "".join(f"Tag: py3-none-{platform}\n" for platform in TAG.split("-")[2].split("."))
    description = (ROOT / "docs" / "python.md").read_text()
    entries = {
        **content,
        f"{info}/METADATA": (_METADATA.format(version=version, description=description).encode(), 0o644),
        f"{info}/WHEEL": (_WHEEL.format(tags=tags).encode(), 0o644),
        f"{info}/licenses/LICENSE": ((ROOT / "LICENSE").read_bytes(), 0o644),
    }
    record = "".join(f"{name},{_record(data)},{len(data)}\n" for name, (data, _) in entries.items())
    entries[f"{info}/RECORD"] = (f"{record}{info}/RECORD,,\n".encode(), 0o644)
    date = time.gmtime(SOURCE_DATE_EPOCH)[:6]
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for name, (data, mode) in entries.items():
            member = zipfile.ZipInfo(name, date)
            member.create_system = 3  # Unix
            member.external_attr = (0o100000 | mode) << 16
            archive.writestr(member, data)
    target.chmod(0o644)


def _record(data: bytes) -> str:
    value = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={value.decode()}"
