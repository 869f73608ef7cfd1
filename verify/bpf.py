# SPDX-License-Identifier: Apache-2.0
"""Classic BPF as in the kernel's seccomp: checker, interpreter, disassembler.

The checker rejects the programs that the kernel rejects, for the same reasons (kernel/seccomp.c, net/core/filter.c). It
shares no code with the compiler of nabla's filter. tests/unit/verify/test_seccomp.py compares the interpreter with the
host's kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

# Classes, sizes, modes, operations, sources: include/uapi/linux/bpf_common.h
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
W, ABS, IMM, MEM, LEN = 0x00, 0x20, 0x00, 0x60, 0x80
JA, JEQ, JGT, JGE, JSET = 0x00, 0x10, 0x20, 0x30, 0x40
K, X, A = 0x00, 0x08, 0x10
TAX, TXA = 0x00, 0x80
ALU_OPERATIONS = {
    0x00: "add",
    0x10: "sub",
    0x20: "mul",
    0x30: "div",
    0x40: "or",
    0x50: "and",
    0x60: "lsh",
    0x70: "rsh",
    0x80: "neg",
    0xA0: "xor",
}
_DIV, _LSH, _RSH, _NEG = 0x30, 0x60, 0x70, 0x80
_COMPARE = {JEQ: "==", JGT: ">", JGE: ">=", JSET: "&"}

MAX_LENGTH = 4096  # BPF_MAXINSNS
MEMORY_WORDS = 16  # BPF_MEMWORDS
DATA_SIZE = 64  # sizeof(struct seccomp_data)

# Verdicts: include/uapi/linux/seccomp.h
KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x80000000, 0, 0x00030000, 0x00050000
USER_NOTIF, TRACE, LOG, ALLOW = 0x7FC00000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000
ACTIONS = {
    KILL_PROCESS: "kill",
    KILL_THREAD: "kill-thread",
    TRAP: "trap",
    ERRNO: "errno",
    USER_NOTIF: "notify",
    TRACE: "trace",
    LOG: "log",
    ALLOW: "allow",
}
_ACTION, _DATA = 0xFFFF0000, 0xFFFF

ARCH_X86_64 = 0xC000003E
ARCH_I386 = 0x40000003
X32_BIT = 0x40000000

_U32 = 0xFFFFFFFF
_FIELDS = {0: "nr", 4: "arch", 8: "ip.low", 12: "ip.high"}
_FIELDS |= {16 + 8 * i + 4 * half: f"arg{i}.{'high' if half else 'low'}" for i in range(6) for half in (0, 1)}


class FilterError(Exception):
    """The kernel would reject the program, or the input contains none."""


@dataclass(frozen=True)
class Instruction:
    """One `struct sock_filter`: operation, jump distances if true and if false, constant."""

    code: int
    jt: int
    jf: int
    k: int


@dataclass(frozen=True)
class Call:
    """One `struct seccomp_data`, the input of a filter. Negative numbers wrap."""

    nr: int
    ip: int = 0
    args: tuple[int, ...] = ()
    arch: int = ARCH_X86_64

    def words(self) -> tuple[int, ...]:
        """Return the sixteen 32-bit words that BPF loads from."""
        args = [*self.args, 0, 0, 0, 0, 0, 0][:6]
        wide = [value & (1 << 64) - 1 for value in (self.ip, *args)]
        return struct.unpack("<16I", struct.pack("<II7Q", self.nr & _U32, self.arch & _U32, *wide))


@dataclass(frozen=True)
class Verdict:
    """The verdict on a call: `action` by name, its 16 bits of data, and the number of executed instructions."""

    action: str
    data: int
    steps: int


@dataclass
class _Machine:
    words: tuple[int, ...]
    a: int = 0
    x: int = 0
    memory: list[int] = field(default_factory=lambda: [0] * MEMORY_WORDS)


def check(program: Sequence[Instruction]) -> None:
    """Raise `FilterError` with the first invalid instruction for a program that seccomp(2) rejects."""
    if not 0 < len(program) <= MAX_LENGTH:
        raise FilterError(f"{len(program)} instructions; a program has 1 to {MAX_LENGTH}")
    for index, each in enumerate(program):
        problem = _problem(each, index, len(program))
        if problem:
            raise FilterError(f"instruction {index}: {problem}")
    if program[-1].code & 7 != RET:
        raise FilterError("the last instruction does not return")
    _check_memory(program)


def _problem(each: Instruction, index: int, length: int) -> str:
    if not (0 <= each.code <= 0xFFFF and 0 <= each.jt <= 0xFF and 0 <= each.jf <= 0xFF and 0 <= each.k <= _U32):
        return "a field does not fit into struct sock_filter"
    if each.code not in _KNOWN:
        return f"operation {each.code:#06x} is unknown or not for seccomp"
    if each.code == LD | W | ABS and (each.k % 4 or each.k >= DATA_SIZE):
        return f"load from offset {each.k}, outside struct seccomp_data or not of a whole word"
    if each.code in (LD | MEM, LDX | MEM, ST, STX) and each.k >= MEMORY_WORDS:
        return f"there is no memory word {each.k}"
    if each.code == ALU | _DIV | K and each.k == 0:
        return "division by zero"
    if each.code in (ALU | _LSH | K, ALU | _RSH | K) and each.k >= 32:
        return f"shift by {each.k}"
    if each.code == JMP | JA and index + 1 + each.k >= length:
        return "jump behind the end"
    if each.code & 7 == JMP and each.code != JMP | JA and index + 1 + max(each.jt, each.jf) >= length:
        return "jump behind the end"
    return ""


def _check_memory(program: Sequence[Instruction]) -> None:
    """Check that a memory word is stored on every path to its load (check_load_and_stores)."""
    everything = (1 << MEMORY_WORDS) - 1
    arriving = [everything] * len(program)
    valid = 0
    for index, each in enumerate(program):
        valid &= arriving[index]
        kind = each.code & 7
        if kind in (ST, STX):
            valid |= 1 << each.k
        elif each.code in (LD | MEM, LDX | MEM) and not valid >> each.k & 1:
            raise FilterError(f"instruction {index}: memory word {each.k} may not have been stored")
        elif kind == JMP:
            ways = (each.k,) if each.code == JMP | JA else (each.jt, each.jf)
            for way in ways:
                arriving[index + 1 + way] &= valid
            valid = everything


def run(program: Sequence[Instruction], call: Call) -> Verdict:
    """Return the verdict of a filter that `check` has passed."""
    machine = _Machine(call.words())
    position = steps = 0
    while True:
        each = program[position]
        steps += 1
        position += 1
        kind = each.code & 7
        if kind == RET:
            value = machine.a if each.code & 0x18 == A else each.k
            return _verdict(value, steps)
        if kind == JMP:
            position += _distance(each, machine)
        elif kind == ALU:
            stopped = _compute(each, machine)
            if stopped:
                return _verdict(KILL_THREAD, steps)
        else:
            _move(each, machine)


def _verdict(value: int, steps: int) -> Verdict:
    # An unknown action kills, as in __seccomp_filter().
    return Verdict(ACTIONS.get(value & _ACTION, "kill"), value & _DATA, steps)


def _distance(each: Instruction, machine: _Machine) -> int:
    operation = each.code & 0xF0
    if operation == JA:
        return each.k
    other = machine.x if each.code & X else each.k
    a = machine.a
    true = {JEQ: a == other, JGT: a > other, JGE: a >= other, JSET: a & other != 0}[operation]
    return each.jt if true else each.jf


def _compute(each: Instruction, machine: _Machine) -> bool:
    """Change A; return whether the program ends, because a division by zero makes it return 0."""
    operation = each.code & 0xF0
    a, other = machine.a, machine.x if each.code & X else each.k
    if operation == _DIV and other == 0:
        return True
    match ALU_OPERATIONS[operation]:
        case "add":
            a += other
        case "sub":
            a -= other
        case "mul":
            a *= other
        case "div":
            a //= other
        case "or":
            a |= other
        case "and":
            a &= other
        # The kernel's 32-bit shifts use the distance modulo 32, interpreted or compiled for x86.
        case "lsh":
            a <<= other & 31
        case "rsh":
            a >>= other & 31
        case "neg":
            a = -a
        case "xor":
            a ^= other
    machine.a = a & _U32
    return False


def _move(each: Instruction, machine: _Machine) -> None:
    match each.code:
        case 0x20:  # LD | W | ABS
            machine.a = machine.words[each.k // 4]
        case 0x80:  # LD | W | LEN
            machine.a = DATA_SIZE
        case 0x00:  # LD | IMM
            machine.a = each.k
        case 0x60:  # LD | MEM
            machine.a = machine.memory[each.k]
        case 0x81:  # LDX | W | LEN
            machine.x = DATA_SIZE
        case 0x01:  # LDX | IMM
            machine.x = each.k
        case 0x61:  # LDX | MEM
            machine.x = machine.memory[each.k]
        case 0x02:  # ST
            machine.memory[each.k] = machine.a
        case 0x03:  # STX
            machine.memory[each.k] = machine.x
        case 0x07:  # MISC | TAX
            machine.x = machine.a
        case 0x87:  # MISC | TXA
            machine.a = machine.x


def possible(program: Sequence[Instruction], call: Call) -> set[str]:
    """Return all possible verdicts on a call with any arguments; ignores the arguments of `call`.

    It follows both branches of a comparison that depends on arguments. The result may contain a verdict that no
    arguments lead to, but is never incomplete.
    """
    words: list[int | None] = [*call.words()[:4], *[None] * 12]
    verdicts: set[str] = set()
    seen = set()
    paths: list[tuple[int, int | None, int | None, tuple[int | None, ...]]] = [(0, 0, 0, (0,) * MEMORY_WORDS)]
    while paths:
        way = paths.pop()
        if way in seen:
            continue
        seen.add(way)
        position, a, x, memory = way
        each = program[position]
        machine = _Machine(tuple(word or 0 for word in words), a or 0, x or 0, [word or 0 for word in memory])
        # The input besides the constant: if it is unknown, so is the result.
        match each.code & 7, each.code:
            case 6, code:  # RET
                if code & 0x18 == A and a is None:
                    verdicts |= set(ACTIONS.values())
                else:
                    verdicts.add(_verdict(machine.a if code & 0x18 == A else each.k, 0).action)
            case 5, code:  # JMP
                if code == JMP | JA:
                    distances = {each.k}
                elif a is None or (code & X and x is None):
                    distances = {each.jt, each.jf}
                else:
                    distances = {_distance(each, machine)}
                paths += [(position + 1 + distance, a, x, memory) for distance in distances]
            case 4, code:  # ALU
                unknown = a is None or (bool(code & X) and code & 0xF0 != _NEG and x is None)
                if code & 0xF0 == _DIV and code & X and not x:
                    verdicts.add(ACTIONS[KILL_THREAD])
                if unknown or not _compute(each, machine):
                    paths.append((position + 1, None if unknown else machine.a, x, memory))
            case _, code:
                _move(each, machine)
                source = {LD | W | ABS: words[each.k // 4 % 16], TAX | MISC: a, TXA | MISC: x, ST: a, STX: x}
                source |= {LD | MEM: memory[each.k % 16], LDX | MEM: memory[each.k % 16]}
                unknown = code in source and source[code] is None
                changed = list(memory)
                if code in (ST, STX):
                    changed[each.k] = None if unknown else machine.memory[each.k]
                    paths.append((position + 1, a, x, tuple(changed)))
                elif code & 7 == LDX or code == MISC | TAX:
                    paths.append((position + 1, a, None if unknown else machine.x, memory))
                else:
                    paths.append((position + 1, None if unknown else machine.a, x, memory))
    return verdicts


_KNOWN = {LD | W | ABS, LD | W | LEN, LDX | W | LEN, LD | IMM, LDX | IMM, LD | MEM, LDX | MEM, ST, STX}
_KNOWN |= {RET | K, RET | A, MISC | TAX, MISC | TXA, JMP | JA, ALU | _NEG}
_KNOWN |= {ALU | operation | source for operation in ALU_OPERATIONS if operation != _NEG for source in (K, X)}
_KNOWN |= {JMP | operation | source for operation in _COMPARE for source in (K, X)}


def describe(program: Sequence[Instruction]) -> Iterator[str]:
    """Yield one line of text for each instruction, jump targets as absolute positions."""
    for index, each in enumerate(program):
        yield f"{index:4}  {_text(each, index)}"


def _text(each: Instruction, index: int) -> str:
    operation, other = each.code & 0xF0, "x" if each.code & X else f"{each.k:#x}"
    match each.code & 7:
        case 6:  # RET
            if each.code & 0x18 == A:
                return "return a"
            verdict = _verdict(each.k, 0)
            return f"return {verdict.action}" + (f" {verdict.data}" if verdict.data else "")
        case 5:  # JMP
            if operation == JA:
                return f"goto {index + 1 + each.k}"
            compared = _COMPARE.get(operation, "?")
            return f"if a {compared} {other} goto {index + 1 + each.jt} else {index + 1 + each.jf}"
        case 4:  # ALU
            return "a = -a" if operation == _NEG else f"a {ALU_OPERATIONS.get(operation, '?')} {other}"
        case 0 if each.code == LD | W | ABS:
            return f"a = {_FIELDS.get(each.k, f'data[{each.k}]')}"
    register = "ax"[each.code & 1]
    words = {LD | IMM: f"{register} = {each.k:#x}", LD | MEM: f"{register} = memory[{each.k}]"}
    words |= {LD | LEN: f"{register} = {DATA_SIZE}", ST: f"memory[{each.k}] = a", STX: f"memory[{each.k}] = x"}
    words |= {MISC | TAX: "x = a", MISC | TXA: "a = x"}
    plain = each.code & ~1 if each.code & 6 == 0 else each.code
    return words.get(plain, f"unknown {each.code:#06x}")
