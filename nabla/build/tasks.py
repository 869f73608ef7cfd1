# SPDX-License-Identifier: Apache-2.0
"""The components of the system that have a `[build]`, and the kernel.

musl:         toolchain:unpack -> musl:unpack -> :patch -> :configure -> :build -> :install -> out/musl
busybox:      musl:install -> busybox:configure -> :build -> :install -> out/busybox
launcher:     musl:install -> launcher:configure -> :build -> :install -> out/bin/nabla-run
runtime:      musl:install -> runtime:configure -> :build -> :install -> out/bin/nabla-oci
client:       musl:install -> client:configure -> :build -> :install -> out/bin/nabla
init:         musl:install -> init:configure -> :build -> :install -> out/init/nabla-init
guest-tests:  musl:install -> guest-tests:configure -> :build -> :install -> out/guest-tests
kernel:       fetch:linux -> kernel:unpack -> :patch -> :config -> :build -> out/kernel/vmlinux, System.map, sources
                                patches/linux ^      ^ kernel-config/*.config
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.build import component, kernel, source_tree
from nabla.build.source_tree import Work
from nabla.core.artifacts import BUILD_ROOT, Tree
from nabla.core.paths import BUSYBOX, GUEST_TESTS, MUSL, NABLA, NABLA_INIT, NABLA_OCI, NABLA_RUN, VMLINUX
from nabla.engine import task
from nabla.engine.task import TaskDict
from nabla.sources import recipe


def task_musl() -> Iterator[TaskDict]:
    """Build the C library of the guest."""
    yield from component.steps("musl", "musl", {".": Tree(MUSL)}, doc="build the guest's C library", with_musl=False)


def task_busybox() -> Iterator[TaskDict]:
    """Build the guest's basic commands."""
    doc = "build the guest's basic commands and shell"
    yield from component.steps("busybox", "busybox", {".": Tree(BUSYBOX)}, doc=doc, with_musl=True)


def task_launcher() -> Iterator[TaskDict]:
    """Build nabla-run, which starts a VM."""
    results = {"usr/bin/nabla-run": NABLA_RUN}
    yield from component.steps("launcher", "nabla-run", results, doc="build nabla-run, the launcher", with_musl=True)


def task_runtime() -> Iterator[TaskDict]:
    """Build nabla-oci, which runs containers as VMs."""
    results = {"usr/bin/nabla-oci": NABLA_OCI}
    yield from component.steps("runtime", "nabla-oci", results, doc="build nabla-oci, the OCI runtime", with_musl=True)


def task_client() -> Iterator[TaskDict]:
    """Build nabla, which controls running VMs."""
    doc = "build nabla, the client of running VMs"
    yield from component.steps("client", "nabla", {"usr/bin/nabla": NABLA}, doc=doc, with_musl=True)


def task_init() -> Iterator[TaskDict]:
    """Build nabla-init, the first program of the guest."""
    results = {"sbin/nabla-init": NABLA_INIT}
    doc = "build nabla-init, the guest's first program"
    yield from component.steps("init", "nabla-init", results, doc=doc, with_musl=True)


def task_guest_tests() -> Iterator[TaskDict]:
    """Build the programs in tests/guest and bench/guest."""
    doc = "build the programs that run inside the guest"
    results = {"usr/lib/nabla-tests": Tree(GUEST_TESTS)}
    yield from component.steps("guest-tests", "guest-tests", results, doc=doc, with_musl=True)


def task_kernel() -> Iterator[TaskDict]:
    """Build the guest kernel."""
    work = Work(kernel.RECIPE)
    fragments = kernel.fragments()
    yield task.group("kernel", "build the guest kernel")
    yield from source_tree.steps("kernel", recipe.load(kernel.RECIPE))
    yield task.step(
        "kernel:config",
        kernel.config,
        doc="merge kernel-config/*.config and check that every option survives",
        inputs=[work.patched, *fragments, BUILD_ROOT],
        outputs=[kernel.CONFIG],
        config=[path.name for path in fragments],
        args=[kernel.RECIPE],
        cacheable=True,
    )
    yield task.step(
        "kernel:build",
        kernel.compile_kernel,
        doc="compile and link the kernel",
        inputs=[work.patched, kernel.CONFIG, BUILD_ROOT],
        outputs=[VMLINUX, kernel.SYMBOLS, kernel.SOURCES],
        config=kernel.IDENTITY,
        args=[kernel.RECIPE],
        cacheable=True,
    )
