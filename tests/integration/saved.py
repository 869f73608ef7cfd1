# SPDX-License-Identifier: Apache-2.0
"""VMs that save themselves, and VMs that start from the file; its layout, for tests that forge one."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nabla.core.paths import VMLINUX
from nabla.policy import model

from . import confined
from .launcher import launch
from .vm import Result, Vm

PAGE = 4096
# struct um_snapshot of the kernel (arch/um/nommu/include/asm/snapshot.h).
FORMAT_AT, FLAGS_AT, BUILD_ID_AT, MEMORY_AT, SIZE_AT = 8, 12, 16, 48, 56
BUDGET_AT, WINDOW_AT = 88, 96
FEATURES_AT, XCR0_AT, RESUME_AT, DISKS_AT = 104, 136, 152, 216
HEADER = 344
# struct um_hot, in the third page.
HOT_AT, HOT_MAGIC, HOT_RANGES = 2 * PAGE, 0x31746F68616C626E, 240


@dataclass(frozen=True)
class Saved:
    """A snapshot and the settings of the original VM."""

    vm: Vm
    file: Path

    def restored(self) -> Vm:
        """Return the settings of a VM that starts from the snapshot."""
        return self.vm.but(options=(*self.vm.options, "--restore", str(self.file)))

    def run(self, *arguments: str, **options: object) -> Result:
        """Start from it; `arguments` follow `--`."""
        return self.restored().run(*arguments, **options)  # type: ignore[arg-type]

    def forge(self, target: Path, *changes: tuple[int, bytes]) -> Saved:
        """Return a sparse copy with other bytes at some offsets."""
        subprocess.run(["cp", "--sparse=always", self.file, target], check=True)
        with target.open("r+b") as stream:
            for at, data in changes:
                stream.seek(at)
                stream.write(data)
        return Saved(self.vm, target)


def save(vm: Vm, file: Path, *command: str, then_exit: bool = True) -> tuple[Saved, Result]:
    """Run a command that saves the VM; assert that it ends well."""
    options = ("--snapshot", str(file), *(["--snapshot-then-exit"] if then_exit else []))
    result = vm.but(options=(*vm.options, *options)).run(*command)
    assert result.status == 0, result.describe()
    assert result.errors == "", result.describe()
    return Saved(vm, file), result


def becomes(vm: Vm, file: Path, *command: str) -> Saved:
    """Return a snapshot that runs a command, with the arguments of each restored VM."""
    return save(vm, file, "nabla-snapshot", "--", *command)[0]


def at(symbol: str) -> int:
    """Return the offset of a kernel variable in the file."""
    return confined.symbols()[symbol] - confined.BASE


def word(value: int) -> bytes:
    return struct.pack("<Q", value & (1 << 64) - 1)


def hot_list(*ranges: tuple[int, int], count: int | None = None) -> bytes:
    """Return a list of (page, count); it may claim another number of ranges."""
    number = len(ranges) if count is None else count
    data = struct.pack("<QII", HOT_MAGIC, number, 0) + b"".join(struct.pack("<II", *each) for each in ranges)
    return data.ljust(PAGE, b"\xff")


def hot_pages(file: Path) -> list[int]:
    """Return the pages in the list of a snapshot, as numbers from the beginning of its memory."""
    with file.open("rb") as stream:
        stream.seek(HOT_AT)
        data = stream.read(PAGE)
    magic, number, _ = struct.unpack_from("<QII", data)
    assert magic == HOT_MAGIC and number <= HOT_RANGES
    ranges = struct.iter_unpack("<II", data[16 : 16 + 8 * number])
    return [page for first, count in ranges for page in range(first, first + count)]


def private_kernel(folder: Path) -> Path:
    """Return a kernel that differs from the real one in its build ID alone."""
    copy = folder / "vmlinux"
    shutil.copy(VMLINUX, copy)
    data = bytearray(copy.read_bytes())
    offset = data.index(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0") + 16
    data[offset] ^= 0xFF
    copy.write_bytes(data)
    os.chmod(copy, 0o755)
    return copy


def check_confined(forged: Saved, folder: Path, strace: str) -> None:
    """Start it, and find in the trace of its calls that none behind the filter is another than those of the policy."""
    log = folder / "log"
    words = forged.restored().but(options=(*forged.restored().options, "--timeout", "5")).argv()
    prefix = (*confined.tracer(strace), "-f", "-ff", "-o", str(log))
    launch(*words[1:], prefix=prefix)
    (trace,) = (text for path in folder.glob("log.*") if "restore=fd:" in (text := path.read_text()))
    before, behind = trace.split("seccomp(SECCOMP_SET_MODE_FILTER", 1)
    assert "openat(" not in before.split("execveat(", 1)[1]
    allowed = {call.name for call in model.load().calls}
    result, *calls = behind.splitlines()
    assert result.endswith("= 0")
    host_calls = [line for line in calls if not line.startswith(("---", "+++"))]
    foreign = [line for line in host_calls if line.split("(", 1)[0] not in allowed]
    # A call that the filter forbids is the last one, and does not happen.
    assert foreign in ([], host_calls[-1:]), foreign
    assert not foreign or "+++ killed by SIGSYS" in calls[-1], trace
