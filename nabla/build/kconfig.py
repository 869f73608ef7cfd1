# SPDX-License-Identifier: Apache-2.0
"""Read kernel configuration fragments, and check that the kernel's configuration contains their options.

The kernel's tools silently drop an option whose dependency is missing. Here that is an error, which names the option,
its fragment, and both values.
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
    """One line of a fragment. `value`: as written, `n` for "is not set"."""

    name: str
    value: str
    path: Path
    line: int

    @property
    def location(self) -> str:
        """file:line, for messages."""
        return f"{relative(self.path)}:{self.line}"


def parse(path: Path) -> list[Option]:
    """Return the options that a fragment or a complete .config sets. Raises `ConfigError` for other lines."""
    options = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if match := _SET.match(line):
            options.append(Option(match["name"], match["value"], path, number))
        elif match := _UNSET.match(line):
            options.append(Option(match["name"], "n", path, number))
        elif line.strip() and not line.startswith("#"):
            raise ConfigError(f"{relative(path)}:{number}: neither an option nor a comment: {line}")
    return options


def merged(fragments: Sequence[Path]) -> list[Option]:
    """Return the options of all fragments. Raises `ConfigError` if two lines set the same option."""
    seen: dict[str, Option] = {}
    for fragment in fragments:
        for option in parse(fragment):
            if option.name in seen:
                raise ConfigError(
                    f"{option.location}: {option.name} is set in {seen[option.name].location} already",
                    "each option belongs in one fragment",
                )
            seen[option.name] = option
    return list(seen.values())


def check(fragments: Sequence[Path], result: Path) -> None:
    """Raise `ConfigError` for options of `fragments` that `result`, the kernel's .config, lacks."""
    got = {option.name: option.value for option in parse(result)}
    lost = [option for option in merged(fragments) if got.get(option.name, "n") != option.value]
    if not lost:
        return
    lines = [
        f"{option.location}: {option.name} wanted {option.value}, got {got.get(option.name, 'n (not in .config)')}"
        for option in lost
    ]
    first = lost[0]
    message = (
        f"{first.name} did not survive: {first.location} wants {first.value}, the kernel has {got.get(first.name, 'n')}"
    )
    if len(lost) > 1:
        message += f" ({len(lost)} such options)"
    raise ConfigError(message, "\n".join(["a dependency is missing, or another option forces the value:", *lines]))
