# SPDX-License-Identifier: Apache-2.0
"""Builds on several machines (docs/farm.md), and the trace of any build.

farm:install, farm:key, farm:scheduler, farm:worker, farm:status, farm:run; trace
doit -n N --farm ADDRESS TASK…
"""

from __future__ import annotations

from collections.abc import Iterator

from nabla.engine import task
from nabla.engine.task import TaskDict, command
from nabla.farm import settings, setup, trace


def task_farm() -> Iterator[TaskDict]:
    """Run a part of a farm."""
    yield task.step(
        "farm:install",
        setup.install,
        doc="install the farm's packages, requirements-farm.txt, into the virtual environment",
        inputs=[settings.REQUIREMENTS],
        checks=[setup.installed],
    )
    yield command("farm:key", setup.create_keys, doc="create the farm's authority and the keys of all roles")
    yield command(
        "farm:scheduler",
        setup.scheduler,
        doc="run a scheduler in the foreground",
        params=[
            {"name": "host", "long": "host", "type": str, "default": "", "help": "address to listen on; default: all"},
            {"name": "port", "long": "port", "type": int, "default": settings.PORT, "help": "port to listen on"},
        ],
        interactive=True,
    )
    yield command(
        "farm:worker",
        setup.worker,
        doc="run a worker in the foreground: doit farm:worker tls://HOST:PORT",
        params=[
            {"name": "slots", "long": "slots", "type": int, "default": 1, "help": "steps at a time"},
            {"name": "name", "long": "name", "type": str, "default": "", "help": "name in messages; default: the host"},
        ],
        words="words",
        interactive=True,
    )
    yield command(
        "farm:status",
        setup.status,
        doc="list the workers of a farm and what they run: doit farm:status tls://HOST:PORT",
        words="words",
        interactive=True,
    )
    yield command(
        "farm:run",
        setup.run_tasks,
        doc="run whole tasks on workers, such as check:busybox or fuzz:calls: doit farm:run ADDRESS TASK…",
        words="words",
        interactive=True,
    )


def task_trace() -> TaskDict:
    """Write a trace."""
    return command(
        "trace",
        trace.write,
        doc="write what ran where and when: a page, out/trace.html, and a trace for Perfetto, out/trace.json",
        params=[
            {"name": "output", "short": "o", "long": "output", "type": str, "default": "", "help": "another file"},
            {"name": "runs", "long": "runs", "type": int, "default": 1, "help": "the last RUNS runs of doit (1)"},
        ],
    )


def tested_tasks() -> Iterator[str]:
    """Yield what the tests of the farm need."""
    yield "farm:install"
