# SPDX-License-Identifier: Apache-2.0
"""Tasks for people: everything at once, the tests, a VM, a shell in the sandbox, a look at the host, committed locks.

all   <- kernel, musl, busybox, launcher, init, rootfs:alpine, rootfs:minimal
ready <- all, fetch, rootfs, packages, what a release holds, images of light sets of programs
test  <- ready
test:quick
kernel, launcher, rootfs:minimal, rootfs:test -> fuzz, fuzz:<name>
kernel, launcher, rootfs:<name> -> boot:<name> (boot = boot:base)
lock:update, lock:verify (build roots), lock:policy (the kernel's filter), lock:digests (sums of everything): each area
says by `lock_steps` how it renews its own
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.commands import boot, doctor, fuzzing, shell, testing
from nabla.engine import discovery
from nabla.engine.task import TaskDict, alias, command
from nabla.images import descriptions

ARTIFACTS = ("kernel", "musl", "busybox", "launcher", "init", "rootfs:alpine", "rootfs:minimal")


def task_all() -> TaskDict:
    """Build all artifacts."""
    return alias("all", "build all artifacts: kernel, libc, busybox, launcher, init, images", ARTIFACTS)


def task_ready() -> TaskDict:
    """Build what the tests examine."""
    needed = ("all", "fetch", "rootfs", "packages", "oci", "release", *discovery.steps("tested_tasks"))
    return alias("ready", "build everything that the tests examine", needed)


def task_test() -> TaskDict:
    """Run tests and linters."""
    return command(
        "test",
        testing.run_tests,
        doc="run all tests and linters on what was built; words after it go to pytest (doit test -- -k fetch)",
        after=["ready"],
        words="words",
        interactive=True,
    )


def task_quick_test() -> TaskDict:
    """Run what needs no build."""
    return command(
        "test:quick",
        testing.run_quick_tests,
        doc="run the linters and the tests that need no build, in about a minute; words after it go to pytest",
        words="words",
        interactive=True,
    )


def task_fuzz() -> Iterator[TaskDict]:
    """Run the VM's fuzzers."""
    yield _fuzz("fuzz", [], "run all fuzzers of the VM, a minute each: --time SECONDS, --seed N, --keep")
    for name in fuzzing.NAMES:
        yield _fuzz(f"fuzz:{name}", [name], f"run the fuzzer of the VM named {name}")


def _fuzz(title: str, names: list[str], doc: str) -> TaskDict:
    return command(
        title,
        fuzzing.run_fuzzers,
        doc=doc,
        after=["kernel", "launcher", "rootfs:minimal", "rootfs:test"],
        args=[names],
        params=fuzzing.PARAMS,
        interactive=True,
    )


def task_boot() -> Iterator[TaskDict]:
    """Start the virtual machine."""
    for name in descriptions.names():
        doc = f"start a virtual machine with {descriptions.load(name).summary}"
        yield _boot(f"boot:{name}", name, doc)
    yield _boot("boot", boot.DEFAULT, "start the virtual machine: a shell in Alpine Linux, or `-- COMMAND…`")


def _boot(title: str, name: str, doc: str) -> TaskDict:
    return command(
        title,
        boot.boot,
        doc=doc,
        after=["kernel", "launcher", f"rootfs:{name}"],
        args=[name],
        params=boot.PARAMS,
        words="words",
        interactive=True,
    )


def task_shell() -> TaskDict:
    """Open a shell in the build sandbox."""
    return command(
        "shell",
        shell.open_shell,
        doc="open a shell in the build sandbox, with a recipe's build folder: doit shell [RECIPE]",
        after=["toolchain:unpack"],
        words="names",
        interactive=True,
    )


def task_doctor() -> TaskDict:
    """Check the host."""
    return command("doctor", doctor.report, doc="report what the host lacks or what is unusual about it")


def task_lock() -> Iterator[TaskDict]:
    """Renew the committed locks."""
    yield from discovery.steps("lock_steps")
