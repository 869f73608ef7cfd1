# SPDX-License-Identifier: Apache-2.0
"""Render the policy's filter as the C header of the kernel, arch/um/nommu/policy.h."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nabla.policy.compiler import compile_policy
from nabla.policy.model import CONSTANTS, Policy

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).with_name("templates")


def environment(folder: Path = TEMPLATES) -> jinja2.Environment:
    """Return the environment of the templates in a folder; an undefined name is an error."""
    # Imported when needed: every doit lists the tasks.
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(policy: Policy) -> str:
    """Return the text of policy.h."""
    lines = compile_policy(policy)
    vdso = [call.name for call in policy.calls if "vdso" in call.origins]
    return (
        environment()
        .get_template("policy.h.j2")
        .render(
            calls=policy.calls,
            constants=CONSTANTS,
            fixups=[(index, line.fixup) for index, line in enumerate(lines) if line.fixup],
            lines=lines,
            vdso=" and ".join(vdso) or "nothing",
        )
    )
