# SPDX-License-Identifier: Apache-2.0
"""The simulator of seccomp filters, compared with the host's kernel, and its command line."""

from __future__ import annotations

import errno
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nabla.core.paths import ROOT
from nabla.policy.tasks import FILTER
from tests.unit import seccomp_host
from tests.unit.seccomp_host import Page
from verify import bpf, seccomp, syscall_table
from verify.bpf import Call, FilterError, Instruction

RETURN, LOAD = bpf.RET | bpf.K, bpf.LD | bpf.W | bpf.ABS
ALLOW = Instruction(RETURN, 0, 0, bpf.ALLOW)
EQUAL = bpf.JMP | bpf.JEQ | bpf.K

# One `write` allowed from the dynamic linker's point of view, in strace's notation.
TEXT = """
[BPF_STMT(BPF_LD|BPF_W|BPF_ABS, 0x4), BPF_JUMP(BPF_JMP|BPF_K|BPF_JEQ, AUDIT_ARCH_X86_64, 0, 0x2),
 BPF_STMT(BPF_LD|BPF_W|BPF_ABS, 0), BPF_JUMP(BPF_JMP|BPF_K|BPF_JEQ, __NR_write, 0x1, 0),
 BPF_STMT(BPF_RET|BPF_K, SECCOMP_RET_KILL_PROCESS), BPF_STMT(BPF_RET|BPF_K, SECCOMP_RET_ERRNO|0x16)]
"""


def refused(*program: Instruction) -> bool:
    """Return whether the host's kernel accepts a program."""
    error = seccomp_host.in_child(lambda: seccomp_host.install([*program]))
    # The kernel accepted a filter that kills at the next call.
    assert error in (0, errno.EINVAL, -signal.SIGSYS), error
    return bool(error == errno.EINVAL)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ([], "0 instructions"),
        ([ALLOW] * 4097, "4097 instructions"),
        ([Instruction(LOAD, 0, 0, 0)], "does not return"),
        ([Instruction(LOAD, 0, 0, 2), ALLOW], "instruction 0: load from offset 2"),
        ([Instruction(LOAD, 0, 0, 64), ALLOW], "instruction 0: load from offset 64"),
        ([Instruction(0x28, 0, 0, 0), ALLOW], "instruction 0: operation 0x0028 is unknown"),  # half a word
        ([Instruction(0x40, 0, 0, 0), ALLOW], "instruction 0: operation 0x0040 is unknown"),  # BPF_IND
        ([Instruction(0x94, 0, 0, 3), ALLOW], "instruction 0: operation 0x0094 is unknown"),  # modulo
        ([Instruction(0x0E, 0, 0, 3), ALLOW], "instruction 0: operation 0x000e is unknown"),  # return x
        ([Instruction(EQUAL, 0, 1, 0), ALLOW], "instruction 0: jump behind the end"),
        ([Instruction(EQUAL, 1, 0, 0), ALLOW], "instruction 0: jump behind the end"),
        ([Instruction(0x05, 0, 0, 1), ALLOW], "instruction 0: jump behind the end"),
        ([Instruction(0x05, 0, 0, 0xFFFFFFFF), ALLOW], "instruction 0: jump behind the end"),
        ([Instruction(0x34, 0, 0, 0), ALLOW], "instruction 0: division by zero"),
        ([Instruction(0x64, 0, 0, 32), ALLOW], "instruction 0: shift by 32"),
        ([Instruction(0x02, 0, 0, 16), ALLOW], "instruction 0: there is no memory word 16"),
        ([Instruction(0x60, 0, 0, 3), ALLOW], "instruction 0: memory word 3 may not have been stored"),
        (
            [Instruction(EQUAL, 1, 0, 0), Instruction(0x02, 0, 0, 5), Instruction(0x60, 0, 0, 5), ALLOW],
            "instruction 2: memory word 5",
        ),
    ],
)
def test_checker_refuses_what_the_kernel_refuses(program: list[Instruction], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        bpf.check(program)
    if len(program) <= 0xFFFF:
        assert refused(*program)


def random_program(dice: random.Random, length: int) -> list[Instruction]:
    """Generate a body that runs to its end, mostly valid."""
    known = sorted(bpf._KNOWN)
    body = []
    for index in range(length):
        code = dice.choice(known) if dice.random() < 0.98 else dice.randrange(256)
        left = length - index - 1
        k = dice.choice((0, 1, 2, 5, 31, 32, 40, 60, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, dice.randrange(1 << 32)))
        if code == LOAD:
            k = dice.randrange(16) * 4
        elif code in (bpf.LD | bpf.MEM, bpf.LDX | bpf.MEM, bpf.ST, bpf.STX):
            k = dice.randrange(4)
        elif code == bpf.JMP | bpf.JA:
            k = dice.randint(0, left)
        elif code & 7 == bpf.ALU and code & 8 == 0 and code & 0xF0 in (0x60, 0x70):
            k = dice.randrange(32) if dice.random() < 0.95 else k
        elif code == RETURN:
            k = bpf.ERRNO | dice.randrange(1, 4096)
        elif code == bpf.RET | bpf.A:
            code = bpf.MISC | bpf.TAX
        body.append(Instruction(code, dice.randint(0, min(left, 255)), dice.randint(0, min(left, 255)), k))
    # a -> an error number
    end = [(bpf.ALU | 0x50 | bpf.K, 0xFFF), (bpf.ALU | 0x40 | bpf.K, bpf.ERRNO), (bpf.RET | bpf.A, 0)]
    return [*body, *(Instruction(code, 0, 0, k) for code, k in end)]


def test_random_programs_do_on_the_host_what_the_simulator_says() -> None:
    page, dice = Page(), random.Random(20261122)
    numbers = [number for number in range(512) if number not in seccomp.UNFILTERED]
    taken = compared = 0
    for _ in range(300):
        program = [*seccomp_host.only_from(page), *random_program(dice, dice.randint(1, 40))]
        try:
            bpf.check(program)
        except FilterError as problem:
            assert refused(*program), f"the host takes what the checker refuses: {problem}"
            continue
        taken += 1
        calls = [
            (
                dice.randrange(page.copies),
                Call(dice.choice(numbers), args=tuple(dice.randrange(1 << 64) for _ in range(6))),
            )
            for _ in range(8)
        ]
        seen = [bpf.run(program, Call(call.nr, page.ip(copy), call.args)) for copy, call in calls]
        calls = [pair for pair, verdict in zip(calls, seen, strict=True) if verdict.action == "errno"]
        wanted = [verdict.data for verdict in seen if verdict.action == "errno"]
        assert seccomp_host.verdicts(program, page, calls) == wanted, "\n".join(bpf.describe(program))
        compared += len(wanted)
    assert taken > 100 and compared > 500


def questions(dice: random.Random, count: int) -> list[Instruction]:
    """Generate a program that loads arguments, sometimes computes with them, and returns in several places."""
    body: list[Instruction] = []
    constants = (0, 1, 2, 3, 0x80000000, 0xFFFFFFFF)
    while len(body) < count:
        body.append(Instruction(LOAD, 0, 0, dice.randrange(16) * 4))
        if dice.random() < 0.3:
            code = dice.choice(
                [each for each in sorted(bpf._KNOWN) if each & 7 in (bpf.ALU, bpf.MISC) and each & 0x60 < 0x60]
            )
            body.append(Instruction(code, 0, 0, dice.choice((1, 2, 3))))
        if dice.random() < 0.3:
            body += [Instruction(bpf.ST, 0, 0, 1), Instruction(bpf.LDX | bpf.MEM, 0, 0, 1)]
        code = bpf.JMP | dice.choice((bpf.JEQ, bpf.JGT, bpf.JGE, bpf.JSET)) | dice.choice((bpf.K, bpf.K, bpf.X))
        body.append(Instruction(code, dice.randrange(3), dice.randrange(3), dice.choice(constants)))
        body += [Instruction(RETURN, 0, 0, dice.choice(sorted(bpf.ACTIONS))) for _ in range(2)]
    return [*body, ALLOW, ALLOW]


def test_no_argument_leads_to_a_verdict_that_was_not_foreseen() -> None:
    dice = random.Random(4)
    several = 0
    for _ in range(1000):
        program = questions(dice, dice.randint(5, 60))
        bpf.check(program)
        number, ip = dice.randrange(3), dice.choice((0, 1, 1 << 32))
        foreseen = bpf.possible(program, Call(number, ip))
        arguments = [tuple(dice.choice((0, 1, 2, 3, (1 << 64) - 1)) for _ in range(6)) for _ in range(40)]
        seen = {bpf.run(program, Call(number, ip, args)).action for args in arguments}
        assert seen <= foreseen, "\n".join(bpf.describe(program))
        several += len(seen) > 1
    assert several > 100


def test_foreseen_verdicts_are_no_more_than_needed() -> None:
    program = seccomp.decode(TEXT.encode())
    assert bpf.possible(program, Call(1)) == {"errno"}
    assert bpf.possible(program, Call(2)) == {"kill"}
    looks = [Instruction(LOAD, 0, 0, 16), Instruction(EQUAL, 0, 1, 5), ALLOW, Instruction(RETURN, 0, 0, bpf.TRAP)]
    assert bpf.possible(looks, Call(1, args=(5,))) == {"allow", "trap"}


def test_a_division_by_zero_ends_the_program() -> None:
    program = [Instruction(bpf.LDX, 0, 0, 0), Instruction(0x3C, 0, 0, 0), ALLOW]
    bpf.check(program)
    assert bpf.run(program, Call(1)).action == "kill-thread"
    assert seccomp_host.in_child(lambda: seccomp_host.install(program)) == -signal.SIGSYS


def test_an_unknown_verdict_kills() -> None:
    program = [Instruction(RETURN, 0, 0, 0x12340000)]
    assert bpf.run(program, Call(1)).action == "kill"
    assert seccomp_host.in_child(lambda: seccomp_host.install(program)) == -signal.SIGSYS


def test_text_and_bytes_are_the_same_program() -> None:
    program = seccomp.decode(TEXT.encode())
    assert len(program) == 6
    assert seccomp.decode(seccomp.encode(program)) == program
    assert bpf.run(program, Call(1)) == bpf.Verdict("errno", 22, 5)
    assert bpf.run(program, Call(0)).action == "kill"
    assert bpf.run(program, Call(1, arch=bpf.ARCH_I386)).action == "kill"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"1234567", "7 bytes"),
        (b"BPF_STMT(BPF_RET|BPF_K)", "2 operands are expected"),
        (b"BPF_STMT(BPF_RET|BPF_Q, 0)", "'BPF_Q' is neither a number nor a known name"),
        (b"BPF_STMT(BPF_RET|BPF_K, __NR_nothing)", "'__NR_nothing' is neither"),
        (b"BPF_STMT(BPF_LD|BPF_W|BPF_ABS, 0)", "does not return"),
    ],
)
def test_what_is_no_filter_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        seccomp.decode(data)


def test_damaged_dumps_are_an_error_or_a_sound_program() -> None:
    dice = random.Random(5)
    whole = [seccomp.encode(questions(dice, 40)), TEXT.encode()]
    refusals = 0
    for _ in range(2000):
        data = bytearray(dice.choice(whole))
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            program = seccomp.decode(bytes(data[: dice.randrange(len(data) + 1)]))
        except FilterError:
            refusals += 1
        else:
            assert bpf.run(program, Call(1)).action in bpf.possible(program, Call(1))
            assert len(list(bpf.describe(program))) == len(program)
    assert 100 < refusals < 2000


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "verify.seccomp", *map(str, words)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


def test_command_line(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    dump.write_text(TEXT)
    shown = command(dump, "show")
    assert shown.returncode == 0
    assert shown.stdout.splitlines() == [
        "   0  a = arch",
        "   1  if a == 0xc000003e goto 2 else 4",
        "   2  a = nr",
        "   3  if a == 0x1 goto 5 else 4",
        "   4  return kill",
        "   5  return errno 22",
    ]
    asked = command(dump, "ask", "write", "1", "-1", "--ip", "0x1000")
    assert (asked.returncode, asked.stdout) == (1, "write: errno 22 after 5 instructions\n")
    assert command(dump, "sweep").stdout == "errno: write\nkill: all others\n"
    wrong = command(dump, "ask", "no_such_call")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "'no_such_call' is neither a number nor a known name" in wrong.stderr
    assert command(tmp_path / "absent", "show").returncode == 2


def test_command_line_on_the_policy() -> None:
    """The filter that `doit policy:dump` writes."""
    settings = ["--set=TEXT_START=0x1000", "--set=TEXT_END=0x2000", "--set=STREAM_OUT=6", "--set=DENY=0x80000000"]
    doit = [sys.executable, "-m", "doit", "policy:dump"]
    subprocess.run([*doit, *settings], cwd=ROOT, check=True)
    good = command(FILTER, "ask", "pwritev2", "1", "0", "1", "-1", "--ip", "0x1002")
    assert (good.returncode, good.stdout.split(" after ")[0]) == (0, "pwritev2: allow")
    bad = command(FILTER, "ask", "pwritev2", "3", "0", "1", "-1", "--ip", "0x1002")
    assert (bad.returncode, bad.stdout.split(" after ")[0]) == (1, "pwritev2: kill")
    unknown = subprocess.run([*doit, "--set=X=1"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert unknown.returncode == 2 and "there is no constant 'X'" in unknown.stderr


def test_the_calls_that_hosts_hide_from_filters_do_nothing() -> None:
    page = Page()
    program = [*seccomp_host.only_from(page), Instruction(RETURN, 0, 0, bpf.ERRNO | 900)]
    for number in seccomp.UNFILTERED:
        # Either the host is older and shows them to the filter, or they are reserved for its own trampolines.
        try:
            assert seccomp_host.verdicts(program, page, [(0, Call(number))]) in ([900], [errno.ENXIO])
        except AssertionError as death:
            assert "SIGILL" in str(death)


def test_names_of_calls() -> None:
    assert syscall_table.numbers()["read"] == 0
    assert syscall_table.numbers()["pwritev2"] == 328
    assert seccomp.name_of(bpf.X32_BIT | 5) == "x32 5"
    assert seccomp.name_of(-1) == "-1"
    assert seccomp.name_of(400) == "400"
