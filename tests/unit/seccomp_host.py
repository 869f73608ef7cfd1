# SPDX-License-Identifier: Apache-2.0
"""The host's own seccomp, for comparison: installs a filter in a child and lets it try calls from chosen addresses.

A page of machine code represents the VM's texts. Verdicts become error numbers, so that no call is actually made and
one child can try thousands; the tests' interpreter continues to work, because the filter first checks whether the call
comes from that page.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import mmap
import os
import resource
import signal
import struct
from collections.abc import Callable, Sequence
from typing import Any

from verify import bpf
from verify.bpf import Call, Instruction
from verify.seccomp import encode

PR_SET_NO_NEW_PRIVS, SECCOMP_SET_MODE_FILTER, NR_SECCOMP = 38, 1, 317

# long call(unsigned long words[7]): number and arguments into their registers, `syscall`, `ret`
_LOAD = bytes.fromhex("488b07 488b7710 488b5718 4c8b5720 4c8b4728 4c8b4f30 488b7f08".replace(" ", ""))
SYSCALL = _LOAD + b"\x0f\x05\xc3"
# the same through int $0x80, with its registers: EBX ECX EDX ESI EDI EBP
INT80 = bytes.fromhex("53 55 8b07 8b5f08 8b4f10 8b5718 8b7720 8b6f30 8b7f28 cd80 48 98 5d 5b c3".replace(" ", ""))
IP_AFTER_SYSCALL, IP_AFTER_INT80 = len(SYSCALL) - 1, INT80.index(b"\xcd\x80") + 2
STEP = 64

# Verdicts become these error numbers, which no kernel function returns here.
VISIBLE = {"allow": 900, "trap": 901, "kill": 902, "kill-thread": 903, "trace": 904}


class Page:
    """Executable memory with several copies of the code; `ip(n)` is the host's address of a call by copy n."""

    def __init__(self, code: bytes = SYSCALL, ip_after: int = IP_AFTER_SYSCALL) -> None:
        self.memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.copies = mmap.PAGESIZE // STEP
        for number in range(self.copies):
            self.memory[number * STEP : number * STEP + len(code)] = code
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.ip_after = ip_after

    def ip(self, number: int) -> int:
        """Return the address behind the call's instruction in one copy."""
        return self.start + number * STEP + self.ip_after

    def call(self, number: int, nr: int, args: Sequence[int]) -> int:
        """Make a call from one copy; returns what is in RAX, signed."""
        words = [value & (1 << 64) - 1 for value in (nr, *args, 0, 0, 0, 0, 0, 0)][:7]
        function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(self.start + number * STEP)
        return int(function(ctypes.cast((ctypes.c_uint64 * 7)(*words), ctypes.c_void_p)))


def visible(program: Sequence[Instruction], page: Page) -> list[Instruction]:
    """Return the program with its verdicts as error numbers, in force for calls from the page only."""
    shown = []
    for each in program:
        if each.code == bpf.RET | bpf.K:
            action = bpf.ACTIONS[each.k & 0xFFFF0000]
            if action != "errno":
                each = Instruction(each.code, 0, 0, bpf.ERRNO | VISIBLE[action])
        shown.append(each)
    return [*only_from(page), *shown]


def only_from(page: Page) -> list[Instruction]:
    """Return instructions that permit all calls from outside the page."""
    low, high = page.start & 0xFFFFFFFF, page.start >> 32
    load, jump = bpf.LD | bpf.W | bpf.ABS, bpf.JMP | bpf.K
    return [
        Instruction(load, 0, 0, 12),
        Instruction(jump | bpf.JEQ, 0, 3, high),
        Instruction(load, 0, 0, 8),
        Instruction(jump | bpf.JGE, 0, 1, low),
        Instruction(jump | bpf.JGT, 0, 1, low + mmap.PAGESIZE - 1),
        Instruction(bpf.RET | bpf.K, 0, 0, bpf.ALLOW),
    ]


def install(program: Sequence[Instruction]) -> int:
    """Install a filter on this thread permanently; returns 0 or the error number."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    data = ctypes.create_string_buffer(encode(program))
    # struct sock_fprog: a length of 16 bits, and at the next multiple of 8 a pointer
    wrapped = ctypes.create_string_buffer(struct.pack("<H6xQ", len(program), ctypes.addressof(data)))
    ctypes.set_errno(0)
    result = libc.syscall(NR_SECCOMP, SECCOMP_SET_MODE_FILTER, 0, wrapped)
    return ctypes.get_errno() if result < 0 else 0


def in_child(work: Callable[[], Any]) -> Any:
    """Run `work` in a child; returns its result, through JSON, or -signal for a killed child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            answer = json.dumps(work()).encode()
            with os.fdopen(writing, "wb") as stream:
                stream.write(answer)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        text = stream.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return -os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "the child failed, see its traceback"
    return json.loads(text)


def verdicts(program: Sequence[Instruction], page: Page, calls: Sequence[tuple[int, Call]]) -> list[int]:
    """Return the error number of each call, made from a copy of the page's code."""

    def work() -> list[int]:
        error = install(program)
        assert error == 0, f"the host refuses the filter: {os.strerror(error)}"
        return [-page.call(copy, call.nr, call.args) for copy, call in calls]

    answers = in_child(work)
    assert isinstance(answers, list), f"the child died of {signal.Signals(-answers).name}"
    return answers
