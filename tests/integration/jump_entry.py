# SPDX-License-Identifier: Apache-2.0
"""Run a program on this host as if the kernel had given it a syscall entry point in AT_SYSINFO.

    python -m tests.integration.jump_entry PROGRAM [ARG…]

ptrace stops the program after each execve. Its auxiliary vector gets an AT_SYSINFO (replacing the entry for the vDSO),
which points to a few instructions in a page mapped into the program. They check that the return address in RCX directly
follows a `syscall` instruction, increment a counter, and jump to that instruction: the call is made and returns as in
the guest's kernel. Every path through libc's jump form therefore runs without a VM, including signals, cancellation and
restarts. At the end, one line on stderr reports the number of calls through the entry point.

Exit status: the program's own, 128+N for a signal; 125 when tracing does not work here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Sequence

# Values of <sys/ptrace.h>, <elf.h>, <asm/unistd_64.h> and <sys/user.h> (struct user_regs_struct: 27 words).
PTRACE_TRACEME, PTRACE_CONT, PTRACE_SINGLESTEP, PTRACE_GETREGS, PTRACE_SETREGS = 0, 7, 9, 12, 13
PTRACE_SETOPTIONS = 0x4200
OPTIONS = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x100000  # fork, vfork, clone, exec, exit; kill the tracees with us
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_EXIT = 1, 2, 3, 4, 6
AT_NULL, AT_SYSINFO, AT_SYSINFO_EHDR = 0, 32, 33
SYS_MMAP = 9
RAX, ORIG_RAX, RIP, RSP = 10, 15, 16, 19
RDI, RSI, RDX, R10, R9, R8 = 14, 13, 12, 7, 8, 9
PAGE = 4096

#: At the start of the page the counter, then:  cmpw $0x050f,-2(%rcx); jne 1f; lock incq counter(%rip);
#: lea -2(%rcx),%r11; jmp *%r11; 1: ud2
STUB = bytes.fromhex("66 81 79 fe 0f 05  75 0f  f0 48 ff 05 e8 ff ff ff  4c 8d 59 fe  41 ff e3  0f 0b")
STUB_OFFSET = 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long
Registers = ctypes.c_uint64 * 27


def ptrace(request: int, pid: int, data: object = None) -> None:
    """Call ptrace(2) without an address; raises OSError."""
    if _libc.ptrace(request, pid, None, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def read(pid: int, address: int, size: int) -> bytes:
    """Read `size` bytes of a stopped tracee's memory."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(size)


def write(pid: int, address: int, data: bytes) -> None:
    """Write to a stopped tracee's memory, read-only pages included."""
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        memory.write(data)


def map_page(pid: int) -> int:
    """Make a stopped tracee map one page for the stub; returns its address and leaves its registers unchanged."""
    saved, registers = Registers(), Registers()
    ptrace(PTRACE_GETREGS, pid, ctypes.byref(saved))
    code = read(pid, saved[RIP], 2)
    ctypes.memmove(registers, saved, ctypes.sizeof(saved))
    registers[RAX], registers[ORIG_RAX] = SYS_MMAP, 2**64 - 1
    registers[RDI], registers[RSI], registers[RDX] = 0, PAGE, 7  # PROT_READ | PROT_WRITE | PROT_EXEC
    registers[R10], registers[R8], registers[R9] = 0x22, 2**64 - 1, 0  # MAP_PRIVATE | MAP_ANONYMOUS
    write(pid, saved[RIP], b"\x0f\x05")
    ptrace(PTRACE_SETREGS, pid, ctypes.byref(registers))
    ptrace(PTRACE_SINGLESTEP, pid)
    os.waitpid(pid, 0)
    ptrace(PTRACE_GETREGS, pid, ctypes.byref(registers))
    page = registers[RAX]
    write(pid, saved[RIP], code)
    ptrace(PTRACE_SETREGS, pid, ctypes.byref(saved))
    if page >= 2**64 - PAGE:
        raise OSError(2**64 - page, "mmap in the tracee")
    return page


def auxv_entry(pid: int, wanted: int) -> int:
    """Return the address of an entry of the auxiliary vector, right after execve when RSP points to argc."""
    registers = Registers()
    ptrace(PTRACE_GETREGS, pid, ctypes.byref(registers))
    (argc,) = struct.unpack("<Q", read(pid, registers[RSP], 8))
    address = registers[RSP] + 8 * (argc + 2)
    while read(pid, address, 8) != bytes(8):
        address += 8
    address += 8
    while True:
        key, _ = struct.unpack("<QQ", read(pid, address, 16))
        if key == wanted:
            return int(address)
        if key == AT_NULL:
            raise OSError(0, f"the host's kernel gave no auxv entry {wanted}")
        address += 16


def inject(pid: int) -> int:
    """Give a tracee the entry point right after its execve; returns the address of the counter."""
    entry = auxv_entry(pid, AT_SYSINFO_EHDR)
    page = map_page(pid)
    write(pid, page + STUB_OFFSET, STUB)
    write(pid, entry, struct.pack("<QQ", AT_SYSINFO, page + STUB_OFFSET))
    return page


def follow(first: int) -> tuple[int, int]:
    """Trace until the last process is gone; returns the first one's wait status and the number of all calls."""
    counters: dict[int, int] = {}
    calls, result = 0, 0
    alive, fresh = {first}, {first}
    while alive:
        pid, status = os.waitpid(-1, 0x40000000)  # __WALL
        if not os.WIFSTOPPED(status):
            alive.discard(pid)
            result = status if pid == first else result
            continue
        alive.add(pid)
        deliver, event = os.WSTOPSIG(status), status >> 16
        try:
            if event == EVENT_EXEC:
                # Still inside execve, which will set RAX. The signal stops the tracee again before its first
                # instruction.
                os.kill(pid, signal.SIGSTOP)
                fresh.add(pid)
            elif pid in fresh and not event:
                fresh.discard(pid)
                ptrace(PTRACE_SETOPTIONS, pid, OPTIONS)
                counters[pid] = inject(pid)
                deliver = 0
            elif event == EVENT_EXIT and pid in counters:
                calls += struct.unpack("<Q", read(pid, counters.pop(pid), 8))[0]
            if event or deliver == signal.SIGTRAP or (deliver == signal.SIGSTOP and pid not in counters):
                deliver = 0
            ptrace(PTRACE_CONT, pid, deliver)
        except ProcessLookupError:
            continue  # killed after it stopped: waitpid will report its end
    return result, calls


def main(argv: Sequence[str]) -> int:
    """Run `argv` and return its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            ptrace(PTRACE_TRACEME, 0)
            os.execv(argv[0], list(argv))
        except OSError as error:
            print(f"jump_entry: {argv[0]}: {error}", file=sys.stderr)
        os._exit(125)
    try:
        status, calls = follow(pid)
    except OSError as error:
        print(f"jump_entry: cannot trace here: {error}", file=sys.stderr)
        return 125
    print(f"jump_entry: {calls} calls", file=sys.stderr)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
