# SPDX-License-Identifier: Apache-2.0
"""nabla-run and its child process: finding the kernel, the child's environment, exit statuses, signals, reports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from nabla.core.paths import NABLA_RUN

from .launcher import OWN_ERROR, TIMED_OUT, Launcher, child_of, launch, refused, started_by, wait_until_gone
from .vm import Vm

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
CALLS = {"preadv2", "pwritev2", "fdatasync", "ppoll", "timer_settime", "clock_gettime", "rt_sigreturn", "exit_group"}
CALLS |= {"mprotect"}


# The kernel


def test_kernels_that_are_none(image: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program\n")
    refused("cannot open kernel", "--kernel", tmp_path / "missing", image)
    refused("not a regular file", "--kernel", tmp_path, image)
    text.chmod(0o644)
    refused("cannot run kernel", "--kernel", text, image)
    text.chmod(0o755)
    refused("it is not a Nabla Linux kernel", "--kernel", text, image)
    text.write_text("#!/bin/sh\n")
    refused("it is not a Nabla Linux kernel", "--kernel", text, image)


def test_kernel_that_the_machine_may_not_run(image: Path, stand_in: Path, tmp_path: Path, as_root: bool) -> None:
    kernel = tmp_path / "kernel"
    shutil.copyfile(stand_in, kernel)
    kernel.chmod(0o600)
    refused("cannot run kernel", "--kernel", kernel, image)
    kernel.chmod(0o700)
    if as_root:
        refused("the user the VM runs as needs execute permission", "--kernel", kernel, image)
    assert launch("--kernel", kernel, "--run-as", str(os.geteuid()), image, "--", "exit=3").returncode == 3
    kernel.chmod(0o711)  # execute permission suffices
    assert launch("--kernel", kernel, image, "--", "exit=3").returncode == 3


def test_where_the_kernel_is_looked_for(image: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "nabla-run"
    program.parent.mkdir()
    shutil.copy(NABLA_RUN, program)

    def kernel_of(**env: str) -> str:
        result = subprocess.run([program, "--dry-run", image], capture_output=True, text=True, env=env, check=False)
        return os.path.normpath(result.stdout.split()[1]) if result.returncode == 0 else result.stderr

    assert "no kernel vmlinux near" in kernel_of()
    for folder in ("lib/nabla", "kernel", "bin"):
        kernel = tmp_path / folder / "vmlinux"
        kernel.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", kernel)
        assert kernel_of() == str(kernel)
    assert kernel_of(NABLA_KERNEL="/bin/false") == "/bin/false"


# The child's environment


def test_what_the_kernel_gets(launcher: Launcher, tmp_path: Path) -> None:
    """Its descriptors, no environment, no blocked signal, although the caller has many of each."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(512))
    extra = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    for number in extra:
        os.set_inheritable(number, True)
    try:
        result = launcher.run("descriptors environment show=/proc/self/status", "--disk", disk, close_fds=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in extra:
            os.close(number)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    descriptors = dict(line.split(" ", 1) for line in lines[: lines.index("0 variables")])
    assert descriptors["3"] == str(launcher.image)
    assert descriptors["4"] == str(disk)
    assert "nabla-status" in descriptors["12"]
    assert set(descriptors) == {"0", "1", "2", "3", "4", "12"}
    assert "SigBlk:\t0000000000000000" in lines


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_descriptors(launcher: Launcher, closed: str) -> None:
    """Closed streams become /dev/null; the image must never get such a number."""
    command = " ".join(launcher.words("nap=60000"))
    with subprocess.Popen(["/bin/sh", "-c", f"exec {command} {closed}"], stdout=subprocess.DEVNULL) as process:
        machine = started_by(process.pid, launcher.stand_in)
        for number in range(3):
            target = os.readlink(f"/proc/{machine}/fd/{number}")
            assert target == "/dev/null" or f"{number}" not in closed
        assert os.readlink(f"/proc/{machine}/fd/3") == str(launcher.image)
        process.terminate()
        assert process.wait(timeout=20) == 128 + signal.SIGTERM


def test_low_limit_of_open_files(launcher: Launcher) -> None:
    command = " ".join(launcher.words("exit=0"))
    result = subprocess.run(["/bin/sh", "-c", f"ulimit -n 12; {command}"], capture_output=True, text=True, check=False)
    assert result.returncode == OWN_ERROR
    assert "limit of open files" in result.stderr


def test_low_limit_of_address_space(launcher: Launcher) -> None:
    command = " ".join(launcher.words("exit=0"))
    script = f"ulimit -v 100000; {command}"
    result = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == OWN_ERROR
    assert "limit of address space" in result.stderr


# How it ends


@pytest.mark.parametrize("code", [0, 1, 42, 124, 125, 255])
def test_exit_status(launcher: Launcher, code: int) -> None:
    assert launcher.run(f"exit={code}").returncode == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_killed_kernel(launcher: Launcher, number: signal.Signals) -> None:
    result = launcher.run(f"kill={int(number)}")
    assert result.returncode == 128 + number
    assert result.stderr.count("\n") == 1
    assert f"killed by signal {int(number)}" in result.stderr


def test_forbidden_call(launcher: Launcher) -> None:
    """As the host kills a process that violates its seccomp filter."""
    result = launcher.run(f"kill={int(signal.SIGSYS)}")
    assert result.returncode == 128 + signal.SIGSYS
    assert result.stderr.count("\n") == 1
    assert "made a host system call that its policy forbids" in result.stderr
    assert "--trace-policy" in result.stderr


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("stubborn", [False, True])
def test_told_to_end(launcher: Launcher, number: signal.Signals, stubborn: bool) -> None:
    """Also with a kernel that ignores signals."""
    do = f"ignore={int(signal.SIGTERM)} stay" if stubborn else "stay"
    with launcher.running(do) as process:
        child = child_of(process.pid)
        process.send_signal(number)
        assert process.wait(timeout=10) == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize("number", ENDING)
def test_told_to_end_at_any_moment(minimal: Vm, number: signal.Signals) -> None:
    """At any time from before the options are parsed to after the VM's end: nothing remains, the status is right."""
    words = minimal.argv("/bin/true")
    for step in range(40):
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0) as process:
            time.sleep(step * 0.0005)
            process.send_signal(number)
            _, errors = process.communicate(timeout=20)
            assert process.returncode in (0, 128 + number, -number), errors
            assert errors == b""
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


def test_the_machine_dies_with_the_launcher(launcher: Launcher) -> None:
    with launcher.running("stay") as process:
        child = child_of(process.pid)
        process.kill()
        process.wait()
        wait_until_gone(child)


def test_ignored_hangup(launcher: Launcher) -> None:
    """As under nohup: signals that the caller ignores do not end nabla-run."""
    ignore: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with launcher.running("nap=500 exit=3", **ignore) as process:
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=10) == 3


def test_ignored_child_signal(launcher: Launcher) -> None:
    result = launcher.run("exit=9", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert result.returncode == 9


# Time limit


def test_time_limit(minimal: Vm) -> None:
    before = time.monotonic()
    result = minimal.but(options=("--timeout", "0.4")).run("/bin/sleep", "100")
    assert result.status == TIMED_OUT
    assert result.errors == "nabla-run: the VM was stopped after 0.4 seconds (--timeout)\n"
    assert time.monotonic() - before >= 0.4


def test_time_limit_of_a_stubborn_kernel(launcher: Launcher) -> None:
    result = launcher.run(f"ignore={int(signal.SIGTERM)} stay", "--timeout", "0.1")
    assert result.returncode == TIMED_OUT


def test_time_limit_that_is_not_reached(minimal: Vm) -> None:
    assert minimal.but(options=("--timeout", "60")).run("/bin/sh", "-c", "exit 3").status == 3


# Reports


def test_json(minimal: Vm) -> None:
    result = minimal.but(options=("--json",)).run("/bin/sh", "-c", "echo to stderr >&2; exit 4")
    assert result.status == 4
    assert result.errors.splitlines()[0] == "to stderr"
    report = json.loads(result.errors.splitlines()[-1])
    assert list(report)[:3] == ["exit", "reason", "signal"]
    assert (report["exit"], report["reason"], report["signal"]) == (4, "exit", None)
    parts = [report[f"{part}_us"] for part in ("launch", "boot", "run")]
    assert all(part > 0 for part in parts)
    assert 0 <= report["total_us"] - sum(parts) <= 3
    assert 1000 < report["peak_memory_kib"] < 64 << 10
    assert CALLS <= set(report["host_calls"]) <= CALLS | {"arch_prctl"}
    assert report["host_calls"]["exit_group"] == 1
    assert report["host_calls"]["pwritev2"] >= 1


def test_json_of_a_killed_machine(launcher: Launcher) -> None:
    report = json.loads(launcher.run("page kill=9", "--json").stderr.splitlines()[-1])
    assert (report["exit"], report["reason"], report["signal"]) == (137, "signal", 9)
    assert report["launch_us"] > 0
    assert report["host_calls"] == {"ppoll": 7, "99999": 2**64 - 1}
    late = json.loads(launcher.run("stay", "--json", "--timeout", "0.1").stderr.splitlines()[-1])
    assert (late["exit"], late["reason"], late["signal"]) == (TIMED_OUT, "timeout", 15)
    with launcher.running("stay", "--json", stderr=subprocess.PIPE) as process:
        process.terminate()
        report = json.loads(process.communicate(timeout=10)[1].splitlines()[-1])
    assert (report["exit"], report["reason"], report["signal"]) == (143, "terminated", 15)


def test_lies_on_the_status_page(launcher: Launcher) -> None:
    """The VM can write anything to the status page: impossible times are unknown, no key occurs twice."""
    result = launcher.run("lies", "--json")
    assert result.returncode == 0
    report = json.loads(result.stderr, object_pairs_hook=lambda pairs: pairs)
    values = dict(report)
    assert len(values) == len(report)
    assert values["launch_us"] is values["boot_us"] is values["run_us"] is None
    assert values["host_calls"] == [("4294967295", 2**64 - 1)]
    silent = json.loads(launcher.run("exit=0", "--json").stderr)
    assert silent["host_calls"] == {}
    assert silent["launch_us"] is None
    assert silent["total_us"] > 0


def test_status_page_keeps_its_size(launcher: Launcher) -> None:
    assert launcher.run("resize").stdout == "sealed\n"


def test_stats_while_it_runs(minimal: Vm) -> None:
    reader, writer = os.pipe()
    words = minimal.argv("/bin/sleep", "1")
    words[1:1] = ["--stats-fd", str(writer)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[writer]) as process:
        os.close(writer)
        with os.fdopen(reader) as stream:
            lines = [json.loads(line) for line in stream]
        assert process.wait() == 0
    uptimes = [line["uptime_us"] for line in lines]
    assert 4 <= len(lines) <= uptimes[-1] / 250_000 + 3  # four a second, and one at each end
    assert uptimes == sorted(uptimes)
    assert lines[-1]["launch_us"] > 0
    assert lines[-1]["boot_us"] > 0
    assert set(lines[-1]["host_calls"]) >= CALLS
    assert lines[-1]["host_calls"]["exit_group"] == 1
    assert lines[-1]["host_calls"]["ppoll"] >= lines[1]["host_calls"]["ppoll"] > 0


def test_stats_that_nobody_reads(launcher: Launcher, minimal: Vm) -> None:
    """A full pipe, a closed one, and a read-only one."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, bytes(65536))
    os.set_blocking(writer, True)
    words = ["--stats-fd", str(writer)]
    assert launcher.run("nap=700 exit=5", *words, pass_fds=[writer]).returncode == 5
    refused("not open for writing", "--stats-fd", str(reader), launcher.image, pass_fds=[reader])
    os.close(reader)
    assert launcher.run("nap=700 exit=6", *words, pass_fds=[writer]).returncode == 6
    os.close(writer)


def test_stats_descriptor_with_a_number_of_the_machine(launcher: Launcher) -> None:
    """The VM's descriptor 3 is not the caller's."""
    command = " ".join(launcher.words("descriptors", "--stats-fd", "3"))
    result = subprocess.run(
        ["/bin/sh", "-c", f"{command} 3>/dev/null"], capture_output=True, text=True, check=True, timeout=60
    )
    assert f"3 {launcher.image}" in result.stdout.splitlines()
    assert "/dev/null" not in [line.split(" ", 1)[1] for line in result.stdout.splitlines()[1:]]
