# SPDX-License-Identifier: Apache-2.0
"""Tasks for users: all artifacts, the tests, a VM, a shell in the sandbox, checks of the host, committed files.

all   <- kernel, musl, busybox, launcher, init, rootfs:alpine, rootfs:minimal
ready <- all, fetch, rootfs, packages, the content of a release, `tested_tasks` of other areas
test  <- ready
test:quick
kernel, launcher, rootfs:minimal, rootfs:test -> fuzz, fuzz:<name>
kernel, launcher, rootfs:<name> -> boot:<name> (boot = boot:base)
lock:update, lock:verify (build roots), lock:policy (the kernel's filter), lock:digests (sums of artifacts): each area
adds its own by a function `lock_steps`
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.commands import boot, doctor, fuzzing, shell, testing
from nabla.engine import discovery
from nabla.engine.task import TaskDict, alias, command
from nabla.images import descriptions

ARTIFACTS = ("kernel", "musl", "busybox", "launcher", "client", "runtime", "init", "rootfs:alpine", "rootfs:minimal")


def task_all() -> TaskDict:
    """Build all artifacts."""
    doc = "build all artifacts: kernel, libc, busybox, launcher, client, OCI runtime, init, images"
    return alias("all", doc, ARTIFACTS)


def task_ready() -> TaskDict:
    """Build everything that the tests examine."""
    needed = ("all", "fetch", "rootfs", "packages", "oci", "release", "wheel", *discovery.steps("tested_tasks"))
    return alias("ready", "build everything that the tests examine", needed)


def task_test() -> TaskDict:
    """Run tests and linters."""
    return command(
        "test",
        testing.run_tests,
        doc="run all tests and linters; other arguments go to pytest (doit test -- -k fetch)",
        after=["ready"],
        words="words",
        interactive=True,
    )


def task_quick_test() -> TaskDict:
    """Run the tests that need no build."""
    return command(
        "test:quick",
        testing.run_quick_tests,
        doc="run the linters and the tests that need no build, in about a minute; other arguments go to pytest",
        words="words",
        interactive=True,
    )


def task_fuzz() -> Iterator[TaskDict]:
    """Run the VM's fuzzers."""
    yield _fuzz("fuzz", [], "run all fuzzers of the VM, a minute each: --time SECONDS, --seed N, --keep")
    for name in fuzzing.NAMES:
        yield _fuzz(f"fuzz:{name}", [name], f"run the fuzzer of the VM named {name}")


def _fuzz(title: str, names: list[str], doc: str) -> TaskDict:
    needed, params = ["kernel", "launcher", "rootfs:minimal", "rootfs:test"], fuzzing.PARAMS
    return command(title, fuzzing.run_fuzzers, doc=doc, after=needed, args=[names], params=params, interactive=True)


def task_boot() -> Iterator[TaskDict]:
    """Start a VM."""
    for name in descriptions.names():
        doc = f"start a VM with {descriptions.load(name).summary}"
        yield _boot(f"boot:{name}", name, doc)
    yield _boot("boot", boot.DEFAULT, "start a VM: a shell in Alpine Linux, or `-- COMMAND…`")


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
        doc="open a shell in the build sandbox, in a recipe's build folder: doit shell [RECIPE]",
        after=["toolchain:unpack"],
        words="names",
        interactive=True,
    )


def task_doctor() -> TaskDict:
    """Check the host."""
    return command("doctor", doctor.report, doc="check the host for missing requirements and unusual properties")


def task_lock() -> Iterator[TaskDict]:
    """Update the committed files."""
    yield from discovery.steps("lock_steps")
