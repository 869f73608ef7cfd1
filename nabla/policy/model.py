# SPDX-License-Identifier: Apache-2.0
"""The rules for a VM's host calls: read and check launcher/policy.toml.

The comments in that file describe the format. nabla.policy.compiler compiles the seccomp filter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from nabla.core import toml
from nabla.core.errors import ConfigError
from nabla.core.paths import LAUNCHER_SRC
from verify import syscall_table

POLICY = LAUNCHER_SRC / "policy.toml"

# 64-bit values that the kernel sets in the filter before it installs it, in the order of its enum policy_constant.
RANGES = ("RAM", "WINDOW", "LOW", "TEXT", "VDSO")
SETS = ("STREAM_IN", "STREAM_OUT", "DISK_READ", "DISK_WRITE")
CONSTANTS = (
    *(f"{name}_{end}" for name in RANGES for end in ("START", "END")),
    "RAM_SIZE",
    "WINDOW_SIZE",
    "LOW_SIZE",
    "TIMER",
    *SETS,
    "FSGSBASE_MISSING",
    "DENY",
)
VALUES = ("TIMER",)
LIMITS = ("RAM_SIZE", "WINDOW_SIZE", "LOW_SIZE")
CONDITIONS = ("FSGSBASE_MISSING",)
ARGUMENTS = 6

Text = Annotated[str, msgspec.Meta(min_length=1)]
Reason = Annotated[str, msgspec.Meta(min_length=10)]
Origin = Literal["kernel", "vdso"]
# A value of a 64-bit register, signed or unsigned; TOML ends at 2^63-1.
Word = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Low = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The permitted values of one argument. Exactly one key is set (see launcher/policy.toml)."""

    equals: Word | str | None = None
    one_of: Annotated[tuple[Low, ...], msgspec.Meta(min_length=1)] | None = None
    at_most: Low | str | None = None
    not_negative: Literal[True] | None = None
    member: str | None = None
    within: str | None = None
    any: Reason | None = None

    @property
    def kind(self) -> str:
        """The key that is set."""
        return next(name for name in self.__struct_fields__ if getattr(self, name) is not None)


class Allow(msgspec.Struct, frozen=True, kw_only=True):
    """One permitted form of a call: all rules must hold. `rules`: one for each argument, in order."""

    what: Reason
    rules: tuple[Rule, ...]


class _CallTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Text
    features: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
    origins: Annotated[tuple[Origin, ...], msgspec.Meta(min_length=1)] = msgspec.field(default=("kernel",), name="from")
    file: Annotated[str, msgspec.Meta(pattern="^arch/[a-z0-9_/]+/nommu/[a-z0-9_]+\\.[cS]$")]
    arguments: Annotated[tuple[Text, ...], msgspec.Meta(max_length=ARGUMENTS)]
    reason: Reason
    allow: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(min_length=1)]


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A set of VMs. `constant`: the constant by which the filter checks whether this VM is one of them."""

    summary: Reason
    constant: str | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    default: Literal["kill"]
    feature: dict[str, Any]
    descriptors: dict[str, Reason]
    call: Annotated[tuple[_CallTable, ...], msgspec.Meta(min_length=1)]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One permitted system call of the host, in one or more forms."""

    name: str
    number: int
    features: tuple[str, ...]
    origins: tuple[Origin, ...]
    file: str
    arguments: tuple[str, ...]
    reason: str
    allow: tuple[Allow, ...]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The whole policy. Any other call kills the VM."""

    features: dict[str, Feature]
    descriptors: dict[str, str]
    calls: tuple[Call, ...]

    def conditions(self, call: Call) -> tuple[str, ...]:
        """Return the constants of which one must be set for a call; empty if no constant forbids it."""
        wanted = [self.features[name].constant for name in call.features]
        return tuple(name for name in wanted if name) if all(wanted) else ()


def load(path: Path = POLICY) -> Policy:
    """Read and check the policy. Raises `ConfigError` with file, line and key."""
    document = toml.read(path, ConfigError)
    parsed = document.convert(_File)
    features = {name: _feature(name, entry, document) for name, entry in parsed.feature.items()}
    for name, feature in features.items():
        if feature.constant not in (None, *CONDITIONS):
            document.fail(("feature", name, "constant"), _unknown("constant", feature.constant, CONDITIONS))
    for name in parsed.descriptors:
        if name not in SETS:
            document.fail(("descriptors", name), _unknown("set of descriptors", name, SETS))
    for name in SETS:
        if name not in parsed.descriptors:
            document.fail(("descriptors",), f"the set {name} has no description")
    calls = tuple(_call(parsed, number, document) for number in range(len(parsed.call)))
    _check_features(parsed, document)
    return Policy(features=features, descriptors=parsed.descriptors, calls=calls)


def _feature(name: str, entry: object, document: toml.Document) -> Feature:
    try:
        return msgspec.convert(entry, Feature)
    except msgspec.ValidationError as problem:
        document.fail(("feature", name), str(problem).partition(" - at ")[0])


def _call(parsed: _File, number: int, document: toml.Document) -> Call:
    table = parsed.call[number]
    where = ("call", number)
    if table.name not in syscall_table.numbers():
        document.fail((*where, "name"), f"x86-64 has no system call {table.name!r}")
    if table.name in (before.name for before in parsed.call[:number]):
        document.fail((*where, "name"), f"the call {table.name} is listed twice")
    for key in ("features", "origins", "arguments"):
        values = getattr(table, key)
        if len(set(values)) != len(values):
            document.fail((*where, "from" if key == "origins" else key), "an item is listed twice")
    for name in table.features:
        if name not in parsed.feature:
            document.fail((*where, "features"), _unknown("feature", name, tuple(parsed.feature)))
    if "what" in table.arguments:
        document.fail((*where, "arguments"), "`what` is the key of the description")
    return Call(
        name=table.name,
        number=syscall_table.numbers()[table.name],
        features=table.features,
        origins=table.origins,
        file=table.file,
        arguments=table.arguments,
        reason=table.reason,
        allow=tuple(
            _allow(table.arguments, entry, (*where, "allow", index), document)
            for index, entry in enumerate(table.allow)
        ),
    )


def _allow(
    arguments: tuple[str, ...], entry: dict[str, Any], where: tuple[str | int, ...], document: toml.Document
) -> Allow:
    for key in entry:
        if key not in (*arguments, "what"):
            document.fail((*where, key), "the call has no such argument")
    try:
        what = msgspec.convert(entry.get("what"), Reason)
    except msgspec.ValidationError:
        document.fail((*where, "what"), "describe the permitted calls")
    rules = []
    for name in arguments:
        if name not in entry:
            document.fail(where, f"the argument `{name}` has no rule", 'to permit any value: { any = "why" }')
        rules.append(_rule(entry[name], (*where, name), document))
    return Allow(what=what, rules=tuple(rules))


def _rule(entry: object, where: tuple[str | int, ...], document: toml.Document) -> Rule:
    if not isinstance(entry, dict) or len(entry) != 1:
        kinds = ", ".join(Rule.__struct_fields__)
        document.fail(where, "a rule is a table with one key", f"one of {kinds}")
    key, value = next(iter(entry.items()))
    if key not in Rule.__struct_fields__:
        document.fail((*where, key), _unknown("kind of rule", key, Rule.__struct_fields__))
    try:
        rule = msgspec.convert(entry, Rule)
    except msgspec.ValidationError as problem:
        document.fail((*where, key), f"{value!r} is invalid: {str(problem).partition(' - at ')[0]}")
    for what, name, known in (
        ("value", rule.equals, VALUES),
        ("limit", rule.at_most, LIMITS),
        ("set of descriptors", rule.member, SETS),
        ("range", rule.within, RANGES),
    ):
        if isinstance(name, str) and name not in known:
            document.fail((*where, key), _unknown(what, name, known))
    return rule


def _check_features(parsed: _File, document: toml.Document) -> None:
    used = {name for call in parsed.call for name in call.features}
    for name in parsed.feature:
        if name not in used:
            document.fail(("feature", name), "no call belongs to this feature")


def _unknown(what: str, name: object, known: tuple[str, ...]) -> str:
    return f"there is no {what} {name!r}; there are {', '.join(known)}"
