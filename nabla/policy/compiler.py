# SPDX-License-Identifier: Apache-2.0
"""The policy as a program of classic BPF for the host's seccomp, and as the C header that carries it into the kernel.

Some operands are known only when the kernel starts (where its memory lies, which descriptors are disks): these
instructions are listed beside the program, and the kernel puts the values in. The order of the questions is that of
how often they are asked: first the kernel's own text, then guest memory, then the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nabla.core.errors import ConfigError
from nabla.policy.model import CONSTANTS, Call, Policy, Rule
from verify import syscall_table

# include/uapi/linux/bpf_common.h, seccomp.h, audit.h: names as they stand in the header, and their values.
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
# Where the host emulates three calls of old programs; the address is part of x86-64's interface.
VSYSCALL, VSYSCALL_SIZE = 0xFFFFFFFFFF600000, 0x1000
FARTHEST = 255  # a conditional jump has 8 bits


@dataclass(frozen=True)
class Hole:
    """An operand that the kernel fills in: half a constant."""

    constant: str
    word: int


@dataclass(frozen=True)
class Operation:
    """One instruction. `k`: number, name of a C constant, or a hole. `jt`, `jf`: labels, None for the next one."""

    operation: str
    k: int | str | Hole = 0
    jt: str | None = None
    jf: str | None = None
    remark: str = ""


@dataclass(frozen=True)
class Line:
    """One finished instruction: as numbers, as C, and the hole in it, if any (k is 0 then)."""

    code: int
    jt: int
    jf: int
    k: int
    text: str
    hole: Hole | None
    remark: str


Item = Operation | str  # a string is a label


def compile_policy(policy: Policy) -> list[Line]:
    """Return the program for a policy. Raises `ConfigError` when it becomes too long for the host."""
    lines = assemble(list(_program(policy)))
    if len(lines) > 4096:
        raise ConfigError(f"the filter has {len(lines)} instructions, the host takes 4096")
    return lines


def fill(lines: Sequence[Line], constants: dict[str, int]) -> list[tuple[int, int, int, int]]:
    """Return the program (code, jt, jf, k) with the constants of one machine put in, as its kernel does it."""
    assert set(constants) == set(CONSTANTS), "all constants and no others"
    filled = []
    for line in lines:
        k = line.k
        if line.hole:
            k = constants[line.hole.constant] >> 32 * line.hole.word & 0xFFFFFFFF
        filled.append((line.code, line.jt, line.jf, k))
    return filled


def _program(policy: Policy) -> Iterator[Item]:
    yield from _range("TEXT", IP, "ip", inside="kernel", outside="not kernel")
    yield "not kernel"
    yield from _range("RAM", IP, "ip", inside="trap", outside="not guest")
    yield "not guest"
    yield from _range("VDSO", IP, "ip", inside="vdso", outside="not vdso")
    yield "not vdso"
    yield Operation(_LOAD, IP + 4, remark="in the host's vsyscall page ?")
    yield _if("JEQ", VSYSCALL >> 32, jf="deny")
    yield Operation(_LOAD, IP)
    yield _if("JGE", (VSYSCALL + VSYSCALL_SIZE) & 0xFFFFFFFF, jt="deny")
    yield _if("JGE", VSYSCALL & 0xFFFFFFFF, jf="deny")
    yield "trap"
    yield Operation(_RETURN, "SECCOMP_RET_TRAP", remark="the guest kernel serves it, whatever it is")
    for origin in ("kernel", "vdso"):
        yield origin
        yield Operation(_LOAD, ARCH, remark=f"from the {origin}")
        yield _if("JEQ", "AUDIT_ARCH_X86_64", jf="deny")
        yield Operation(_LOAD, NR)
        calls = [call for call in policy.calls if origin in call.origins]
        for call in calls:
            yield _if("JEQ", f"__NR_{call.name}", jt=call.name, jf="deny" if call is calls[-1] else None)
        if not calls:
            yield _goto("deny")
    for call in policy.calls:
        yield call.name
        yield from _call(policy, call)
    yield "deny"
    yield Operation(_RETURN, Hole("DENY", LOW))


def _range(name: str, place: int, what: str, *, inside: str, outside: str) -> Iterator[Item]:
    """START <= the 64-bit number at `place` < END; `what` names the number."""
    start, end = f"{name}_START", f"{name}_END"
    label = f"{what} {name}"
    yield Operation(_LOAD, place + 4, remark=f"{start} <= {what} < {end} ?")
    yield _if("JEQ", Hole(start, HIGH), jt=f"{label} low start")
    yield _if("JGT", Hole(start, HIGH), jt=f"{label} end", jf=outside)
    yield f"{label} low start"
    yield Operation(_LOAD, place)
    yield _if("JGE", Hole(start, LOW), jf=outside)
    yield Operation(_LOAD, place + 4)
    yield f"{label} end"
    yield _if("JEQ", Hole(end, HIGH), jt=f"{label} low end")
    yield _if("JGT", Hole(end, HIGH), jt=outside, jf=inside)
    yield f"{label} low end"
    yield Operation(_LOAD, place)
    yield _if("JGE", Hole(end, LOW), jt=outside, jf=inside)


def _call(policy: Policy, call: Call) -> Iterator[Item]:
    conditions = policy.conditions(call)
    for name in conditions:
        yield Operation(_IMMEDIATE, Hole(name, LOW), remark=f"{call.name}: {name}")
        last = name == conditions[-1]
        yield _if("JEQ", 0, jt="deny" if last else None, jf=None if last else f"{call.name} rules")
    yield f"{call.name} rules"
    # What all alternatives demand is asked once.
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
        yield Operation(_RETURN, "SECCOMP_RET_ALLOW", remark=f"{call.name}: {allow.what.partition(':')[0]}")


def _rule(call: Call, index: int, rule: Rule, label: str, failed: str) -> Iterator[Item]:
    """Fall through when the rule holds, jump to `failed` otherwise; a register that is too wide fails too."""
    low, high = ARGS + 8 * index, ARGS + 8 * index + 4
    passed = f"{label} {index} passed"
    name = f"{call.name}: {call.arguments[index]}"
    if rule.equals is not None:
        parts: tuple[int | Hole, int | Hole]
        if isinstance(rule.equals, str):
            parts, text = (Hole(rule.equals, LOW), Hole(rule.equals, HIGH)), rule.equals
        else:
            parts, text = (rule.equals & 0xFFFFFFFF, rule.equals >> 32 & 0xFFFFFFFF), str(rule.equals)
        yield Operation(_LOAD, low, remark=f"{name} == {text}")
        yield _if("JEQ", parts[LOW], jf=failed)
        yield Operation(_LOAD, high)
        yield _if("JEQ", parts[HIGH], jf=failed)
    elif rule.not_negative:
        yield Operation(_LOAD, high, remark=f"{name} >= 0")
        yield _if("JSET", 0x80000000, jt=failed)
    elif rule.within is not None:
        yield from _range(rule.within, low, name, inside=passed, outside=failed)
    elif isinstance(rule.at_most, str):
        yield Operation(_LOAD, high, remark=f"{name} {_words(rule)}")
        yield _if("JGT", Hole(rule.at_most, HIGH), jt=failed)
        yield _if("JEQ", Hole(rule.at_most, HIGH), jf=passed)
        yield Operation(_LOAD, low)
        yield _if("JGT", Hole(rule.at_most, LOW), jt=failed)
    elif rule.any is None:
        yield Operation(_LOAD, high, remark=f"{name} {_words(rule)}")
        yield _if("JEQ", 0, jf=failed)
        yield Operation(_LOAD, low)
        if rule.at_most is not None:
            yield _if("JGT", rule.at_most, jt=failed)
        elif rule.one_of is not None:
            for value in rule.one_of:
                yield _if("JEQ", value, jt=passed, jf=failed if value == rule.one_of[-1] else None)
        elif rule.member is not None:
            yield _if("JGE", 32, jt=failed)
            yield Operation(_TAX)
            yield Operation(_IMMEDIATE, 1)
            yield Operation(_SHIFT)
            yield _if("JSET", Hole(rule.member, LOW), jf=failed)
    yield passed


def _words(rule: Rule) -> str:
    if rule.at_most is not None:
        return f"<= {rule.at_most}"
    if rule.one_of is not None:
        return f"of {', '.join(f'{value:#x}' for value in rule.one_of)}"
    return f"in {rule.member}"


def _if(test: str, k: int | str | Hole, *, jt: str | None = None, jf: str | None = None) -> Operation:
    return Operation(f"BPF_JMP | BPF_{test} | BPF_K", k, jt, jf)


def _goto(label: str) -> Operation:
    return Operation("BPF_JMP | BPF_JA", 0, label)


def assemble(items: Sequence[Item]) -> list[Line]:
    """Put numbers for labels. A conditional jump that is too far gets a plain jump behind it (one more instruction)."""
    work: list[Item] = list(items)
    count = 0
    while True:
        operations, places = _place(work)
        far = next((op for at, op in enumerate(operations) if _too_far(op, at, places)), None)
        if far is None:
            return [_line(op, at, places) for at, op in enumerate(operations)]
        count += 1
        at = next(number for number, item in enumerate(work) if item is far)
        work[at : at + 1] = _with_islands(far, f"island {count}")


def _with_islands(far: Operation, name: str) -> list[Item]:
    """Replace both jumps of a far comparison by hops to plain jumps right behind it."""
    yes, no, behind = f"{name} yes", f"{name} no", f"{name} behind"
    found: list[Item] = [replace(far, jt=yes if far.jt else behind, jf=no if far.jf else behind)]
    if far.jt:
        found += [yes, _goto(far.jt)]
    if far.jf:
        found += [no, _goto(far.jf)]
    return [*found, behind]


def _place(work: Sequence[Item]) -> tuple[list[Operation], dict[str, int]]:
    operations: list[Operation] = []
    places: dict[str, int] = {}
    for item in work:
        if isinstance(item, str):
            assert item not in places, f"two places are named {item}"
            places[item] = len(operations)
        else:
            operations.append(item)
    return operations, places


def _distances(op: Operation, at: int, places: dict[str, int]) -> tuple[int, int]:
    jt, jf = (places[label] - at - 1 if label else 0 for label in (op.jt, op.jf))
    assert jt >= 0 and jf >= 0, "jumps lead forward"
    return jt, jf


def _too_far(op: Operation, at: int, places: dict[str, int]) -> bool:
    return op.operation != "BPF_JMP | BPF_JA" and max(_distances(op, at, places)) > FARTHEST


def _line(op: Operation, at: int, places: dict[str, int]) -> Line:
    code = OPERATIONS[op.operation]
    jt, jf = _distances(op, at, places)
    hole = op.k if isinstance(op.k, Hole) else None
    k, shown = _operand(op.k)
    if op.operation == "BPF_JMP | BPF_JA":
        return Line(code, 0, 0, jt, f"BPF_STMT({op.operation}, {jt})", None, op.remark)
    if code & 7 == 5:
        return Line(code, jt, jf, k, f"BPF_JUMP({op.operation}, {shown}, {jt}, {jf})", hole, op.remark)
    return Line(code, 0, 0, k, f"BPF_STMT({op.operation}, {shown})", hole, op.remark)


def _operand(k: int | str | Hole) -> tuple[int, str]:
    if isinstance(k, Hole):
        return 0, "0"
    if isinstance(k, int):
        return k, f"{k:#x}" if k > 1024 else str(k)
    return _symbol(k), k


def _symbol(name: str) -> int:

    return _SYMBOLS[name] if name in _SYMBOLS else syscall_table.numbers()[name.removeprefix("__NR_")]
