# SPDX-License-Identifier: Apache-2.0
"""The page docs/host-syscalls.md: a description of the policy, with the measured frequency of each call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from nabla.core import results
from nabla.core.paths import ROOT
from nabla.policy.compiler import compile_policy
from nabla.policy.header import environment
from nabla.policy.model import Policy, Rule

PAGE = ROOT / "docs" / "host-syscalls.md"
RATES = ROOT / "bench" / "results" / "host-syscalls.json"
_SIZES = {"RAM_SIZE": "guest memory", "WINDOW_SIZE": "the window", "LOW_SIZE": "the addresses below the kernel"}
_RANGES = {
    "RAM": "guest memory",
    "WINDOW": "the window",
    "LOW": "the addresses below the kernel",
    "TEXT": "the kernel's text",
    "VDSO": "the host's vDSO",
}


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A workload of a VM: its duration in seconds, and the number of each call during it."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    what: str
    seconds: Annotated[float, msgspec.Meta(gt=0)]
    calls: dict[str, int]

    def rate(self, name: str) -> str:
        """Return calls per second as text, with at most two decimals; `–` for none."""
        count = self.calls.get(name, 0)
        if count == 0:
            return "–"
        rate = count / self.seconds
        return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"

    def total(self) -> str:
        """Return the sum of all calls per second, as text."""
        rate = sum(self.calls.values()) / self.seconds
        return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The measurements of bench/host_calls.py, and their host."""

    cpu: str
    kernel: str
    loads: tuple[Load, ...]


def read_rates(path: Path = RATES) -> Rates:
    """Read the measured rates; raises `ConfigError` when the file is absent or malformed."""
    return results.read(path, Rates, "measure: python -m bench.host_calls --commit")


def describe(rule: Rule) -> str:
    """Return the description of a rule, for the page."""
    if rule.equals is not None:
        return f"the VM's {rule.equals.lower()}" if isinstance(rule.equals, str) else f"{rule.equals}"
    if rule.one_of is not None:
        return "one of " + ", ".join(f"{value:#x}" if value > 255 else str(value) for value in rule.one_of)
    if rule.at_most is not None:
        return f"0 … the size of {_SIZES[rule.at_most]}" if isinstance(rule.at_most, str) else f"0 … {rule.at_most}"
    if rule.within is not None:
        return f"an address in {_RANGES[rule.within]}"
    if rule.not_negative:
        return "0 … 2⁶³−1"
    if rule.member is not None:
        return f"in `{rule.member}`"
    return f"anything: {rule.any}"


def render(policy: Policy, rates: Rates) -> str:
    """Return the text of the page, which depends only on the policy, the rates and the template."""
    return (
        environment()
        .get_template("host-syscalls.md.j2")
        .render(
            policy=policy,
            rates=rates,
            describe=describe,
            ordinary=sum("base" in call.features for call in policy.calls),
            vdso=[call.name for call in policy.calls if "vdso" in call.origins],
            size=len(compile_policy(policy)),
        )
    )
