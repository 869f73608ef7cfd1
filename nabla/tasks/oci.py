# SPDX-License-Identifier: Apache-2.0
"""The container image: `doit oci` makes it, `doit run:oci [-- COMMAND…]` runs a command in it by podman.

launcher, kernel, rootfs:alpine -> oci -> out/oci/layout, out/oci/nabla-linux.oci.tar -> run:oci
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from nabla import apk, log, oci, oci_podman, run, sandbox, version
from nabla.errors import CommandError
from nabla.oci_podman import Podman
from nabla.paths import NABLA_RUN, VMLINUX
from nabla.tasklib import Job, TaskDict, Tree, guard, step
from nabla.tasks import rootfs

IMAGE = "alpine"
LAYOUT = Tree(oci.LAYOUT)


def task_oci() -> TaskDict:
    """Write the container image."""
    return step(
        "oci",
        make_image,
        doc="write launcher, kernel and Alpine as a container image, as folder and as archive",
        inputs=[NABLA_RUN, VMLINUX, rootfs.image_path(IMAGE), rootfs.TOOLS],
        outputs=[LAYOUT, oci.ARCHIVE],
        after=["launcher", "kernel", f"rootfs:{IMAGE}", "rootfs:tools"],
        args=[version.version()],
        code=[oci, apk, sandbox],
    )


def make_image(job: Job, version: str) -> None:
    """Write the layout and the same as one file."""
    layout = job.out(LAYOUT)
    oci.make(version, NABLA_RUN, VMLINUX, rootfs.image_path(IMAGE), layout, tools=rootfs.TOOLS.path)
    oci.archive(layout, job.out(oci.ARCHIVE))


def task_run_oci() -> TaskDict:
    """Run the container image."""
    return {
        "basename": "run:oci",
        "doc": "run the container image by podman: a shell in its machine, or `-- COMMAND…`",
        "actions": [guard(run_image)],
        "pos_arg": "words",
        "task_dep": ["oci"],
        "uptodate": [False],
        "verbosity": 2,
    }


def run_image(words: list[str]) -> None:
    """Load the image and run a command in it on the caller's terminal.

    Where podman's defaults do not work, it is called again with fewer wishes, and what it loads is forgotten.
    Raises `HostError` without podman, `CommandError` when nothing helps or the command fails.
    """
    oci_podman.check()
    name = version.version()
    usual = Podman()
    complaint = _prepare(usual, name)
    if not complaint:
        _run(usual, name, words)
        return
    log.warn(f"podman cannot run containers here as it does by default: {complaint.splitlines()[-1]}")
    log.info("again without cgroups and network, with small limits, in namespaces of its own")
    with tempfile.TemporaryDirectory(prefix="nabla-oci-") as folder:
        modest = oci_podman.restricted(Path(folder))
        modest.load(oci.ARCHIVE)
        _run(modest, name, words)


def _prepare(podman: Podman, name: str) -> str:
    """Load the image and try it; return what stands against it, nothing if it works."""
    try:
        podman.load(oci.ARCHIVE)
    except CommandError as error:
        return error.hint or error.message
    complaint = podman.try_out(name)
    if complaint:
        run.run(podman.argv("rmi", oci.reference(name)), check=False)
    return complaint


def _run(podman: Podman, name: str, words: list[str]) -> None:
    sys.stdout.flush()
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    status = podman.run(name, words, "--interactive", *terminal)
    if words and status != 0:
        raise CommandError(f"the command ended with status {status}", "the lines above say why")
