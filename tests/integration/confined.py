# SPDX-License-Identifier: Apache-2.0
"""A VM and its boundary, seen from the host: the kernel's instructions that enter the host, and their filter.

`Bare` starts the kernel itself, without nabla-run, so that the filter is the only protection.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import ClassVar

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from nabla.core.paths import VMLINUX
from nabla.policy import compiler, model
from nabla.sandbox.bwrap import Bind, Sandbox
from verify import bpf, kernel_code, seccomp
from verify.bpf import Instruction

PROGRAM = "/usr/lib/nabla-tests/escape"
AT_HWCAP2, FSGSBASE = 26, 2
BASE = 0x60000000  # CONFIG: the address of the kernel's image, which the guest's memory follows
WINDOW = 64 << 30  # addresses that become memory when they are touched
LOW = 0x100000, BASE - 0x200000  # likewise, for programs that are linked to an address


@dataclass(frozen=True)
class Entry:
    """A `syscall` instruction of the kernel. `number`: the constant in EAX right before it, if there is one."""

    function: str
    address: int
    section: str
    number: int | None


@cache
def symbols() -> dict[str, int]:
    """The kernel's symbols."""
    with VMLINUX.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        return {symbol.name: int(symbol["st_value"]) for symbol in table.iter_symbols()}


@cache
def entries() -> tuple[Entry, ...]:
    """All instructions of the kernel that enter the host, from its disassembly."""
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox((Bind(VMLINUX.parent, "/src"), Bind(Path(folder), "/build", writable=True)))
        sandbox.run(f"objdump -d -w --no-show-raw-insn /src/{VMLINUX.name} > vmlinux.s", title="disassemble the kernel")
        lines = (Path(folder) / "vmlinux.s").read_text(errors="replace").splitlines()
    numbers = _numbers(lines)
    entries = []
    for use in kernel_code.uses(lines):
        if isinstance(use, kernel_code.Use) and use.kind == "syscall":
            entries.append(Entry(use.function, use.address, use.section, numbers[use.address]))
    return tuple(entries)


def _numbers(lines: Sequence[str]) -> dict[int, int | None]:
    """Return the number in RAX at each `syscall`, by address: constants, and copies of them, within one function."""
    numbers: dict[int, int | None] = {}
    values: dict[str, int] = {}
    for line in lines:
        if re.match(r"^[0-9a-f]+ <(?!um_idle_)", line):
            values = {}
        elif put := re.search(r"\tmov +\$(0x[0-9a-f]+),%([er]\w+)$", line):
            values[_whole(put[2])] = int(put[1], 16)
        elif copied := re.search(r"\tmov +%([er]\w+),%([er]\w+)$", line):
            values.pop(_whole(copied[2]), None)
            if _whole(copied[1]) in values:
                values[_whole(copied[2])] = values[_whole(copied[1])]
        elif entry := re.match(r"^\s*([0-9a-f]+):\tsyscall", line):
            numbers[int(entry[1], 16)] = values.get("ax")
        elif changed := re.search(r"%([er]\w+)$", line):
            values.pop(_whole(changed[1]), None)
    return numbers


def _whole(register: str) -> str:
    """Return one name for a register's widths: eax, rax -> ax."""
    return re.sub(r"^(?:[er](?=[a-z])|(?=r\d))|(?<=\d)d$", "", register)


def running_entries() -> list[Entry]:
    """Return the instructions in the part of the kernel's text that the filter permits."""
    start, end = symbols()["_stext"], symbols()["_etext"]
    return [each for each in entries() if start <= each.address < end]


@cache
def vdso_size() -> int:
    """Bytes of the host's vDSO, from its own program header: it is the same in every process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("[vdso]"):
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            image = ELFFile(BytesIO(ctypes.string_at(start, end - start)))
            sizes = [each["p_vaddr"] + each["p_memsz"] for each in image.iter_segments() if each["p_type"] == "PT_LOAD"]
            return int(max(sizes))
    return 0


def has_fsgsbase() -> bool:
    """Return whether programs of this host may use the FSGSBASE instructions."""
    libc = ctypes.CDLL(None)
    libc.getauxval.restype = ctypes.c_ulong
    return bool(libc.getauxval(ctypes.c_ulong(AT_HWCAP2)) & FSGSBASE)


def tracer(strace: str) -> list[str]:
    """Return the command for strace, as root, since the traced process is not dumpable."""
    return [*([] if os.geteuid() == 0 else ["unshare", "--map-root-user"]), strace]


def filters(trace: str) -> list[list[Instruction]]:
    """Return the filters whose installation strace recorded."""
    lines = [line for line in trace.splitlines() if "seccomp(SECCOMP_SET_MODE_FILTER" in line]
    return [seccomp.decode(line.encode()) for line in lines]


def window(memory: int) -> tuple[int, int]:
    """Return the first and last address of the window: a multiple of its size, and behind it its tables."""
    start = -(-(BASE + 2 * memory) // WINDOW) * WINDOW
    low = 2 << 30
    units, pages = (WINDOW + low) >> 16, (WINDOW + low) >> 12
    return start, start + WINDOW + 3 * units // 8 + units + pages // 4 + (low >> 12) // 8


def constants(memory: int, vdso: int, timer: int, **sets: int) -> dict[str, int]:
    """Return the constants that the kernel must have put into the filter."""
    known = symbols()
    values = dict.fromkeys(model.CONSTANTS, 0)
    return values | {
        "RAM_START": (known["_end"] + 4095) & ~4095,
        "RAM_END": BASE + memory,
        "WINDOW_START": window(memory)[0],
        "WINDOW_END": window(memory)[1],
        "WINDOW_SIZE": window(memory)[1] - window(memory)[0],
        "LOW_START": LOW[0],
        "LOW_END": LOW[1],
        "LOW_SIZE": LOW[1] - LOW[0],
        "RAM_SIZE": BASE + memory - ((known["_end"] + 4095) & ~4095),
        "TEXT_START": known["_stext"],
        "TEXT_END": known["_etext"],
        "VDSO_START": vdso,
        "VDSO_END": vdso + vdso_size() if vdso else 0,
        "TIMER": timer,
        "FSGSBASE_MISSING": int(not has_fsgsbase()),
        "DENY": bpf.KILL_PROCESS,
        **sets,
    }


def rendered(values: dict[str, int]) -> list[Instruction]:
    """Return the policy's filter with these constants."""
    lines = compiler.compile_policy(model.load())
    return [Instruction(*each) for each in compiler.fill(lines, values)]


@dataclass(frozen=True)
class Ending:
    """How a VM ended: status (negative: signal) and output."""

    status: int
    output: str


@dataclass
class Bare:
    """The kernel alone, started by a shell with files of the test at fixed descriptors.

    3: a writable disk, 4: a read-only one, 5: the root, kept in memory; 6: a file of the host that is not a disk.
    """

    folder: Path
    image: Path
    parameters: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    SETS: ClassVar[dict[str, int]] = {
        "STREAM_IN": 1,
        "STREAM_OUT": 6,
        "DISK_READ": 1 << 3 | 1 << 4,
        "DISK_WRITE": 1 << 3,
    }
    MEMORY: ClassVar[int] = 128 << 20

    def __post_init__(self) -> None:
        for name in ("written", "read", "foreign"):
            (self.folder / name).write_bytes(f"{name} as it was\n".encode().ljust(1 << 16, b"."))
            self.environment[name] = str(self.folder / name)
        self.environment["root"] = str(self.image)

    @property
    def mark(self) -> str:
        """A parameter that the kernel ignores; it marks the processes of this VM."""
        return f"test.folder={self.folder}"

    def left_behind(self, before: set[str]) -> list[str]:
        """Return new processes that run this VM's kernel."""
        kernels = []
        for pid in set(os.listdir("/proc")) - before:
            if pid.isdigit():
                with suppress(OSError):
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    if command[0] == bytes(VMLINUX) and self.mark.encode() in command:
                        kernels.append(pid)
        return kernels

    def argv(self, *command: str) -> list[str]:
        """Return the command line: a shell that opens the descriptors and becomes the kernel."""
        words = [str(VMLINUX), f"mem={self.MEMORY}", "ubd0=fd:5,cow", "ubd1=fd:3", "ubd2=fd:4,ro", "root=/dev/ubda"]
        words += ["rootfstype=ext4", "rw", "init=/sbin/nabla-init", "loglevel=0", self.mark, *self.parameters, "--"]
        words += [*(f"arg={word}" for word in command), "tty=0"]
        opened = 'exec "$@" 3<>"$written" 4<"$read" 5<"$root" 6<>"$foreign"'
        return ["/bin/sh", "-c", opened, "sh", *words]

    def run(self, *command: str, prefix: Sequence[str] = ()) -> Ending:
        """Run a command in the guest to its end."""
        finished = subprocess.run(
            [*prefix, *self.argv(*command)],
            cwd=self.folder,
            env=self.environment | {"PATH": os.environ.get("PATH", os.defpath)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            timeout=60,
            check=False,
        )
        return Ending(finished.returncode, finished.stdout.decode(errors="replace"))

    def attempt(self, address: int | str, number: int, *args: int | str) -> Ending:
        """Let the guest program make one host call from `address`."""
        return self.run(PROGRAM, str(address), str(number), *map(str, args))


def gadget() -> int:
    """Return the instruction after which the kernel simply returns, so that a call that returns can report it."""
    return symbols()["um_idle_syscall"]


class snapshot:
    """Record a folder's files; the yielded function reports whether they are unchanged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def look(self) -> dict[str, tuple[object, ...]]:
        files: dict[str, tuple[object, ...]] = {}
        for path in sorted(self.folder.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            files[str(path)] = (
                status.st_mode,
                status.st_uid,
                status.st_nlink,
                status.st_size,
                status.st_mtime_ns,
                content,
            )
        return files

    def __enter__(self) -> _Unchanged:
        self.before = self.look()
        return _Unchanged(self)

    def __exit__(self, *_: object) -> None:
        return None


@dataclass(frozen=True)
class _Unchanged:
    taken: snapshot

    def __call__(self) -> bool:
        now = self.taken.look()
        assert now == self.taken.before
        return True
