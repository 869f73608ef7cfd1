# SPDX-License-Identifier: Apache-2.0
"""The policy: its file, and the filter compiled from it, checked by the simulator and by the host's own kernel."""

from __future__ import annotations

import ctypes
import itertools
import random
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from nabla.policy import compiler, header, model
from nabla.policy.compiler import Fixup, Template
from nabla.policy.model import Policy, Rule
from tests.unit import seccomp_host
from tests.unit.seccomp_host import INT80, IP_AFTER_INT80, Page
from verify import bpf, seccomp, syscall_table
from verify.bpf import Call, Instruction

TOP = (1 << 64) - 1
# Addresses in a VM; RAM crosses 4 GB, so that both halves of its limits matter.
PLACES = {
    "TEXT_START": 0x60001000,
    "TEXT_END": 0x60180000,
    "RAM_START": 0x60400000,
    "RAM_END": 0x2_60400000,
    "WINDOW_START": 0x10_00000000,
    "WINDOW_END": 0x20_00500000,
    "LOW_START": 0x100000,
    "LOW_END": 0x5FE00000,
    "VDSO_START": 0x7FFC_FFFFF000,
    "VDSO_END": 0x7FFD_00001000,
}
REST = {
    **{f"{area}_SIZE": PLACES[f"{area}_END"] - PLACES[f"{area}_START"] for area in ("RAM", "WINDOW", "LOW")},
    "TIMER": 3,
    "STREAM_IN": 1 << 0 | 1 << 11,
    "STREAM_OUT": 1 << 1 | 1 << 2 | 1 << 11,
    "DISK_READ": 1 << 3 | 1 << 4,
    "DISK_WRITE": 1 << 3,
    "FSGSBASE_MISSING": 0,
    "DENY": bpf.KILL_PROCESS,
}
AREAS = ("TEXT", "RAM", "WINDOW", "LOW", "VDSO", "elsewhere")
TEXT, GUEST, VDSO = PLACES["TEXT_START"] + 2, PLACES["RAM_START"] + 2, PLACES["VDSO_START"] + 2


@cache
def real() -> Policy:
    """The project's policy."""
    return model.load()


def program(**changes: int) -> list[Instruction]:
    """The filter with a VM's constants, checked."""
    lines = compiler.compile_policy(real())
    filled = [Instruction(*fields) for fields in compiler.fill(lines, {**PLACES, **REST, **changes})]
    bpf.check(filled)
    return filled


PROGRAM = program()


def judge(name: str, *args: int, ip: int = TEXT, filled: list[Instruction] = PROGRAM) -> str:
    """The verdict of one call."""
    return bpf.run(filled, Call(syscall_table.numbers()[name], ip, args)).action


# --- the filter, rule by rule


def good(name: str, places: Mapping[str, int] = PLACES) -> tuple[tuple[int, ...], ...]:
    """Return permitted arguments, one tuple for each alternative."""
    return {
        "ppoll": ((0x1000, 4, 0x2000, 0, 8),),
        "timer_settime": ((3, 0, 0x1000, 0),),
        "preadv2": ((0, 0x1000, 1024, TOP, 0, 0), (4, 0x1000, 1024, 0, 0, 0)),
        "pwritev2": ((1, 0x1000, 1, TOP, 0, 0), (3, 0x1000, 1, (1 << 63) - 1, 0, 0)),
        "rt_sigreturn": ((),),
        "mprotect": tuple((places[f"{a}_START"] + 1, 0x1000, p) for a, p in (("RAM", 5), ("WINDOW", 7), ("LOW", 7))),
        "fdatasync": ((3,),),
        "clock_gettime": ((0, 0x1000), (1, 0x1000)),
        "exit_group": ((255,),),
        "arch_prctl": ((0x1001, 0x1000), (0x1002, TOP)),
    }[name]


def members(mask: int) -> set[int]:
    return {bit for bit in range(32) if mask >> bit & 1}


def limit(rule: Rule) -> int:
    """Return the number of an `at_most`, 0 for other rules."""
    return REST[rule.at_most] if isinstance(rule.at_most, str) else rule.at_most or 0


def holds(rule: Rule, value: int) -> bool:
    """Evaluate a rule independently of the filter. `value` is unsigned."""
    if rule.equals is not None:
        return value == (REST[rule.equals] if isinstance(rule.equals, str) else rule.equals % (1 << 64))
    if rule.one_of is not None:
        return value in rule.one_of
    if rule.at_most is not None:
        return value <= limit(rule)
    if rule.within is not None:
        return PLACES[f"{rule.within}_START"] <= value < PLACES[f"{rule.within}_END"]
    if rule.not_negative:
        return value < 1 << 63
    if rule.member is not None:
        return value in members(REST[rule.member])
    return True


def edges(rule: Rule) -> set[int]:
    """Return values around a rule's limits, and the same with bits that the host ignores."""
    values = {0, 1, 2, 3, 4, 8, 11, 12, 31, 32, 33, 35, 63, 64, 255, 256, 1023, 1024, 1025, 0x7FFFFFFF, 0x80000000}
    values |= {0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, TOP - 1, TOP, TOP ^ 0xFFFFFFFF}
    named = {REST[rule.equals]} if isinstance(rule.equals, str) else {rule.equals or 0}
    ends = [PLACES[f"{rule.within}_{end}"] for end in ("START", "END")] if rule.within else []
    for value in [*named, *ends, limit(rule), *(rule.one_of or ())]:
        values |= {value % (1 << 64), (value + 1) % (1 << 64), (value - 1) % (1 << 64)}
    values |= {value | 1 << 32 for value in values} | {value | 1 << 63 for value in values}
    return values | {value ^ TOP ^ 0xFFFFFFFF for value in set(values)}


CASES = [
    pytest.param(call.name, number, index, id=f"{call.name}-{number}-{call.arguments[index]}")
    for call in real().calls
    for number in range(len(good(call.name)))
    for index in range(len(call.arguments))
]


@pytest.mark.parametrize(("name", "number", "index"), CASES)
def test_each_argument_at_its_borders(name: str, number: int, index: int) -> None:
    call = next(each for each in real().calls if each.name == name)
    filled = program(FSGSBASE_MISSING=1)
    tried = set()
    for value in set().union(*(edges(allow.rules[index]) for allow in call.allow)):
        args = list(good(name)[number])
        args[index] = value
        wanted = any(all(map(holds, allow.rules, args)) for allow in call.allow)
        assert judge(name, *args, filled=filled) == ("allow" if wanted else "kill"), [hex(each) for each in args]
        tried.add(wanted)
    assert True in tried
    assert False in tried or all(allow.rules[index].any for allow in call.allow)


def test_every_listed_call_can_be_made() -> None:
    for call in real().calls:
        for args in good(call.name):
            assert judge(call.name, *args, filled=program(FSGSBASE_MISSING=1)) == "allow"


def test_every_other_number_is_denied() -> None:
    listed = {call.number for call in real().calls}
    tried = 0
    for args in {args for call in real().calls for args in good(call.name)}:
        for number in seccomp.every_number():
            if number not in listed:
                assert bpf.run(PROGRAM, Call(number, TEXT, args)).action == "kill"
                tried += 1
    assert tried > 2000 * len(listed)


def test_no_arguments_make_another_call_allowed() -> None:
    listed = {call.number for call in real().calls}
    for missing in (0, 1):
        filled = program(FSGSBASE_MISSING=missing)
        allowed = {n for n in seccomp.every_number() if "allow" in bpf.possible(filled, Call(n, TEXT))}
        assert allowed == (listed if missing else listed - {syscall_table.numbers()["arch_prctl"]})


def test_an_empty_set_of_descriptors_forbids() -> None:
    nothing = program(STREAM_IN=0, STREAM_OUT=0, DISK_READ=0, DISK_WRITE=0)
    for name in ("preadv2", "pwritev2", "fdatasync"):
        for args in good(name):
            for fd in range(40):
                assert judge(name, fd, *args[1:], filled=nothing) == "kill"


def test_arch_prctl_is_for_hosts_without_the_instructions() -> None:
    assert judge("arch_prctl", 0x1002, 0) == "kill"
    assert judge("arch_prctl", 0x1002, 0, filled=program(FSGSBASE_MISSING=1)) == "allow"
    assert judge("arch_prctl", 0x1003, 0, filled=program(FSGSBASE_MISSING=1)) == "kill"


@pytest.mark.parametrize("name", ["TEXT", "RAM", "VDSO"])
@pytest.mark.parametrize("start", [0x1000, 0xFFFFF000, 0x1_00000000, 0x7FFF_FFFFE000])
@pytest.mark.parametrize("size", [1, 0x1000, 0xFFFFFFFF, 0x1_00000000, 0x1_00000001])
def test_ranges_of_the_instruction_pointer(name: str, start: int, size: int) -> None:
    end = start + size
    nowhere = {f"{each}_{side}": 0 for each in ("TEXT", "RAM", "VDSO") for side in ("START", "END")}
    filled = program(**{**nowhere, f"{name}_START": start, f"{name}_END": end})
    inside = {"TEXT": "allow", "RAM": "trap", "VDSO": "allow"}[name]
    for ip in (
        {start + delta for delta in (-2, -1, 0, 1)} | {end + delta for delta in (-2, -1, 0, 1)} | {0, TOP, 1 << 32}
    ):
        for flipped in (ip, ip ^ 1 << 32, ip ^ 1 << 47):
            wanted = inside if start <= flipped < end else "kill"
            assert judge("clock_gettime", 1, ip=flipped, filled=filled) == wanted, hex(flipped)


def test_the_vsyscall_page_traps_whatever_is_called() -> None:
    page = 0xFFFFFFFF_FF600000
    for ip in (page - 1, page, page + 9, page + 0x409, page + 0xFFF, page + 0x1000, page ^ 1 << 32, page ^ 1 << 63):
        wanted = "trap" if page <= ip < page + 0x1000 else "kill"
        for number in (0, 96, 201, 309):
            assert bpf.run(PROGRAM, Call(number, ip)).action == wanted, hex(ip)


def test_guest_memory_traps_whatever_is_called() -> None:
    for number in seccomp.every_number():
        for arch in (bpf.ARCH_X86_64, bpf.ARCH_I386, 0):
            assert bpf.run(PROGRAM, Call(number, GUEST, (), arch)).action == "trap"


def test_another_architecture_is_denied_outside_guest_memory() -> None:
    for ip, name in itertools.product((TEXT, VDSO, 0, TOP), (call.name for call in real().calls)):
        call = Call(syscall_table.numbers()[name], ip, good(name)[0], bpf.ARCH_I386)
        assert bpf.run(PROGRAM, call).action == "kill"


def test_the_vdso_tells_the_time_only() -> None:
    assert [number for number in seccomp.every_number() if bpf.run(PROGRAM, Call(number, VDSO)).action == "allow"] == [
        syscall_table.numbers()["clock_gettime"]
    ]
    assert judge("clock_gettime", 2, ip=VDSO) == "kill"


def test_what_denies_is_a_constant() -> None:
    assert bpf.run(program(DENY=bpf.TRACE), Call(0, TEXT)).action == "trace"
    returned = {each.k for each in program(DENY=0x12345678) if each.code == bpf.RET | bpf.K}
    assert returned == {bpf.ALLOW, bpf.TRAP, 0x12345678}


# --- the same on the host's kernel


def on_page(page: Page) -> tuple[dict[str, int], Callable[[str], list[int]]]:
    """Map a VM's texts to the copies of the page's code; returns the constants and the copies of each place."""
    bounds = {"LOW": (4, 8), "TEXT": (8, 24), "RAM": (24, 40), "WINDOW": (40, 44), "VDSO": (44, 48)}
    constants = dict(REST)
    for name, (first, last) in bounds.items():
        constants |= {f"{name}_START": page.ip(first), f"{name}_END": page.ip(last)}

    def copies(name: str) -> list[int]:
        first, last = bounds.get(name, (0, 0))
        if name == "elsewhere":
            return [0, 7, 48, page.copies - 1]
        return [first, first + 1, last - 1]

    return constants, copies


def cases(places: Mapping[str, int]) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Yield place, number and arguments: every rule at its limits, every number, and random ones."""
    dice = random.Random(3)
    for call in real().calls:
        for args in good(call.name, places):
            for index in range(len(call.arguments)):
                for value in sorted(edges(call.allow[-1].rules[index]) | edges(call.allow[0].rules[index])):
                    yield "TEXT", call.number, (*args[:index], value, *args[index + 1 :])
            yield from ((area, call.number, args) for area in AREAS)
    for number in seccomp.every_number():
        if number not in seccomp.UNFILTERED:
            yield dice.choice(AREAS), number, tuple(dice.choice((0, 1, 3)) for _ in "123456")
    for _ in range(3000):
        call = dice.choice(real().calls)
        rules = dice.choice(call.allow).rules
        args = tuple(
            dice.choice(sorted(v for v in edges(rule) if dice.random() < 0.2 or holds(rule, v))) for rule in rules
        )
        yield dice.choice(("TEXT", "TEXT", "TEXT", "VDSO")), call.number, args


@pytest.mark.parametrize("missing", [0, 1])
def test_host_and_simulator_agree(missing: int) -> None:
    page = Page()
    constants, copies = on_page(page)
    lines = compiler.compile_policy(real())
    filled = [Instruction(*f) for f in compiler.fill(lines, {**constants, "FSGSBASE_MISSING": missing})]
    dice = random.Random(missing)
    calls = []
    for area, number, args in cases(constants):
        copy = dice.choice(copies(area))
        calls.append((copy, Call(number, page.ip(copy), args)))
    wanted = [seccomp_host.VISIBLE[bpf.run(filled, call).action] for _, call in calls]
    seen = seccomp_host.verdicts(seccomp_host.visible(filled, page), page, calls)
    wrong = [(call, want, got) for (_, call), want, got in zip(calls, wanted, seen, strict=True) if want != got]
    assert wrong == []
    counts = {want: wanted.count(want) for want in set(wanted)}
    assert len(calls) > 8000 and min(counts.values()) > 100 and len(counts) == 3, counts


def test_a_denied_call_kills_and_has_no_effect(tmp_path: Path) -> None:
    page = Page()
    constants, copies = on_page(page)
    filled = [Instruction(*f) for f in compiler.fill(compiler.compile_policy(real()), constants)]
    victim = tmp_path / "file"
    victim.write_text("here")
    name = ctypes.create_string_buffer(str(victim).encode())

    def work() -> int:
        assert seccomp_host.install([*seccomp_host.only_from(page), *filled]) == 0
        return page.call(copies("TEXT")[0], syscall_table.numbers()["unlink"], [ctypes.addressof(name)])

    assert seccomp_host.in_child(work) == -signal.SIGSYS
    assert victim.read_text() == "here"


def test_int_0x80_in_guest_memory_traps_and_elsewhere_kills() -> None:
    page = Page(INT80, IP_AFTER_INT80)
    constants, copies = on_page(page)
    filled = [Instruction(*f) for f in compiler.fill(compiler.compile_policy(real()), constants)]
    shown = seccomp_host.visible(filled, page)

    def verdict(area: str) -> object:
        def work() -> int:
            assert seccomp_host.install(shown) == 0
            return -page.call(copies(area)[0], 252, [0])  # exit_group of i386

        return seccomp_host.in_child(work)

    # A host without 32-bit programs raises SIGSEGV instead, before any filter.
    for area in ("RAM", "WINDOW", "LOW"):
        assert verdict(area) in (seccomp_host.VISIBLE["trap"], -signal.SIGSEGV)
    for area in ("TEXT", "VDSO", "elsewhere"):
        assert verdict(area) in (seccomp_host.VISIBLE["kill"], -signal.SIGSEGV)


# --- the assembler


def test_far_jumps_get_a_stepping_stone() -> None:
    filler = [Template("BPF_LD | BPF_IMM", 7)] * 300
    lines = compiler.assemble(
        [
            Template("BPF_LD | BPF_W | BPF_ABS", 0),
            Template("BPF_JMP | BPF_JEQ | BPF_K", 1, "one", "other"),
            *filler,
            "one",
            Template("BPF_RET | BPF_K", 0x50001),
            "other",
            Template("BPF_RET | BPF_K", 0x50002),
        ]
    )
    code = [Instruction(line.code, line.jt, line.jf, line.k) for line in lines]
    bpf.check(code)
    assert len(code) == 306
    assert bpf.run(code, Call(1)).data == 1
    assert bpf.run(code, Call(2)).data == 2


def test_hot_calls_are_short() -> None:
    steps = {
        name: bpf.run(PROGRAM, Call(syscall_table.numbers()[name], TEXT, good(name)[0])).steps
        for name in ("ppoll", "preadv2")
    }
    assert steps["ppoll"] < 30 and steps["preadv2"] < 50


# --- the header


def test_header_and_program_are_the_same() -> None:
    text = header.render(real())
    lines = compiler.compile_policy(real())
    statements = re.findall(r"\[ *(\d+)\] = (BPF_\w+\(.*\)),", text)
    assert [int(index) for index, _ in statements] == list(range(len(lines)))
    program = seccomp.decode(",".join(statement for _, statement in statements).encode())
    assert program == [Instruction(line.code, line.jt, line.jf, line.k) for line in lines]
    table = re.findall(r"\{ +(\d+), POLICY_(\w+), (\d) \}", text)
    assert table == [(str(n), each.fixup.constant, str(each.fixup.word)) for n, each in enumerate(lines) if each.fixup]
    assert re.findall(r"X\([A-Z0-9_]+, (\w+)\)", text) == [call.name for call in real().calls]
    constants = re.search(r"enum policy_constant \{(.*?)\}", text, re.DOTALL)
    assert constants is not None
    assert re.findall(r"POLICY_(\w+),", constants[1]) == list(model.CONSTANTS)


def test_header_is_in_the_kernels_style() -> None:
    text = header.render(real())
    assert text.startswith("/* SPDX-License-Identifier: GPL-2.0 */\n")
    assert text.endswith("#endif\n")
    assert [line for line in text.splitlines() if line != line.rstrip() or len(line.expandtabs(8)) > 100] == []
    assert "\n\n\n" not in text


def test_every_hole_is_filled_from_a_known_constant() -> None:
    used = {line.fixup.constant for line in compiler.compile_policy(real()) if line.fixup}
    assert used == set(model.CONSTANTS)
    assert Fixup("TIMER", 1) in [line.fixup for line in compiler.compile_policy(real())]
