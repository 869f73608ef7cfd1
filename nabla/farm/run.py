# SPDX-License-Identifier: Apache-2.0
"""doit's command `run` with the option --farm."""

from __future__ import annotations

import functools
import sys
from typing import Any, ClassVar

from nabla.core.errors import EXIT_USER, NablaError
from nabla.engine import commands, order
from nabla.engine.remote import elsewhere
from nabla.sandbox import bwrap

_TASKS = 8  # tasks at a time, without -n
_OPTION = {
    "name": "farm",
    "long": "farm",
    "default": "",
    "type": str,
    "help": "run steps on the workers of a farm, such as tls://host:8786; with -n N, N tasks at a time",
}


class Run(commands.Run):
    """doit's command `run` with the lock of the checkout; with --farm, steps run on other machines."""

    cmd_options: ClassVar[Any] = (*commands.Run.cmd_options, _OPTION)

    def execute(self, params: Any, args: list[str]) -> Any:
        """Run tasks."""
        self._farm = str(params["farm"] or "")
        if self._farm:
            # Tasks wait in threads of one process, which has the connection.
            params["par_type"] = "thread"
            params["num_process"] = params["num_process"] or _TASKS
        return super().execute(params, args)

    # doit inspects the parameters of this method.
    @functools.wraps(commands.Run._execute)
    def _execute(self, **options: Any) -> Any:
        if not self._farm:
            return super()._execute(**options)
        # Imported when needed: its packages are optional.
        from nabla.farm import client, settings

        try:
            settings.need_packages()
            settings.configure()
            selected: list[str] = vars(self)["sel_tasks"] or []
            with client.Farm(self._farm, order.priorities(self.task_list, selected), bwrap.jobs()) as farm:
                elsewhere.use(farm)
                try:
                    return super()._execute(**options)
                finally:
                    elsewhere.use(None)
        except NablaError as error:
            print(error.render(), file=sys.stderr)
            return EXIT_USER
