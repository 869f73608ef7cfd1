# SPDX-License-Identifier: Apache-2.0
"""The build, as doit sees it: tasks come from the modules `tasks` of all areas, such as nabla/<area>/tasks.py.

    doit            build all artifacts          doit list        the tasks, one line each
    doit boot       start the virtual machine    doit test        tests and linters
    doit -n 2       two tasks at a time          doit help        doit's own commands, explain, clean

Without an installed doit use ./doit.sh with the same arguments.
"""

import os

from doit import get_var

from nabla.engine.discovery import discover
from nabla.engine.reporter import Reporter
from nabla.engine.signals import install
from nabla.engine.state import Sha256Checker

DOIT_CONFIG = {
    "default_tasks": ["all"],
    "reporter": Reporter,
    "check_file_uptodate": Sha256Checker,
    "verbosity": 2,
}

# `doit offline=1 …`: as `./doit.sh --offline …`; `doit without=debian …`: as if a provider had no files;
# `doit fresh=1 …`: reuse no result from the cache; `doit shell=1 …`: open a shell where a package's build fails.
# nabla.sources.fetch, nabla.engine.result_cache, nabla.sandbox.bwrap and child processes read the environment.
for name in ("fresh", "offline", "shell", "without"):
    if get_var(name):
        os.environ[f"NABLA_{name.upper()}"] = str(get_var(name))


install()
globals().update(discover())
