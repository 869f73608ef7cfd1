# SPDX-License-Identifier: Apache-2.0
"""Watch a VM: `doit demo`, `doit demo -- COMMAND…`.

The VM's terminal is on one side; the other side shows live counters of its host calls. Keys go to the VM, including ^C
and ^Z; ctrl-] leaves. The demo does not need root.

kernel, launcher, rootfs:alpine -> demo

The options are those of `doit boot`. Changes stay in out/run/demo, separate from those of `doit boot`: an ephemeral VM
would make no host calls for its disk, which are half of the show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from demo import terminal
from nabla.commands import boot
from nabla.core import log
from nabla.core.errors import CommandError
from nabla.core.paths import IMAGES
from nabla.engine.task import TaskDict, command

RUN = boot.RUN / "demo"
_SHOWN = 10  # lines of the VM's last output


def task_demo() -> Iterator[TaskDict]:
    """Show a VM and its host calls, live."""
    # Checked before the build, which may take minutes.
    yield command("_demo:terminal", terminal.check, doc="check that there is a terminal")
    yield command(
        "demo",
        show,
        doc="show a VM's terminal beside its host calls, live: a shell, or `-- COMMAND…`",
        after=["_demo:terminal", "kernel", "launcher", f"rootfs:{boot.DEFAULT}"],
        params=boot.PARAMS,
        words="words",
        interactive=True,
    )


def show(
    memory: str, ephemeral: bool, words: list[str], net: str, publish: Sequence[str], option: Sequence[str]
) -> None:
    """Run the demo on the caller's terminal until the VM ends or the user leaves.

    Raises `HostError` without a terminal, `CommandError` when the VM could not run or the command failed,
    `KeyboardInterrupt` when a signal ended the demo.
    """
    # Importing its libraries takes a tenth of a second, which would delay every start of doit.
    from demo import watch

    terminal.check()
    image = IMAGES / f"{boot.DEFAULT}.ext3"
    if not ephemeral:
        image = boot.writable_copy(image, RUN)
    argv = boot.command(image, memory, ephemeral, words, net, publish, option)
    outcome = watch.watch(argv, memory, stay=bool(words))
    if outcome.end_signal:
        raise KeyboardInterrupt
    if outcome.left and outcome.status == 128 + 15:
        log.info(outcome.summary())
    elif outcome.status == boot.LAUNCHER_FAILED or (words and outcome.status != 0):
        hint = "\n".join(["its last words:", *(f"  {line}" for line in outcome.text[-_SHOWN:])])
        raise CommandError(f"the VM ended with status {outcome.status}", hint)
    else:
        log.info(outcome.summary())
