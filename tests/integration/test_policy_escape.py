# SPDX-License-Identifier: Apache-2.0
"""Guest programs that jump to their kernel's own `syscall` instructions: only calls that the policy lists take effect.

Each attempt runs in its own VM (tests/guest/escape.c). The simulator, with the actual filter of such a VM, decides
which attempts must be killed. The others are permitted by design: the kernel makes the same call with the same
arguments for any guest, on the VM's own streams, disks and timer.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from nabla.policy import model
from nabla.policy.model import Rule
from verify import bpf, seccomp, syscall_table
from verify.bpf import Call, Instruction

from . import confined
from .confined import PROGRAM, Bare, Ending, gadget, snapshot
from .vm import Result, Vm

KILLED = 159  # nabla-run's status: 128 + SIGSYS
TOP = (1 << 64) - 1
FORBIDS = "host system call that its policy forbids"
Attempt = tuple[int, tuple[int, ...]]


@pytest.fixture(scope="module")
def machine(testing: Vm) -> Vm:
    """As small as the test image allows."""
    return testing.but(memory="64M")


@pytest.fixture(scope="module")
def installed(bare: Bare, strace: str, tmp_path_factory: pytest.TempPathFactory) -> list[Instruction]:
    """The filter that `bare` installed."""
    log = tmp_path_factory.mktemp("strace") / "log"
    prefix = [*confined.tracer(strace), "-f", "-v", "-e", "trace=seccomp", "-o", str(log)]
    assert bare.run("/bin/true", prefix=prefix).status == 0
    (installed_filter,) = confined.filters(log.read_text())
    return installed_filter


def judge(installed: Sequence[Instruction], number: int, args: Sequence[int], address: int) -> str:
    """Return the filter's verdict on a call from the instruction at `address`."""
    return bpf.run(installed, Call(number, address + 2, tuple(args))).action


def with_launcher(machine: Vm, attempts: Sequence[tuple[int | str, int, tuple[int, ...]]]) -> list[Result]:
    """Make each attempt in a VM started by nabla-run; place, number, arguments."""

    def one(attempt: tuple[int | str, int, tuple[int, ...]]) -> Result:
        address, number, args = attempt
        return machine.run(PROGRAM, str(address), str(number), *map(str, args))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, attempts))


def was_killed(result: Result) -> bool:
    return result.status == KILLED and FORBIDS in result.errors and "back with" not in result.output


def test_every_number_is_killed(machine: Vm, installed: list[Instruction]) -> None:
    """All of x86-64, as many of x32, and invalid ones. Arguments are 0; a few listed calls are permitted with these."""
    numbers = [*range(512), *(bpf.X32_BIT | number for number in range(600)), -1, -2, -39, 0x7FFFFFFF, 1 << 31]
    numbers += [number | 1 << 32 for number in (0, 39, 231)]  # the host uses 32 bits
    address = gadget()
    expected = {number: judge(installed, number, (), address) for number in numbers}
    results = with_launcher(machine, [(address, number, ()) for number in numbers])
    wrong = []
    for number, result in zip(numbers, results, strict=True):
        if number in seccomp.UNFILTERED and not was_killed(result):
            # Newer hosts hide these two from all filters; they do nothing here (SIGILL, ENXIO).
            good = result.status == 128 + signal.SIGILL or "back with -6" in result.output
        elif expected[number] == "kill":
            good = was_killed(result)
        else:
            good = not was_killed(result)
        if not good:
            wrong.append((seccomp.name_of(number), expected[number], result))
    assert wrong == []
    allowed = {seccomp.name_of(n & 0xFFFFFFFF) for n, verdict in expected.items() if verdict == "allow"}
    assert allowed <= {call.name for call in model.load().calls}
    assert list(expected.values()).count("kill") > 1100


def test_every_instruction_of_the_kernel_is_behind_the_filter(machine: Vm) -> None:
    """Those of the running kernel, and those of its boot code, which is still in memory but may make no call."""
    getpid, clock = syscall_table.numbers()["getpid"], (syscall_table.numbers()["clock_gettime"], (1, 0))
    running = confined.running_entries()
    early = [entry for entry in confined.entries() if entry not in running]
    assert len(running) >= 9 and len(early) >= 9
    attempts: list[tuple[int | str, int, tuple[int, ...]]] = [
        *((entry.address, getpid, ()) for entry in [*running, *early]),
        *((entry.address, *clock) for entry in early),
    ]
    results = with_launcher(machine, attempts)
    wrong = [(hex(int(a[0])), a[1], r) for a, r in zip(attempts, results, strict=True) if not was_killed(r)]
    assert wrong == []


def test_the_hosts_vdso_tells_the_time_only(machine: Vm) -> None:
    address = f"vdso:{confined.symbols()['um_vdso_start']}"
    numbers = syscall_table.numbers()
    forbidden = [(numbers["getpid"], ()), (numbers["clock_gettime"], (2, 0)), (numbers["clock_gettime"], (-6 & TOP, 0))]
    forbidden += [(numbers["write"], (1, 0, 0)), (numbers["rt_sigreturn"], ()), (numbers["clock_getres"], (1, 0))]
    for number, args in forbidden:
        assert was_killed(machine.run(PROGRAM, address, str(number), *map(str, args))), (number, args)
    # The code behind the instruction is not a program's; it only matters that the instruction runs.
    assert not was_killed(machine.run(PROGRAM, address, str(numbers["clock_gettime"]), "1", "0"))


def test_the_guest_kernel_serves_the_vsyscall_page(machine: Vm) -> None:
    """Old programs call there for the time; the host shows that to the filter as a call from that address."""
    for call in range(3):
        result = machine.run(PROGRAM, str(0xFFFFFFFFFF600000 + 1024 * call), "0", "zeros:16", "zeros:16")
        # On hosts without that page it is a jump to an unmapped address.
        assert "back with" in result.output or result.status == 128 + signal.SIGSEGV, result
        assert not was_killed(result)


def foreign(rule: Rule, good: int) -> list[int]:
    """Return values that a rule should reject, around its limits and beyond 32 bits."""
    values = [good | 1 << 32, good | 1 << 63, good ^ 1 << 40]
    known = confined.symbols()
    start, end = (known["_end"] + 4095) & ~4095, confined.BASE + Bare.MEMORY  # of guest memory
    if rule.within == "WINDOW" or rule.at_most == "WINDOW_SIZE":
        start, end = confined.window(Bare.MEMORY)
    if rule.within == "LOW" or rule.at_most == "LOW_SIZE":
        start, end = confined.LOW
    if rule.member is not None:
        values += [*range(17), 31, 32, 35, 63, 67, 1000, TOP, -100 & TOP]
    elif rule.equals is not None:
        values += [good + 1, good - 1, 1, 2, 16, TOP, 0x1000]
    elif rule.at_most is not None:
        limit = rule.at_most if isinstance(rule.at_most, int) else end - start
        values += [limit + 1, limit + 4096, 0x7FFFFFFF, 0x80000000, TOP, -4096 & TOP]
    elif rule.within is not None:
        values += [start - 1, start - 4096, end, end + 4096, 0, 1 << 32, 1 << 47, TOP, -4096 & TOP]
        values += [known[name] & ~4095 for name in ("_stext", "_etext", "_sdata", "um_status")]
    elif rule.one_of is not None:
        values += [*range(16), 0x01000005, 0x02000007, 0x1003, 0x1004, 0x3001, TOP, -2 & TOP, -6 & TOP]
    elif rule.not_negative:
        values += [1 << 63, TOP, TOP - 1, -4096 & TOP]
    return [value & TOP for value in values]


GOOD: dict[str, list[tuple[int, ...]]] = {
    "ppoll": [(0, 0, 0, 0, 8)],
    "timer_settime": [(0, 0, 0, 0)],
    "preadv2": [(0, 0, 0, TOP, 0, 0), (3, 0, 0, 0, 0, 0)],
    "pwritev2": [(1, 0, 0, TOP, 0, 0), (3, 0, 0, 0, 0, 0)],
    "rt_sigreturn": [()],
    "mprotect": [
        (confined.BASE + Bare.MEMORY // 2, 4096, 7),
        (confined.window(Bare.MEMORY)[0], 4096, 7),
        (confined.LOW[0], 4096, 7),
    ],
    "fdatasync": [(3,)],
    "clock_gettime": [(1, 0)],
    "exit_group": [(7,)],
    "arch_prctl": [(0x1003, 0)],
}


def foreign_attempts(installed: Sequence[Instruction]) -> Iterator[Attempt]:
    """Yield each listed call with one argument after another made foreign, where the filter must kill it."""
    for call in model.load().calls:
        for good, allow in zip(GOOD[call.name], call.allow, strict=True):
            for index, rule in enumerate(allow.rules):
                for value in foreign(rule, good[index]):
                    args = (*good[:index], value, *good[index + 1 :])
                    if judge(installed, call.number, args, gadget()) == "kill":
                        yield call.number, args


def test_listed_calls_with_foreign_arguments_are_killed(bare: Bare, installed: list[Instruction]) -> None:
    """Without the launcher's other protections. Streams, disks and the foreign file stay unchanged."""
    attempts = sorted(set(foreign_attempts(installed)))
    names = {syscall_table.names()[number] for number, _ in attempts}
    assert names == {call.name for call in model.load().calls if call.arguments}
    assert len(attempts) > 200
    with snapshot(bare.folder) as unchanged, ThreadPoolExecutor(os.cpu_count()) as pool:
        endings = list(pool.map(lambda each: bare.attempt(gadget(), each[0], *each[1]), attempts))
    wrong = [(a, e) for a, e in zip(attempts, endings, strict=True) if e != Ending(-signal.SIGSYS, "")]
    assert wrong == []
    assert unchanged()


def test_listed_calls_as_the_kernel_makes_them_are_allowed(bare: Bare, installed: list[Instruction]) -> None:
    """By design: such a jump gains nothing beyond the VM's own abilities."""
    for name, goods in GOOD.items():
        if name in ("rt_sigreturn", "arch_prctl"):
            continue
        for args in goods:
            assert judge(installed, syscall_table.numbers()[name], args, gadget()) == "allow", (name, args)
            ending = bare.attempt(gadget(), syscall_table.numbers()[name], *args)
            assert ending.status >= 0, (name, args, ending)
    assert bare.attempt(gadget(), syscall_table.numbers()["exit_group"], 7) == Ending(7, "")
    assert bare.attempt(gadget(), syscall_table.numbers()["pwritev2"], 1, "iov:hi\n", 1, -1).output.startswith(
        "hi\nback with 3"
    )


def test_a_guest_that_protects_its_kernels_memory_ends_its_own_vm(bare: Bare) -> None:
    """All of guest memory, its upper part, and a length that passes its end: nothing outside changes."""
    start, end = (confined.symbols()["_end"] + 4095) & ~4095, confined.BASE + Bare.MEMORY
    ranges = ((start, end - start), (end - (16 << 20), 16 << 20), (end - 4096, end - start))
    before = set(os.listdir("/proc"))
    with snapshot(bare.folder) as unchanged:
        endings = {
            (where, rights): bare.attempt(gadget(), syscall_table.numbers()["mprotect"], *where, rights)
            for where in ranges
            for rights in (0, 5, 7)
        }
        assert unchanged()
    assert bare.left_behind(before) == []
    assert {rights: endings[ranges[0], rights].status for rights in (0, 5, 7)} == {
        0: -signal.SIGSEGV,
        5: -signal.SIGSEGV,
        7: 0,
    }
    assert all(endings[ranges[1], rights].status in (-signal.SIGSEGV, 125) for rights in (0, 5))
    # The host finds nothing behind guest memory.
    assert {endings[ranges[2], rights].output for rights in (0, 5, 7)} == {"back with -12\n"}
