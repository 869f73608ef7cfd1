# SPDX-License-Identifier: Apache-2.0
"""The verdict of a seccomp filter about a system call: `python -m verify.seccomp FILTER [show|ask|sweep] …`

    python -m verify.seccomp dump show                          the program, disassembled
    python -m verify.seccomp dump ask write 1 0 3 --ip 0x1000   one call: its verdict
    python -m verify.seccomp dump sweep --ip 0x1000             every number, with any arguments

FILTER is a file: the raw bytes of the `struct sock_filter`s, as PTRACE_SECCOMP_GET_FILTER returns them, or text with
BPF_STMT(…) and BPF_JUMP(…), as in C programs and the output of strace. `doit policy:dump` writes the filter of nabla's
policy to out/policy/filter.

Exit status: 0 allowed (or no verdict requested), 1 another verdict, 2 the filter or the question is invalid.
"""

from __future__ import annotations

import argparse
import ast
import re
import struct
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from verify import bpf
from verify.bpf import Call, FilterError, Instruction
from verify.syscall_table import names, numbers

_STATEMENT = re.compile(r"BPF_(?P<kind>STMT|JUMP)\((?P<operands>[^()]*)\)")
_WORD = re.compile(r"[A-Z][A-Z0-9_]*|__NR_\w+")
_OPCODES = {"BPF_LD": 0, "BPF_LDX": 1, "BPF_ST": 2, "BPF_STX": 3, "BPF_ALU": 4, "BPF_JMP": 5, "BPF_RET": 6}
_OPCODES |= {"BPF_MISC": 7, "BPF_W": 0, "BPF_IMM": 0, "BPF_ABS": 0x20, "BPF_MEM": 0x60, "BPF_LEN": 0x80}
_OPCODES |= {"BPF_JA": 0, "BPF_JEQ": 0x10, "BPF_JGT": 0x20, "BPF_JGE": 0x30, "BPF_JSET": 0x40}
_OPCODES |= {"BPF_K": 0, "BPF_X": 8, "BPF_A": 0x10, "BPF_TAX": 0, "BPF_TXA": 0x80}
_OPCODES |= {f"BPF_{name.upper()}": value for value, name in bpf.ALU_OPERATIONS.items()}
_VALUES = {"AUDIT_ARCH_X86_64": bpf.ARCH_X86_64, "AUDIT_ARCH_I386": bpf.ARCH_I386}
_VALUES |= {f"SECCOMP_RET_{name}": getattr(bpf, name) for name in ("KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO")}
_VALUES |= {f"SECCOMP_RET_{name}": getattr(bpf, name) for name in ("USER_NOTIF", "TRACE", "LOG", "ALLOW")}
_VALUES |= {"SECCOMP_RET_KILL": bpf.KILL_THREAD}

# Newer hosts (6.14, 6.18) exempt these calls from filters: the host's kernel inserts them into traced processes. From
# other code, uretprobe raises SIGILL and uprobe fails with ENXIO.
UNFILTERED = {335: "uretprobe", 336: "uprobe"}


def decode(data: bytes) -> list[Instruction]:
    """Read a program from a dump or from text, see above, and check it. Raises `FilterError`."""
    if re.search(rb"BPF_(STMT|JUMP)\(", data):
        program = [_statement(match) for match in _STATEMENT.finditer(data.decode(errors="replace"))]
    elif not data or len(data) % 8:
        raise FilterError(f"{len(data)} bytes are not a whole number of instructions (8 bytes each)")
    else:
        program = [Instruction(*fields) for fields in struct.iter_unpack("<HBBI", data)]
    bpf.check(program)
    return program


def encode(program: Sequence[Instruction]) -> bytes:
    """Return the program as an array of `struct sock_filter`."""
    return b"".join(struct.pack("<HBBI", each.code, each.jt, each.jf, each.k) for each in program)


def _statement(match: re.Match[str]) -> Instruction:
    operands = [part.strip() for part in match["operands"].split(",")]
    wanted = 2 if match["kind"] == "STMT" else 4
    if len(operands) != wanted:
        raise FilterError(f"{match[0]}: {wanted} operands are expected")
    code, k, *jumps = (_number(part, _OPCODES if not index else _VALUES) for index, part in enumerate(operands))
    jt, jf = jumps or (0, 0)
    return Instruction(code, jt, jf, k & 0xFFFFFFFF)


def _number(text: str, known: dict[str, int]) -> int:
    """Return a sum of numbers and names, joined by | or +."""
    total = 0
    for part in re.split(r"[|+]", text):
        word = part.strip()
        if word in known:
            total |= known[word]
        elif word.startswith("__NR_") and word[5:] in numbers():
            total |= numbers()[word[5:]]
        else:
            total |= _integer(word)
    return total


def _integer(text: str) -> int:
    """Parse a number in C syntax. Raises `FilterError`."""
    try:
        value = ast.literal_eval(re.sub(r"^(-?)0+(?=\d)", r"\1", text))
    except (ValueError, SyntaxError):
        value = None
    if not isinstance(value, int):
        raise FilterError(f"{text!r} is neither a number nor a known name")
    return value


def call_number(text: str) -> int:
    """Return the number of a system call given by number or name; raises `FilterError`."""
    return numbers()[text] if text in numbers() else _integer(text)


def name_of(number: int) -> str:
    """Return the name of a system call, or its number if it has none."""
    if number & bpf.X32_BIT and number > 0:
        return f"x32 {number & ~bpf.X32_BIT}"
    return names().get(number, str(number))


def every_number() -> Iterator[int]:
    """Yield the numbers to test: 0 to 1023, the same in the x32 ABI, and unusual ones, including negative ones."""
    yield from range(1024)
    yield from (bpf.X32_BIT | number for number in range(1024))
    yield from (-1, -2, -512, -(1 << 31), 0x7FFFFFFF, 0xFFFF, 0x10000)


def sweep(program: Sequence[Instruction], call: Call) -> dict[str, list[int]]:
    """Test every number, with any arguments; return the numbers by possible verdicts (`allow or kill` …)."""
    numbers: dict[str, list[int]] = {}
    for number in every_number():
        verdicts = bpf.possible(program, Call(number, call.ip, (), call.arch))
        numbers.setdefault(" or ".join(sorted(verdicts)), []).append(number)
    return numbers


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m verify.seccomp", description=__doc__.partition("`")[0])
    parser.add_argument("filter", metavar="FILTER", help="a dump, or a text with BPF_STMT and BPF_JUMP")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("show", help="print the program")
    for name, text in (("ask", "print the verdict of one call"), ("sweep", "print the verdicts of all numbers")):
        action = actions.add_parser(name, help=text)
        if name == "ask":
            action.add_argument("call", help="name or number")
            action.add_argument("arguments", nargs="*", help="up to six numbers")
        action.add_argument("--ip", default="0", help="instruction pointer")
        action.add_argument("--arch", default=hex(bpf.ARCH_X86_64), help="AUDIT_ARCH_… as a number (x86-64)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        program = decode(Path(options.filter).read_bytes())
        if options.action == "show":
            print("\n".join(bpf.describe(program)))
            return 0
        args = tuple(_integer(text) for text in getattr(options, "arguments", ()))
        if len(args) > 6:
            raise FilterError("a call has at most six arguments")
        number = call_number(options.call) if options.action == "ask" else 0
        return _answer(program, Call(number, _integer(options.ip), args, _integer(options.arch)), options.action)
    except (FilterError, OSError) as error:
        print(f"verify.seccomp: {error}", file=sys.stderr)
        return 2


def _answer(program: Sequence[Instruction], call: Call, action: str) -> int:
    if action == "ask":
        verdict = bpf.run(program, call)
        data = f" {verdict.data}" if verdict.data else ""
        print(f"{name_of(call.nr)}: {verdict.action}{data} after {verdict.steps} instructions")
        return 0 if verdict.action == "allow" else 1
    numbers = sweep(program, call)
    usual = Counter({verdict: len(listed) for verdict, listed in numbers.items()}).most_common(1)[0][0]
    for action_name, listed in sorted(numbers.items()):
        shown = "all others" if action_name == usual else ", ".join(name_of(number) for number in listed)
        print(f"{action_name}: {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
