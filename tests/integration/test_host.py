# SPDX-License-Identifier: Apache-2.0
"""The running VM's host calls, recorded by strace: one thread, no new memory, no new process."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .vm import Vm

CALL = re.compile(r"^(\d+) +(?:\d+\.\d+ )?(\w+)\(")
# Only the launcher starts a program by descriptor.
KERNEL = re.compile(r'execveat\(\d+, "", \[')
FILTER = re.compile(r"(seccomp\(SECCOMP_SET_MODE_FILTER|prctl\(PR_SET_SECCOMP)")
FORBIDDEN = {"fork", "vfork", "clone", "clone3", "execve", "ptrace", "socket", "connect", "open", "openat"}
FORBIDDEN |= {"mmap", "munmap", "mremap", "brk"}


@dataclass
class Trace:
    """The host calls of the VM's process, before and after the filter was installed."""

    pids: set[str] = field(default_factory=set)
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def read_trace(path: Path) -> Trace:
    """Split strace's output: the VM starts with the execve of the kernel; the launcher is left out."""
    trace = Trace()
    machine = launcher = ""
    closed = False
    for line in path.read_text(errors="replace").splitlines():
        launcher = launcher or line.split()[0]
        if KERNEL.search(line):
            machine = line.split()[0]
        call = CALL.match(line)
        if call is None or not machine:
            continue
        pid, name = call.groups()
        if pid == launcher:
            continue
        if pid == machine or closed:
            trace.pids.add(pid)
            (trace.after if closed else trace.before).append(name)
        if pid == machine and FILTER.search(line):
            closed = True
    return trace


@pytest.fixture(scope="module")
def trace(testing: Vm, strace: str, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """A VM that computes, starts processes and threads, writes and reads its disk, sleeps."""
    log = tmp_path_factory.mktemp("strace") / "log"
    script = (
        "/usr/lib/nabla-tests/process && /usr/lib/nabla-tests/threads && /usr/lib/nabla-tests/memory && "
        "dd if=/dev/zero of=/root/file bs=64k count=100 2>/dev/null && sync && cat /root/file >/dev/null && sleep 0.1"
    )
    words = [strace, "-f", "-o", str(log), *testing.argv("/bin/sh", "-c", script)]
    finished = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stdout.decode() + finished.stderr.decode()
    return read_trace(log)


def test_the_filter_is_installed(trace: Trace) -> None:
    assert trace.after, "no seccomp filter was seen"


def test_nothing_forbidden_afterwards(trace: Trace) -> None:
    assert not set(trace.after) & FORBIDDEN, sorted(set(trace.after))


def test_one_process_and_thread(trace: Trace) -> None:
    assert len(trace.pids) == 1
    assert not {"clone", "clone3", "fork", "vfork"} & set(trace.before)


def test_few_kinds_of_calls(trace: Trace) -> None:
    assert len(set(trace.after)) <= 24, sorted(set(trace.after))


def test_threads_of_the_running_machine(testing: Vm) -> None:
    """Read from the host's /proc while the guest has many threads and processes."""
    threads = "import threading, time; [threading.Thread(target=time.sleep, args=(1000,)).start() for _ in range(5)]"
    script = f"sleep 1000 & sleep 1000 & python3 -c '{threads}; print(\"up\", flush=True)'; wait"
    words = testing.argv("/bin/sh", "-c", script)
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"up\n"
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        assert len(children) == 1
        assert len(list(Path(f"/proc/{children[0]}/task").iterdir())) == 1
        assert not Path(f"/proc/{children[0]}/task/{children[0]}/children").read_text().split()
        launcher.terminate()


def test_idle_machine_uses_no_processor(minimal: Vm) -> None:
    words = minimal.argv("/bin/sh", "-c", "echo up; sleep 100")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"up\n"
        machine = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()[0]
        before = _ticks(machine)
        time.sleep(1)
        used = _ticks(machine) - before
        launcher.terminate()
    assert used <= 5, f"{used} ticks of 10 ms in one second of sleep"


def _ticks(pid: str) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
