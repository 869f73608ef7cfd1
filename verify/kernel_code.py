# SPDX-License-Identifier: Apache-2.0
"""Check that the kernel does not use the guest's registers: `python -m verify.kernel_code [--json] VMLINUX`

During a system call, the vector registers, x87 state and FS/GS bases of the guest program stay in the CPU, so the
kernel must not use them. Guest and kernel share a process, and the seccomp policy lists each host call of the kernel,
so only the host-call functions may contain one. The checker disassembles every function and fails on an instruction of
these kinds outside of the functions that kernel_code.toml lists with a reason:

    vector    names an xmm, ymm, zmm, mm or mask register
    x87       a floating-point instruction
    state     saves or restores such state as a whole (xsave, fxrstor, ldmxcsr …)
    segment   reads or writes memory through fs: or gs:
    base      reads or sets the FS or GS base
    syscall   enters the host kernel: syscall, sysenter, int $0x80

An unused entry of that list fails, too. Exit status: 0 no finding, 1 a finding, 2 the check failed.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from verify import report

POLICY = Path(__file__).with_suffix(".toml")
KINDS = ("vector", "x87", "state", "segment", "base", "syscall", "unknown")

_SECTION = re.compile(r"^Disassembly of section (?P<name>\S+):$")
_LABEL = re.compile(r"^[0-9a-f]+ <(?P<name>.+)>:$")
_CODE = re.compile(r"^\s*(?P<address>[0-9a-f]+):\t(?P<text>.+)$")
_PREFIXES = re.compile(r"^(?:(?:lock|rep[nz]*e?|repnz|bnd|notrack|data16|addr32|cs|ds|es|ss|rex(?:\.[WRXB]+)?)\s+)+")
# Suffixes of gcc's copies and parts of a function.
_CLONE = re.compile(r"\.(?:cold|part|constprop|isra|lto_priv)(?:\.\d+)?")

_VECTOR = re.compile(r"%(?:[xyz]mm\d+|mm[0-7]|k[0-7])\b|^v(?:zeroupper|zeroall)|^emms")
_X87 = re.compile(r"^(?:f(?!xsave|xrstor)[a-z0-9]+|wait)$")
_STATE = re.compile(r"^(?:xsave\w*|xrstor\w*|fxsave\w*|fxrstor\w*|v?ldmxcsr|v?stmxcsr|f?n?stenv|fldenv|xsetbv)$")
_BASE = re.compile(r"^(?:rd|wr)[fg]sbase\w*$|^swapgs$")
_SEGMENT = re.compile(r"%[fg]s:|^(?:fs|gs)\s")
_SYSCALL = re.compile(r"^(?:syscall|sysenter)\b|^int\s+\$0x80\b")


@dataclass(frozen=True)
class Use:
    """One relevant instruction. `text`: by objdump."""

    function: str
    kind: str
    address: int
    text: str
    section: str


@dataclass(frozen=True)
class Allowance:
    """One entry of the policy: functions (shell patterns) that may contain instructions of some kinds.

    With `section`, only in that section: the kernel discards .init.text before the first guest instruction.
    """

    functions: tuple[str, ...]
    kinds: tuple[str, ...]
    reason: str
    section: str | None = None

    def covers(self, use: Use) -> bool:
        """Return whether this entry permits `use`."""
        if self.section not in (None, use.section):
            return False
        return use.kind in self.kinds and any(fnmatch.fnmatchcase(use.function, p) for p in self.functions)


@dataclass
class Result:
    """`forbidden`: uses that no entry permits. `idle`: unused entries (pattern, kind) of the policy."""

    functions: int = 0
    allowed: list[Use] = field(default_factory=list)
    forbidden: list[Use] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)


class CheckError(Exception):
    """The check failed to run."""


def read_policy(path: Path) -> list[Allowance]:
    """Read the policy. Raises `CheckError` if it is malformed."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CheckError(f"{path}: {error}") from error
    allowances = []
    for number, entry in enumerate(table.get("allow", []), 1):
        functions, kinds, reason = entry.get("functions"), entry.get("kinds"), entry.get("reason")
        wellformed = (
            set(entry) - {"section"} == {"functions", "kinds", "reason"}
            and isinstance(entry.get("section", ""), str)
            and isinstance(functions, list)
            and isinstance(kinds, list)
            and isinstance(reason, str)
            and len(reason) > 10
            and all(isinstance(item, str) for item in functions)
            and set(kinds) <= set(KINDS)
        )
        if not wellformed:
            raise CheckError(f"{path}: allow entry {number}: needs functions, kinds (of {', '.join(KINDS)}) and reason")
        allowances.append(Allowance(tuple(functions), tuple(kinds), reason, entry.get("section")))
    return allowances


def classify(text: str) -> str | None:
    """Return the kind of an instruction in objdump's AT&T syntax, or None if it is not relevant."""
    if "(bad)" in text:
        return "unknown"
    text = text.partition("#")[0].strip()
    bare = _PREFIXES.sub("", text)
    mnemonic = bare.split(None, 1)[0] if bare else ""
    if _SYSCALL.search(bare):
        return "syscall"
    if _BASE.match(mnemonic):
        return "base"
    if _STATE.match(mnemonic):
        return "state"
    if _VECTOR.search(bare):
        return "vector"
    if _X87.match(mnemonic):
        return "x87"
    # `<symbol+0x12>` of a call may contain any text; a segment override is in an operand or a prefix.
    if _SEGMENT.search(re.sub(r"<[^>]*>", "", text)):
        return "segment"
    return None


def uses(lines: Iterable[str]) -> Iterator[Use | str]:
    """Read objdump's output; yield the name of each function, then its uses. Raises `CheckError` without a function."""
    function = section = "?"
    seen = False
    for line in lines:
        if heading := _SECTION.match(line):
            section = heading["name"]
        elif label := _LABEL.match(line):
            function = _CLONE.sub("", label["name"])
            seen = True
            yield function
        elif code := _CODE.match(line):
            kind = classify(code["text"])
            if kind is not None:
                yield Use(function, kind, int(code["address"], 16), " ".join(code["text"].split()), section)
    if not seen:
        raise CheckError("the disassembly contains no function")


def check(lines: Iterable[str], policy: Sequence[Allowance]) -> Result:
    """Compare a disassembly with the policy."""
    result = Result()
    needed: set[tuple[int, str, str]] = set()
    for item in uses(lines):
        if isinstance(item, str):
            result.functions += 1
            continue
        allowance = next((number for number, entry in enumerate(policy) if entry.covers(item)), None)
        if allowance is None:
            result.forbidden.append(item)
            continue
        result.allowed.append(item)
        entry = policy[allowance]
        pattern = next(p for p in entry.functions if fnmatch.fnmatchcase(item.function, p))
        needed |= {(allowance, "function", pattern), (allowance, "kind", item.kind)}
    for number, entry in enumerate(policy):
        wanted = [("function", name) for name in entry.functions] + [("kind", name) for name in entry.kinds]
        result.idle += [f"{what} {name}" for what, name in wanted if (number, what, name) not in needed]
    return result


def disassemble(image: Path, objdump: str) -> Iterator[str]:
    """Yield the lines of `objdump -d`. Raises `CheckError` if objdump fails."""
    try:
        process = subprocess.Popen(
            [objdump, "-d", "-w", "--no-show-raw-insn", str(image)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise CheckError(f"{objdump}: {error.strerror}") from error
    assert process.stdout is not None and process.stderr is not None
    with process.stdout, process.stderr:
        yield from process.stdout
        complaint = process.stderr.read().strip()
    if process.wait() != 0:
        raise CheckError(complaint or f"{objdump} failed")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m verify.kernel_code", description=__doc__.splitlines()[0].split("`")[0]
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--all", action="store_true", help="show the allowed uses too")
    parser.add_argument("--policy", type=Path, default=POLICY, help="allowances (default: beside this module)")
    parser.add_argument("--objdump", default="objdump", help="disassembler to run")
    parser.add_argument(
        "--disassembly", action="store_true", help="the file already contains the output of `objdump -d -w`"
    )
    parser.add_argument("image", type=Path, help="kernel image with symbols")
    options = parser.parse_args(argv)
    try:
        policy = read_policy(options.policy)
        if options.disassembly:
            with options.image.open(encoding="utf-8", errors="replace") as stream:
                result = check(stream, policy)
        else:
            result = check(disassemble(options.image, options.objdump), policy)
    except (CheckError, OSError) as error:
        print(f"verify.kernel_code: {error}", file=sys.stderr)
        return 2
    print(report.as_json(_data(result)) if options.json else describe(result, everything=options.all))
    return 1 if result.forbidden or result.idle else 0


def _data(result: Result) -> dict[str, object]:
    return {
        "functions": result.functions,
        "forbidden": [asdict(use) for use in result.forbidden],
        "allowed": [asdict(use) for use in result.allowed],
        "idle": result.idle,
        "host_calls": host_callers(result),
    }


def host_callers(result: Result) -> list[str]:
    """Return the names of all functions that enter the host kernel, sorted."""
    return sorted({use.function for use in [*result.allowed, *result.forbidden] if use.kind == "syscall"})


def describe(result: Result, *, everything: bool) -> str:
    """Return the result as text. `everything`: include permitted uses."""
    rows = [["FORBIDDEN", use.kind, use.function, f"{use.address:x}: {use.text}"] for use in result.forbidden]
    if everything:
        rows += [["allowed", use.kind, use.function, f"{use.address:x}: {use.text}"] for use in result.allowed]
    rows += [["UNUSED", "policy", "-", f"nothing needs the allowance for {text}"] for text in result.idle]
    lines = [report.table(["verdict", "kind", "function", "instruction"], rows)] if rows else []
    lines.append(f"host calls in: {', '.join(host_callers(result)) or 'none'}")
    lines.append(
        f"{result.functions} functions, {len(result.forbidden)} forbidden, {len(result.allowed)} allowed, "
        f"{len(result.idle)} unused allowances"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
