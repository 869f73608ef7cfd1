# SPDX-License-Identifier: Apache-2.0
"""The command that rebuilds another person's release (docs/rebuilds.md)."""

from __future__ import annotations

from nabla.commands.attest import attest
from nabla.engine import task
from nabla.engine.task import TaskDict


def task_attest() -> TaskDict:
    """Build a release again and sign the result."""
    return task.command(
        "attest",
        attest,
        doc="build the release in a folder again, compare, and sign a statement: doit attest [--signer NAME] RELEASE",
        params=[
            {"name": "signer", "long": "signer", "type": str, "default": "", "help": "your name in files of signers"},
            {"name": "output", "long": "output", "type": str, "default": "", "help": "folder of the statement"},
        ],
        words="folders",
        interactive=True,
    )
