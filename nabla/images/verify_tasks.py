# SPDX-License-Identifier: Apache-2.0
"""Checks of finished artifacts by the stand-alone checkers in verify/.

musl, busybox, launcher, init -> verify:pie
kernel:build -> verify:kernel
rootfs:<name> -> verify:<name> -> out/verify/<name>-{pie,syscalls}.{txt,json,xml}
apk:tools, rootfs:tools -> verify:release, of any folder (default: this checkout's release, which must be there)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from nabla.core import process
from nabla.core.artifacts import ARTIFACTS, Tree, verify_reports
from nabla.core.errors import EXIT_USER, CommandError, NablaError
from nabla.core.paths import BUSYBOX, IMAGES, MUSL, NABLA_INIT, NABLA_RUN, ROOT, VMLINUX, relative
from nabla.engine import task
from nabla.engine.task import Job, TaskDict, guard
from nabla.images import descriptions
from nabla.sandbox import bwrap
from nabla.sandbox.bwrap import Bind, Sandbox
from verify import contents, entry, kernel_code, pie, report, syscalls

_BUILT = (Tree(MUSL), Tree(BUSYBOX), NABLA_INIT, NABLA_RUN)


class VerifyError(NablaError):
    """An artifact is not what it must be."""


def task_verify() -> Iterator[TaskDict]:
    """Check what was built."""
    yield task.group("verify", "check what was built")
    yield task.step(
        "verify:pie",
        check_pie,
        doc="every program and library is position-independent and hardened",
        inputs=_BUILT,
        after=["musl", "busybox", "launcher", "init"],
        code=[pie],
    )
    yield task.step(
        "verify:kernel",
        check_kernel,
        doc="the kernel leaves the guest's registers alone and enters the host in few places",
        inputs=[VMLINUX, kernel_code.POLICY],
        after=["kernel:build"],
        code=[kernel_code, bwrap],
    )
    for name in descriptions.names():
        yield task.step(
            f"verify:{name}",
            check_image,
            doc=f"every program of the image {name} is position-independent and finds what it needs; raw system calls",
            inputs=[IMAGES / f"{name}.ext3"],
            outputs=verify_reports(name),
            after=[f"rootfs:{name}"],
            code=[contents, entry, pie, report, syscalls],
            args=[name],
        )


def task_verify_release() -> TaskDict:
    """Check a release."""
    return {
        "basename": "verify:release",
        "doc": "check a release, signatures first: doit verify:release [-- [--allowed-signers FILE] FOLDER]",
        "actions": [guard(check_release)],
        "pos_arg": "words",
        "task_dep": ["apk:tools", "rootfs:tools"],
        "uptodate": [False],
        "verbosity": 2,
    }


def check_release(words: list[str]) -> None:
    """Run the stand-alone checker on the caller's terminal. Raises `VerifyError` when it finds something."""
    options = words or [str(ARTIFACTS["release"].paths[0])]
    status = process.interactive([sys.executable, "-m", "verify.release", *options], cwd=ROOT)
    if status == EXIT_USER:
        raise CommandError("the release cannot be checked", "see above", returncode=status)
    if status != 0:
        raise VerifyError("this is not what its signer made", "the table above says what differs")


def check_image(job: Job, name: str) -> None:
    """Write what the checkers find in an image; fail on a program that is not position-independent.

    Raw system calls work, they are only slow: they are told, and fail nothing.
    """
    found = contents.read(IMAGES / f"{name}.ext3")
    programs = pie.examine_all(found)
    calls = syscalls.examine_all(found)
    texts = (
        *(pie.as_table(programs), report.as_json([asdict(each) for each in programs]), pie.as_junit(programs)),
        *(syscalls.as_table(calls), report.as_json([asdict(each) for each in calls]), syscalls.as_junit(calls)),
    )
    bad = [each for each in programs if each.problems]
    unread = [each for each in calls if each.problem]
    job.note("\n".join((texts[0], texts[3])))
    for path, text in zip(verify_reports(name), texts, strict=True):
        job.out(path).write_text(text + "\n", encoding="utf-8")
    if bad or unread:
        first = f"{bad[0].path}: {', '.join(bad[0].problems)}" if bad else f"{unread[0].path}: {unread[0].problem}"
        hint = f"{len(bad)} of {len(programs)} programs, see {relative(job.log)}"
        raise VerifyError(f"{relative(IMAGES / name)}.ext3: {first}", hint)


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
