# SPDX-License-Identifier: Apache-2.0
"""doit matrix FILE -> out/matrix/index.html"""

from __future__ import annotations

from nabla.engine.task import TaskDict, command
from nabla.matrix import build


def task_matrix() -> TaskDict:
    """Build variants."""
    return command(
        "matrix",
        build.make,
        doc="build and test the variants of a file, and write one page about them: doit matrix matrices/kernel.toml",
        params=[
            {"name": "farm", "long": "farm", "type": str, "default": "", "help": "address of a farm that builds"},
            {"name": "parallel", "long": "parallel", "type": int, "default": 1, "help": "variants at a time (1)"},
            {"name": "workers", "long": "workers", "type": int, "default": 2, "help": "steps of each at a time (2)"},
        ],
        words="words",
        interactive=True,
    )
