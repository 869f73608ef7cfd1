# SPDX-License-Identifier: Apache-2.0
"""Tasks for people: everything at once, the tests, a VM, a shell in the sandbox, a look at the host, committed locks.

all   <- kernel, musl, busybox, launcher, init, rootfs:alpine, rootfs:minimal
ready <- all, fetch, rootfs, packages, what a release holds
test  <- ready
test:quick
kernel, launcher, rootfs:<name> -> boot:<name> (boot = boot:base)
lock:update, lock:verify (build roots), lock:policy (the kernel's filter), lock:digests (sums of everything): each area
says by `lock_steps` how it renews its own
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.commands import boot, doctor, shell, testing
from nabla.engine import discovery
from nabla.engine.task import TaskDict, alias, guard
from nabla.images import descriptions

ARTIFACTS = ("kernel", "musl", "busybox", "launcher", "init", "rootfs:alpine", "rootfs:minimal")


def task_all() -> TaskDict:
    """Build all artifacts."""
    return alias("all", "build all artifacts: kernel, libc, busybox, launcher, init, images", ARTIFACTS)


def task_ready() -> TaskDict:
    """Build what the tests look at."""
    return alias(
        "ready", "build everything that the tests look at", ("all", "fetch", "rootfs", "packages", "oci", "release")
    )


def task_test() -> TaskDict:
    """Run tests and linters."""
    return {
        "basename": "test",
        "doc": "run all tests and linters on what was built; words after it go to pytest (doit test -- -k fetch)",
        "actions": [guard(testing.run_tests)],
        "pos_arg": "words",
        "task_dep": ["ready"],
        "uptodate": [False],
        "verbosity": 2,
    }


def task_quick_test() -> TaskDict:
    """Run what needs no build."""
    return {
        "basename": "test:quick",
        "doc": "run the linters and the tests that need no build, in about a minute; words after it go to pytest",
        "actions": [guard(testing.run_quick_tests)],
        "pos_arg": "words",
        "uptodate": [False],
        "verbosity": 2,
    }


def task_boot() -> Iterator[TaskDict]:
    """Start the virtual machine."""
    for name in descriptions.names():
        doc = f"start a virtual machine with {descriptions.load(name).summary}"
        yield _boot(f"boot:{name}", name, doc)
    yield _boot("boot", boot.DEFAULT, "start the virtual machine: a shell in Alpine Linux, or `-- COMMAND…`")


def _boot(title: str, name: str, doc: str) -> TaskDict:
    return {
        "basename": title,
        "doc": doc,
        "actions": [(guard(boot.boot), [name])],
        "params": boot.PARAMS,
        "pos_arg": "words",
        "task_dep": ["kernel", "launcher", f"rootfs:{name}"],
        "uptodate": [False],
        "verbosity": 2,
    }


def task_shell() -> TaskDict:
    """Open a shell in the build sandbox."""
    return {
        "basename": "shell",
        "doc": "open a shell in the build sandbox, with a recipe's build folder: doit shell [RECIPE]",
        "actions": [guard(shell.open_shell)],
        "pos_arg": "names",
        "task_dep": ["toolchain:unpack"],
        "verbosity": 2,
        "uptodate": [False],
    }


def task_doctor() -> TaskDict:
    """Check the host."""
    return {
        "basename": "doctor",
        "doc": "tell what of the host is missing or unusual",
        "actions": [guard(doctor.report)],
        "uptodate": [False],
        "verbosity": 2,
    }


def task_lock() -> Iterator[TaskDict]:
    """Renew the committed locks."""
    yield from discovery.steps("lock_steps")
