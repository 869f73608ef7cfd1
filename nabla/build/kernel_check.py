# SPDX-License-Identifier: Apache-2.0
"""Check the built kernel by verify/kernel_code.py."""

from __future__ import annotations

from nabla.core.errors import VerifyError
from nabla.core.paths import VMLINUX, relative
from nabla.engine.action import Job
from nabla.sandbox.bwrap import Bind, Sandbox
from verify import kernel_code


def check_kernel(job: Job) -> None:
    """Step: disassemble the kernel by the build root's objdump and compare it with the policy."""
    listing = job.scratch() / "vmlinux.s"
    sandbox = Sandbox((Bind(VMLINUX.parent, "/src"), Bind(listing.parent, "/build", writable=True)))
    sandbox.run(
        f"objdump -d -w --no-show-raw-insn /src/{VMLINUX.name} > {listing.name}", title="disassemble the kernel"
    )
    try:
        with listing.open(encoding="utf-8", errors="replace") as stream:
            result = kernel_code.check(stream, kernel_code.read_policy(kernel_code.POLICY))
    except kernel_code.CheckError as error:
        raise VerifyError(str(error)) from error
    job.note(kernel_code.describe(result, everything=True))
    problems = [f"{use.function}: {use.kind}: {use.text}" for use in result.forbidden] + result.idle
    if problems:
        hint = f"{len(problems)} findings, see {relative(job.log)}; verify/kernel_code.toml lists the permitted uses"
        raise VerifyError(f"{relative(VMLINUX)}: {problems[0]}", hint)
