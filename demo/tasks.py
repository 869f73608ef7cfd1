# SPDX-License-Identifier: Apache-2.0
"""See it work: `doit demo`, `doit demo -- COMMAND…`.

The machine's terminal is on one side; beside it grow the counters of the host's system calls, as the machine makes
them. Keys go to the machine, ^C and ^Z included; ctrl-] leaves. Nobody needs to be root.

kernel, launcher, rootfs:alpine -> demo

The options are those of `doit boot`. What is done inside is kept in out/run/demo, apart from what `doit boot` keeps:
an ephemeral machine would not ask the host to read or write its disk, which is half of what there is to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from demo import terminal
from nabla.commands import boot
from nabla.core import log
from nabla.core.errors import CommandError
from nabla.core.paths import IMAGES
from nabla.engine.task import TaskDict, guard

RUN = boot.RUN / "demo"
_SHOWN = 10  # lines of the machine's last words


def task_demo() -> Iterator[TaskDict]:
    """See a machine and its host calls, live."""
    # Before anything is built, which may take minutes.
    yield {
        "basename": "_demo:terminal",
        "doc": "look whether there is a terminal",
        "actions": [guard(terminal.check)],
        "uptodate": [False],
    }
    yield {
        "basename": "demo",
        "doc": "see it work: a machine's terminal beside its host calls, live; a shell, or `-- COMMAND…`",
        "actions": [guard(show)],
        "params": boot.PARAMS,
        "pos_arg": "words",
        "task_dep": ["_demo:terminal", "kernel", "launcher", f"rootfs:{boot.DEFAULT}"],
        "uptodate": [False],
        "verbosity": 2,
    }


def show(
    memory: str, ephemeral: bool, words: list[str], net: str, publish: Sequence[str], option: Sequence[str]
) -> None:
    """Run the demo on the caller's terminal until the machine ends or the user leaves.

    Raises `HostError` without a terminal, `CommandError` when the machine could not run or the command failed,
    `KeyboardInterrupt` when a signal ended the demo.
    """
    # Its libraries take a tenth of a second, which every start of doit would pay.
    from demo import watch

    terminal.check()
    image = IMAGES / f"{boot.DEFAULT}.ext3"
    if not ephemeral:
        image = boot.own_copy(image, RUN)
    argv = boot.command(image, memory, ephemeral, words, net, publish, option)
    outcome = watch.watch(argv, memory, stay=bool(words))
    if outcome.told:
        raise KeyboardInterrupt
    if outcome.left and outcome.status == 128 + 15:
        log.info(outcome.summary())
    elif outcome.status == boot.LAUNCHER_FAILED or (words and outcome.status != 0):
        hint = "\n".join(["its last words:", *(f"  {line}" for line in outcome.text[-_SHOWN:])])
        raise CommandError(f"the virtual machine ended with status {outcome.status}", hint)
    else:
        log.info(outcome.summary())
