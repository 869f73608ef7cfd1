# SPDX-License-Identifier: Apache-2.0
"""Compile the policy to a classic BPF program for the host's seccomp.

Some operands are known only when the kernel starts (addresses of its memory, descriptors of disks). The program lists
these instructions as fixups, and the kernel sets their values. Comparisons are ordered by frequency: first the kernel's
text, then guest memory, then the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nabla.core.errors import ConfigError
from nabla.policy.model import CONSTANTS, Call, Policy, Rule
from verify import syscall_table

# include/uapi/linux/bpf_common.h, seccomp.h, audit.h: names in the C header, and their values.
OPERATIONS = {
    "BPF_LD | BPF_W | BPF_ABS": 0x20,
    "BPF_LD | BPF_IMM": 0x00,
    "BPF_ALU | BPF_LSH | BPF_X": 0x6C,
    "BPF_JMP | BPF_JA": 0x05,
    "BPF_JMP | BPF_JEQ | BPF_K": 0x15,
    "BPF_JMP | BPF_JGT | BPF_K": 0x25,
    "BPF_JMP | BPF_JGE | BPF_K": 0x35,
    "BPF_JMP | BPF_JSET | BPF_K": 0x45,
    "BPF_RET | BPF_K": 0x06,
    "BPF_MISC | BPF_TAX": 0x07,
}
_LOAD, _IMMEDIATE, _SHIFT, _GOTO = "BPF_LD | BPF_W | BPF_ABS", "BPF_LD | BPF_IMM", "BPF_ALU | BPF_LSH | BPF_X", "JA"
_RETURN, _TAX = "BPF_RET | BPF_K", "BPF_MISC | BPF_TAX"
_SYMBOLS = {"AUDIT_ARCH_X86_64": 0xC000003E, "SECCOMP_RET_ALLOW": 0x7FFF0000, "SECCOMP_RET_TRAP": 0x00030000}

NR, ARCH, IP, ARGS = 0, 4, 8, 16
LOW, HIGH = 0, 1
# The host emulates three calls of old programs at this address, which is part of the ABI of x86-64.
VSYSCALL, VSYSCALL_SIZE = 0xFFFFFFFFFF600000, 0x1000
FARTHEST = 255  # a conditional jump has 8 bits


@dataclass(frozen=True)
class Fixup:
    """An operand that the kernel sets: one half of a constant."""

    constant: str
    word: int


@dataclass(frozen=True)
class Template:
    """One instruction. `k`: number, name of a C constant, or fixup. `jt`, `jf`: labels, None: the next one."""

    operation: str
    k: int | str | Fixup = 0
    jt: str | None = None
    jf: str | None = None
    remark: str = ""


@dataclass(frozen=True)
class Instruction:
    """One assembled instruction: as numbers, as C, and its fixup, if any (then k is 0)."""

    code: int
    jt: int
    jf: int
    k: int
    text: str
    fixup: Fixup | None
    remark: str


Item = Template | str  # a string is a label


def compile_policy(policy: Policy) -> list[Instruction]:
    """Return the program of a policy. Raises `ConfigError` if it is too long for the host."""
    lines = assemble(list(_program(policy)))
    if len(lines) > 4096:
        raise ConfigError(f"the filter has {len(lines)} instructions, the host accepts 4096")
    return lines


def fill(lines: Sequence[Instruction], constants: dict[str, int]) -> list[tuple[int, int, int, int]]:
    """Return the program (code, jt, jf, k) with the constants of one VM, as its kernel sets them."""
    assert set(constants) == set(CONSTANTS), "all constants and no others"
    filled = []
    for line in lines:
        k = line.k
        if line.fixup:
            k = constants[line.fixup.constant] >> 32 * line.fixup.word & 0xFFFFFFFF
        filled.append((line.code, line.jt, line.jf, k))
    return filled


def _program(policy: Policy) -> Iterator[Item]:
    yield from _range("TEXT", IP, "ip", inside="kernel", outside="not kernel")
    yield "not kernel"
    yield from _range("RAM", IP, "ip", inside="trap", outside="not RAM")
    yield "not RAM"
    yield from _range("WINDOW", IP, "ip", inside="trap", outside="not window")
    yield "not window"
    yield from _range("LOW", IP, "ip", inside="trap", outside="not guest")
    yield "not guest"
    yield from _range("VDSO", IP, "ip", inside="vdso", outside="not vdso")
    yield "not vdso"
    yield Template(_LOAD, IP + 4, remark="in the host's vsyscall page ?")
    yield _if("JEQ", VSYSCALL >> 32, jf="deny")
    yield Template(_LOAD, IP)
    yield _if("JGE", (VSYSCALL + VSYSCALL_SIZE) & 0xFFFFFFFF, jt="deny")
    yield _if("JGE", VSYSCALL & 0xFFFFFFFF, jf="deny")
    yield "trap"
    yield Template(_RETURN, "SECCOMP_RET_TRAP", remark="the guest kernel serves it")
    for origin in ("kernel", "vdso"):
        yield origin
        yield Template(_LOAD, ARCH, remark=f"from the {origin}")
        yield _if("JEQ", "AUDIT_ARCH_X86_64", jf="deny")
        yield Template(_LOAD, NR)
        calls = [call for call in policy.calls if origin in call.origins]
        for call in calls:
            yield _if("JEQ", f"__NR_{call.name}", jt=call.name, jf="deny" if call is calls[-1] else None)
        if not calls:
            yield _goto("deny")
    for call in policy.calls:
        yield call.name
        yield from _call(policy, call)
    yield "deny"
    yield Template(_RETURN, Fixup("DENY", LOW))


def _range(name: str, offset: int, what: str, *, inside: str, outside: str) -> Iterator[Item]:
    """START <= the 64-bit number at `offset` < END. `what`: name of the number."""
    start, end = f"{name}_START", f"{name}_END"
    label = f"{what} {name}"
    yield Template(_LOAD, offset + 4, remark=f"{start} <= {what} < {end} ?")
    yield _if("JEQ", Fixup(start, HIGH), jt=f"{label} low start")
    yield _if("JGT", Fixup(start, HIGH), jt=f"{label} end", jf=outside)
    yield f"{label} low start"
    yield Template(_LOAD, offset)
    yield _if("JGE", Fixup(start, LOW), jf=outside)
    yield Template(_LOAD, offset + 4)
    yield f"{label} end"
    yield _if("JEQ", Fixup(end, HIGH), jt=f"{label} low end")
    yield _if("JGT", Fixup(end, HIGH), jt=outside, jf=inside)
    yield f"{label} low end"
    yield Template(_LOAD, offset)
    yield _if("JGE", Fixup(end, LOW), jt=outside, jf=inside)


def _call(policy: Policy, call: Call) -> Iterator[Item]:
    conditions = policy.conditions(call)
    for name in conditions:
        yield Template(_IMMEDIATE, Fixup(name, LOW), remark=f"{call.name}: {name}")
        last = name == conditions[-1]
        yield _if("JEQ", 0, jt="deny" if last else None, jf=None if last else f"{call.name} rules")
    yield f"{call.name} rules"
    # Rules that all alternatives share are checked once.
    common = [
        index
        for index in range(len(call.arguments))
        if all(each.rules[index] == call.allow[0].rules[index] for each in call.allow)
    ]
    for index in common:
        yield from _rule(call, index, call.allow[0].rules[index], f"{call.name} all", "deny")
    for number, allow in enumerate(call.allow):
        label = f"{call.name} {number}"
        failed = "deny" if allow is call.allow[-1] else f"{call.name} {number + 1}"
        yield label
        for index, rule in enumerate(allow.rules):
            if index not in common:
                yield from _rule(call, index, rule, label, failed)
        yield Template(_RETURN, "SECCOMP_RET_ALLOW", remark=f"{call.name}: {allow.what.partition(':')[0]}")


def _rule(call: Call, index: int, rule: Rule, label: str, failed: str) -> Iterator[Item]:
    """Fall through if the rule holds, else jump to `failed`; a register with too many bits fails, too."""
    low, high = ARGS + 8 * index, ARGS + 8 * index + 4
    passed = f"{label} {index} passed"
    name = f"{call.name}: {call.arguments[index]}"
    if rule.equals is not None:
        parts: tuple[int | Fixup, int | Fixup]
        if isinstance(rule.equals, str):
            parts, text = (Fixup(rule.equals, LOW), Fixup(rule.equals, HIGH)), rule.equals
        else:
            parts, text = (rule.equals & 0xFFFFFFFF, rule.equals >> 32 & 0xFFFFFFFF), str(rule.equals)
        yield Template(_LOAD, low, remark=f"{name} == {text}")
        yield _if("JEQ", parts[LOW], jf=failed)
        yield Template(_LOAD, high)
        yield _if("JEQ", parts[HIGH], jf=failed)
    elif rule.not_negative:
        yield Template(_LOAD, high, remark=f"{name} >= 0")
        yield _if("JSET", 0x80000000, jt=failed)
    elif rule.within is not None:
        yield from _range(rule.within, low, name, inside=passed, outside=failed)
    elif isinstance(rule.at_most, str):
        yield Template(_LOAD, high, remark=f"{name} {_words(rule)}")
        yield _if("JGT", Fixup(rule.at_most, HIGH), jt=failed)
        yield _if("JEQ", Fixup(rule.at_most, HIGH), jf=passed)
        yield Template(_LOAD, low)
        yield _if("JGT", Fixup(rule.at_most, LOW), jt=failed)
    elif rule.any is None:
        yield Template(_LOAD, high, remark=f"{name} {_words(rule)}")
        yield _if("JEQ", 0, jf=failed)
        yield Template(_LOAD, low)
        if rule.at_most is not None:
            yield _if("JGT", rule.at_most, jt=failed)
        elif rule.one_of is not None:
            for value in rule.one_of:
                yield _if("JEQ", value, jt=passed, jf=failed if value == rule.one_of[-1] else None)
        elif rule.member is not None:
            yield _if("JGE", 32, jt=failed)
            yield Template(_TAX)
            yield Template(_IMMEDIATE, 1)
            yield Template(_SHIFT)
            yield _if("JSET", Fixup(rule.member, LOW), jf=failed)
    yield passed


def _words(rule: Rule) -> str:
    if rule.at_most is not None:
        return f"<= {rule.at_most}"
    if rule.one_of is not None:
        return f"of {', '.join(f'{value:#x}' for value in rule.one_of)}"
    return f"in {rule.member}"


def _if(test: str, k: int | str | Fixup, *, jt: str | None = None, jf: str | None = None) -> Template:
    return Template(f"BPF_JMP | BPF_{test} | BPF_K", k, jt, jf)


def _goto(label: str) -> Template:
    return Template("BPF_JMP | BPF_JA", 0, label)


def assemble(items: Sequence[Item]) -> list[Instruction]:
    """Resolve labels. A conditional jump that is too far gets a plain jump after it (one more instruction)."""
    work: list[Item] = list(items)
    count = 0
    while True:
        operations, labels = _resolve(work)
        far = next((op for at, op in enumerate(operations) if _too_far(op, at, labels)), None)
        if far is None:
            return [_instruction(op, at, labels) for at, op in enumerate(operations)]
        count += 1
        at = next(number for number, item in enumerate(work) if item is far)
        work[at : at + 1] = _with_islands(far, f"island {count}")


def _with_islands(far: Template, name: str) -> list[Item]:
    """Replace both jumps of a far comparison by jumps to plain jumps after it."""
    yes, no, behind = f"{name} yes", f"{name} no", f"{name} behind"
    items: list[Item] = [replace(far, jt=yes if far.jt else behind, jf=no if far.jf else behind)]
    if far.jt:
        items += [yes, _goto(far.jt)]
    if far.jf:
        items += [no, _goto(far.jf)]
    return [*items, behind]


def _resolve(work: Sequence[Item]) -> tuple[list[Template], dict[str, int]]:
    operations: list[Template] = []
    labels: dict[str, int] = {}
    for item in work:
        if isinstance(item, str):
            assert item not in labels, f"two labels have the name {item}"
            labels[item] = len(operations)
        else:
            operations.append(item)
    return operations, labels


def _distances(op: Template, at: int, labels: dict[str, int]) -> tuple[int, int]:
    jt, jf = (labels[label] - at - 1 if label else 0 for label in (op.jt, op.jf))
    assert jt >= 0 and jf >= 0, "jumps lead forward"
    return jt, jf


def _too_far(op: Template, at: int, labels: dict[str, int]) -> bool:
    return op.operation != "BPF_JMP | BPF_JA" and max(_distances(op, at, labels)) > FARTHEST


def _instruction(op: Template, at: int, labels: dict[str, int]) -> Instruction:
    code = OPERATIONS[op.operation]
    jt, jf = _distances(op, at, labels)
    fixup = op.k if isinstance(op.k, Fixup) else None
    k, shown = _operand(op.k)
    if op.operation == "BPF_JMP | BPF_JA":
        return Instruction(code, 0, 0, jt, f"BPF_STMT({op.operation}, {jt})", None, op.remark)
    if code & 7 == 5:
        return Instruction(code, jt, jf, k, f"BPF_JUMP({op.operation}, {shown}, {jt}, {jf})", fixup, op.remark)
    return Instruction(code, 0, 0, k, f"BPF_STMT({op.operation}, {shown})", fixup, op.remark)


def _operand(k: int | str | Fixup) -> tuple[int, str]:
    if isinstance(k, Fixup):
        return 0, "0"
    if isinstance(k, int):
        return k, f"{k:#x}" if k > 1024 else str(k)
    return _symbol(k), k


def _symbol(name: str) -> int:
    return _SYMBOLS[name] if name in _SYMBOLS else syscall_table.numbers()[name.removeprefix("__NR_")]
