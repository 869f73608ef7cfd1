# SPDX-License-Identifier: Apache-2.0
"""Kernel configuration fragments: read them, and check that what they ask for is what the kernel ended up with.

The kernel's tools drop an option silently when a dependency is missing; here that is an error which names the option,
the fragment that wanted it, and both values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nabla.core.errors import ConfigError
from nabla.core.paths import relative

_SET = re.compile(r"^(?P<name>CONFIG_\w+)=(?P<value>.*)$")
_UNSET = re.compile(r"^# (?P<name>CONFIG_\w+) is not set$")


@dataclass(frozen=True)
class Option:
    """One line of a fragment; `value` is as written, `n` for "is not set"."""

    name: str
    value: str
    where: Path
    line: int

    @property
    def place(self) -> str:
        """file:line for messages."""
        return f"{relative(self.where)}:{self.line}"


def parse(path: Path) -> list[Option]:
    """Return the options which a fragment (or a complete .config) sets. Raises `ConfigError` for any other line."""
    options = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if match := _SET.match(line):
            options.append(Option(match["name"], match["value"], path, number))
        elif match := _UNSET.match(line):
            options.append(Option(match["name"], "n", path, number))
        elif line.strip() and not line.startswith("#"):
            raise ConfigError(f"{relative(path)}:{number}: neither an option nor a comment: {line}")
    return options


def wanted(fragments: Sequence[Path]) -> list[Option]:
    """Return the options of all fragments. Raises `ConfigError` when two lines set the same option."""
    seen: dict[str, Option] = {}
    for fragment in fragments:
        for option in parse(fragment):
            if option.name in seen:
                raise ConfigError(
                    f"{option.place}: {option.name} is set in {seen[option.name].place} already",
                    "each option belongs into one fragment",
                )
            seen[option.name] = option
    return list(seen.values())


def check(fragments: Sequence[Path], result: Path) -> None:
    """Raise `ConfigError` for options of `fragments` that `result`, the kernel's own .config, does not have."""
    got = {option.name: option.value for option in parse(result)}
    lost = [option for option in wanted(fragments) if got.get(option.name, "n") != option.value]
    if not lost:
        return
    lines = [
        f"{option.place}: {option.name} wanted {option.value}, got {got.get(option.name, 'n (not in .config)')}"
        for option in lost
    ]
    first = lost[0]
    message = (
        f"{first.name} did not survive: {first.place} wants {first.value}, the kernel has {got.get(first.name, 'n')}"
    )
    if len(lost) > 1:
        message += f" ({len(lost)} such options)"
    raise ConfigError(message, "\n".join(["a dependency is missing, or another option forces the value:", *lines]))
