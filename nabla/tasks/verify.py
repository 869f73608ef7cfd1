# SPDX-License-Identifier: Apache-2.0
"""Checks of finished artifacts by the stand-alone checkers in verify/.

musl, busybox, launcher, init -> verify:pie
kernel:build -> verify:kernel
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nabla import sandbox, tasklib
from nabla.errors import NablaError
from nabla.paths import BUSYBOX, MUSL, NABLA_INIT, NABLA_RUN, VMLINUX, relative
from nabla.sandbox import Bind, Sandbox
from nabla.tasklib import Job, TaskDict, Tree
from verify import kernel_code, pie, report

_BUILT = (Tree(MUSL), Tree(BUSYBOX), NABLA_INIT, NABLA_RUN)


class VerifyError(NablaError):
    """An artifact is not what it must be."""


def task_verify() -> Iterator[TaskDict]:
    """Check what was built."""
    yield tasklib.group("verify", "check what was built")
    yield tasklib.step(
        "verify:pie",
        check_pie,
        doc="every program and library is position-independent and hardened",
        inputs=_BUILT,
        after=["musl", "busybox", "launcher", "init"],
        code=[pie],
    )
    yield tasklib.step(
        "verify:kernel",
        check_kernel,
        doc="the kernel leaves the guest's registers alone and enters the host in few places",
        inputs=[VMLINUX, kernel_code.POLICY],
        after=["kernel:build"],
        code=[kernel_code, sandbox],
    )


def check_pie(job: Job) -> None:
    """Fail on the first program that is not position-independent; all are in the log."""
    places = [item.path if isinstance(item, Tree) else item for item in _BUILT]
    findings = [pie.examine(file) for place in places for file in pie.find(place)]
    rows = [[relative(Path(f.path)), f.kind, ", ".join(f.problems) or "ok"] for f in findings]
    job.note(report.table(["file", "kind", "result"], rows))
    bad = [row for row, finding in zip(rows, findings, strict=True) if finding.problems]
    if bad:
        raise VerifyError(f"{bad[0][0]}: {bad[0][2]}", f"{len(bad)} of {len(rows)} files, see {relative(job.log)}")


def check_kernel(job: Job) -> None:
    """Disassemble the kernel with the build root's objdump and compare it with the policy."""
    listing = job.scratch() / "vmlinux.s"
    place = Sandbox((Bind(VMLINUX.parent, "/src"), Bind(listing.parent, "/build", writable=True)))
    place.run(f"objdump -d -w --no-show-raw-insn /src/{VMLINUX.name} > {listing.name}", title="disassemble the kernel")
    try:
        with listing.open(encoding="utf-8", errors="replace") as stream:
            result = kernel_code.check(stream, kernel_code.read_policy(kernel_code.POLICY))
    except kernel_code.CheckError as error:
        raise VerifyError(str(error)) from error
    job.note(kernel_code.describe(result, everything=True))
    problems = [f"{use.function}: {use.kind}: {use.text}" for use in result.forbidden] + result.idle
    if problems:
        hint = f"{len(problems)} findings, see {relative(job.log)}; verify/kernel_code.toml holds what is allowed"
        raise VerifyError(f"{relative(VMLINUX)}: {problems[0]}", hint)
