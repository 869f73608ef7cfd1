# SPDX-License-Identifier: Apache-2.0
"""The container image: `doit oci` writes it, `doit run:oci [-- COMMAND…]` runs a command in it by podman.

launcher, kernel, rootfs:alpine -> oci -> out/oci/layout, out/oci/nabla-linux.oci.tar -> run:oci
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nabla.core import log, process, version
from nabla.core.artifacts import (
    IMAGE_TOOLS,
    OCI_ARCHIVE,
    OCI_IMAGE,
    OCI_LAYOUT,
    REFERENCE_OCI,
    image_path,
)
from nabla.core.errors import CommandError
from nabla.core.paths import NABLA_RUN, VMLINUX
from nabla.engine import task
from nabla.engine.task import TaskDict, command, step
from nabla.images import oci, podman_run
from nabla.images.podman_run import Podman


def task_oci() -> TaskDict:
    """Write the container image."""
    return step(
        "oci",
        oci.make_image,
        doc="write launcher, kernel and Alpine as a container image: a folder and an archive",
        inputs=[NABLA_RUN, VMLINUX, image_path(OCI_IMAGE), IMAGE_TOOLS],
        outputs=[OCI_LAYOUT, OCI_ARCHIVE],
        args=[version.version()],
        cacheable=True,
        remote=False,
        repeated=True,
    )


def task_digests_oci() -> Iterator[TaskDict]:
    """Write the container image of the reference version."""
    yield task.ungrouped(
        task.step(
            "digests:oci",
            oci.make_reference,
            doc="write the container image of the reference version 0",
            inputs=[NABLA_RUN, VMLINUX, image_path(OCI_IMAGE), IMAGE_TOOLS],
            outputs=[REFERENCE_OCI],
            cacheable=True,
            remote=False,
            repeated=True,
        )
    )


def task_run_oci() -> TaskDict:
    """Run the container image."""
    return command(
        "run:oci",
        run_image,
        doc="run the container image by podman: a shell in its VM, or `-- COMMAND…`",
        after=["oci"],
        words="words",
        interactive=True,
    )


def run_image(words: list[str]) -> None:
    """Load the image and run a command in it on the caller's terminal.

    If podman's defaults do not work, podman runs again with fewer features and a temporary storage. Raises `HostError`
    without podman, `CommandError` if podman or the command fails.
    """
    podman_run.check()
    name = version.version()
    usual = Podman()
    complaint = _prepare(usual, name)
    if not complaint:
        _run(usual, name, words)
        return
    log.warn(f"podman cannot run containers with its defaults on this host: {complaint.splitlines()[-1]}")
    log.info("trying again without cgroups and network, with small limits, in separate namespaces")
    with tempfile.TemporaryDirectory(prefix="nabla-oci-") as folder:
        restricted = podman_run.restricted(Path(folder))
        restricted.load(OCI_ARCHIVE)
        _run(restricted, name, words)


def _prepare(podman: Podman, name: str) -> str:
    """Load the image and run it; return podman's error message, empty if it works."""
    try:
        podman.load(OCI_ARCHIVE)
    except CommandError as error:
        return error.hint or error.message
    complaint = podman.try_out(name)
    if complaint:
        process.run(podman.argv("rmi", oci.reference(name)), check=False)
    return complaint


def _run(podman: Podman, name: str, words: list[str]) -> None:
    sys.stdout.flush()
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    status = podman.run(name, words, "--interactive", *terminal)
    if words and status != 0:
        raise CommandError(f"the command ended with status {status}", "the lines above say why")
