# SPDX-License-Identifier: Apache-2.0
"""Check built artifacts by the stand-alone checkers in verify/.

musl, busybox, launcher, init -> verify:pie
kernel:build -> verify:kernel
rootfs:<name> -> verify:<name> -> out/verify/<name>-{pie,syscalls}.{txt,json,xml}
apk:tools, rootfs:tools -> verify:release, of any folder (default: this checkout's release, which must exist)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from nabla.build import kernel_check
from nabla.core import process
from nabla.core.artifacts import ARTIFACTS, BUILD_ROOT, image_path, verify_reports
from nabla.core.errors import EXIT_USER, CommandError, VerifyError
from nabla.core.paths import ROOT, VMLINUX
from nabla.engine import task
from nabla.engine.task import TaskDict
from nabla.images import descriptions, program_check
from verify import kernel_code


def task_verify() -> Iterator[TaskDict]:
    """Check the artifacts."""
    yield task.group("verify", "check the artifacts")
    yield task.step(
        "verify:pie",
        program_check.check_pie,
        doc="every program and library is position-independent and hardened",
        inputs=program_check.COMPONENTS,
    )
    yield task.step(
        "verify:kernel",
        kernel_check.check_kernel,
        doc="the kernel does not use the guest's registers and calls the host in few places",
        inputs=[VMLINUX, kernel_code.POLICY, BUILD_ROOT],
    )
    for name in descriptions.names():
        yield task.step(
            f"verify:{name}",
            program_check.check_image,
            doc=f"every program of the image {name} is position-independent and has its libraries; raw system calls",
            inputs=[image_path(name)],
            outputs=verify_reports(name),
            args=[name],
            cacheable=True,
            remote=False,
            repeated=True,
        )


def task_verify_release() -> TaskDict:
    """Check a release."""
    return task.command(
        "verify:release",
        check_release,
        doc="check a release, signatures first: doit verify:release [-- [--allowed-signers FILE] FOLDER]",
        after=["apk:tools", "rootfs:tools"],
        words="words",
    )


def check_release(words: list[str]) -> None:
    """Run the stand-alone checker on the caller's terminal. Raises `VerifyError` if it finds a fault."""
    options = words or [str(ARTIFACTS["release"].paths[0])]
    status = process.interactive([sys.executable, "-m", "verify.release", *options], cwd=ROOT)
    if status == EXIT_USER:
        raise CommandError("the release cannot be checked", "see above", returncode=status)
    if status != 0:
        raise VerifyError("the release is not what its signer published", "the table above lists the differences")
