# SPDX-License-Identifier: Apache-2.0
"""Policy, filter and kernel agree: the same calls in each; no VM needs another call, and each call occurs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from bench import host_calls
from nabla.core.paths import VMLINUX
from nabla.policy import model
from nabla.sources import recipe
from verify import bpf, seccomp, syscall_table
from verify.bpf import Call

from . import confined
from .confined import Bare
from .vm import Vm, status_of

SIGSYS_STATUS = 159
ALL = {call.name for call in model.load().calls}


def needed_by(feature: str) -> set[str]:
    """The calls that only VMs of this feature make."""
    return {call.name for call in model.load().calls if call.features == (feature,)}


RARE = needed_by("novdso") | needed_by("nofsgsbase")


# --- one set


def patched(paths: Iterable[str], folder: Path) -> None:
    """Write files that the kernel's patches add, as the whole series leaves them."""
    words = [f"--include={path}" for path in paths]
    for patch in recipe.load("linux").patches:
        subprocess.run(["git", "apply", *words, str(patch)], cwd=folder, check=True)


def in_source(path: Path) -> set[str]:
    """Return the host calls in a file of the kernel: __NR_… in C, the preceding number in assembly."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".c":
        return set(re.findall(r"\b__NR_(\w+)", text))
    numbers = re.findall(r"movl\s+\$(\d+), %eax[^\n]*\n(?:(?!SYM_CODE_END)[^\n]*\n)*?\s+syscall\b", text)
    return {syscall_table.names()[int(number)] for number in numbers}


def test_policy_and_kernel_sources_name_the_same_calls(tmp_path: Path) -> None:
    wanted: dict[str, set[str]] = {}
    for call in model.load().calls:
        wanted.setdefault(call.file, set()).add(call.name)
    patched(wanted, tmp_path)
    assert {path: in_source(tmp_path / path) for path in wanted} == wanted


def test_policy_and_the_kernels_instructions_name_the_same_calls() -> None:
    """From the compiled kernel: the value of EAX at each `syscall` instruction that can run after boot."""
    running = confined.running_entries()
    assert {each.number for each in running} == {call.number for call in model.load().calls}, running
    outside = {each.section for each in confined.entries() if each not in running}
    assert outside == {".init.text"}


def test_the_kernels_image_carries_the_policys_filter() -> None:
    """The exact bytes, with 0 for values that are unknown before boot."""
    wanted = seccomp.encode(confined.rendered(dict.fromkeys(model.CONSTANTS, 0)))
    with VMLINUX.open("rb") as stream:
        image = ELFFile(stream)
        table = image.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        symbols = [each for each in table.get_symbol_by_name("policy") or [] if each["st_size"] == len(wanted)]
        assert len(symbols) == 1
        section = image.get_section(symbols[0]["st_shndx"])
        start = symbols[0]["st_value"] - section["sh_addr"]
        assert section.data()[start : start + len(wanted)] == wanted


def test_the_filter_never_allows_another_call(installed: list[bpf.Instruction]) -> None:
    """For any arguments; from the kernel's text, the vDSO, and everywhere else."""
    start = confined.symbols()["_stext"]
    allowed = {n for n in seccomp.every_number() if "allow" in bpf.possible(installed, Call(n, start))}
    expected = ALL - (needed_by("nofsgsbase") if confined.has_fsgsbase() else set())
    assert {seccomp.name_of(number) for number in allowed} == expected
    for ip in (
        0,
        start - 1,
        confined.symbols()["_sinittext"],
        confined.symbols()["_etext"],
        confined.BASE - 1,
        1 << 63,
    ):
        assert all(bpf.possible(installed, Call(n, ip)) == {"kill"} for n in seccomp.every_number())


# --- the filter of a running VM


@pytest.fixture(scope="module")
def bare(testing: Vm, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """The kernel with disks and a file of the host."""
    return Bare(tmp_path_factory.mktemp("bare"), testing.image)


def watch(argv: list[str], bare: Bare, strace: str, log: Path) -> tuple[list[bpf.Instruction], dict[str, int]]:
    """Start a VM under strace; return its filter, the address of its vDSO, and its timer."""
    words = [*confined.tracer(strace), "-f", "-v", "-e", "trace=seccomp,timer_create", "-o", str(log), *argv]
    with subprocess.Popen(
        words, cwd=bare.folder, env=bare.environment | {"PATH": "/usr/bin:/bin"}, stdin=-1, stdout=-1, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            assert process.stdout.readline() == "up\n"
            text = log.read_text()
            machine = re.findall(r"^(\d+) +seccomp\(SECCOMP_SET_MODE_FILTER, 0, ", text, re.M)
            timer = re.findall(r"^(\d+) +timer_create\(CLOCK_MONOTONIC, .*\[(\d+)\]\) = 0$", text, re.M)
            assert [pid for pid, _ in timer] == machine and len(machine) == 1, text
            maps = Path(f"/proc/{machine[0]}/maps").read_text()
            vdso = re.findall(r"^([0-9a-f]+)-.*\[vdso\]$", maps, re.M)
            status = Path(f"/proc/{machine[0]}/status").read_text()
            assert "\nSeccomp:\t2\nSeccomp_filters:\t1\n" in status and "\nNoNewPrivs:\t1\n" in status
            process.stdin.write("\n")
            process.stdin.close()
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
    (installed_filter,) = confined.filters(log.read_text())
    return installed_filter, {"vdso": int(vdso[0], 16) if vdso else 0, "timer": int(timer[0][1])}


WAIT = ("/bin/sh", "-c", "echo up; read line")


@pytest.fixture(scope="module")
def observed(
    bare: Bare, strace: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[bpf.Instruction], dict[str, int]]:
    """The filter and constants of the VM `bare`, from strace."""
    return watch(bare.argv(*WAIT), bare, strace, tmp_path_factory.mktemp("strace") / "log")


@pytest.fixture(scope="module")
def installed(observed: tuple[list[bpf.Instruction], dict[str, int]]) -> list[bpf.Instruction]:
    """The filter that the VM `bare` installed."""
    return observed[0]


def test_the_installed_filter_is_the_policys(observed: tuple[list[bpf.Instruction], dict[str, int]]) -> None:
    installed_filter, addresses = observed
    assert installed_filter == confined.rendered(confined.constants(Bare.MEMORY, **addresses, **Bare.SETS))


def test_the_filter_of_the_launchers_machine(
    bare: Bare, strace: str, copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """One writable disk at 3, a read-only one at 4, a private one at 5, no network."""
    other = copy_of("minimal").rename(tmp_path / "other.ext3")
    options = ("--run-as", "0:0", "--disk", f"{other},ro", "--disk", f"{other},cow")
    machine = Vm(copy_of("minimal"), memory="64M", options=options)
    installed_filter, addresses = watch(machine.argv(*WAIT), bare, strace, tmp_path / "log")
    sets = {"STREAM_IN": 1, "STREAM_OUT": 6, "DISK_READ": 1 << 3 | 1 << 4, "DISK_WRITE": 1 << 3}
    assert installed_filter == confined.rendered(confined.constants(64 << 20, **addresses, **sets))


# --- no further call is needed, and each call occurs


STRESS = """
tests=/usr/lib/nabla-tests
names="process signals threads timers futex pipes polling sockets memory exec faults preempt protect hide"
for name in $names "registers raw"; do
    $tests/$name >/tmp/log || { echo "$name"; cat /tmp/log; exit 1; }
done
dd if=/dev/zero of=/root/file bs=64k count=64 conv=fsync 2>/dev/null || exit 2
sync; echo 3 >/proc/sys/vm/drop_caches; cat /root/file >/dev/null || exit 3
i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done
seq 50000
wget -q -O /tmp/page http://%s/ && cat /tmp/page || exit 4
sleep 0.3
"""


def counts_of(errors: str) -> Counter[str]:
    """Return the counts in nabla-run's JSON line."""
    line = next(line for line in errors.splitlines() if line.startswith("{"))
    return Counter({name: count for name, count in json.loads(line)["host_calls"].items() if count})


@pytest.fixture(scope="module")
def stressed(tmp_path_factory: pytest.TempPathFactory, testing: Vm, web_page: str) -> Callable[[str], Counter[str]]:
    """Return a function that puts a VM under every kind of load, with more kernel parameters."""

    def run(append: str) -> Counter[str]:
        image = tmp_path_factory.mktemp("stress") / "test.ext3"
        subprocess.run(["cp", "--sparse=always", testing.image, image], check=True)
        image.chmod(0o666)
        options = (
            "--json",
            "--net",
            "user",
            "--append",
            append or "quiet",
            "--run-as",
            f"{os.geteuid()}:{os.getegid()}",
        )
        machine = Vm(image, memory="512M", options=options)
        result = machine.shell(STRESS % web_page, timeout=200)
        assert result.status == 0, result.describe()
        assert result.output.endswith("hello from the host\n")
        return counts_of(result.errors)

    return run


@pytest.fixture(scope="module")
def web_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page on this host, and its address in the guest through passt."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "index.html").write_text("hello from the host\n")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"10.0.2.2:{server.server_port}"
        server.shutdown()
        thread.join()


def on_a_terminal(machine: Vm) -> Counter[str]:
    """Input, output and ^C on a terminal, then power-off."""
    with machine.interactive("/bin/sh") as console:
        console.expect_exact("# ")
        console.sendline("echo $((6*7)); sleep 100")
        console.expect_exact("42")
        console.sendintr()
        console.expect_exact("# ")
        console.setwinsize(30, 100)
        console.sendline("poweroff -f")
        console.expect(r"(\{.*\})")
        matched = console.match
        assert isinstance(matched, re.Match)
        line = matched[1]
        assert status_of(console) == 0
    return counts_of(line)


def test_everything_runs_within_the_policy_and_needs_all_of_it(
    stressed: Callable[[str], Counter[str]], minimal: Vm
) -> None:
    """A call outside the policy would have killed the VM; a listed call that never occurs does not belong there."""
    seen = stressed("") + on_a_terminal(minimal.but(options=("--json",)))
    panic = minimal.but(options=("--json", "--init", "/bin/false")).run()
    assert panic.status == 125, panic.describe()
    seen += counts_of(panic.errors)
    expected = ALL - RARE
    if not confined.has_fsgsbase():
        expected |= needed_by("nofsgsbase")
    assert set(seen) - needed_by("novdso") == expected, seen


def test_hosts_without_a_usable_vdso_or_fsgsbase_need_the_rest(stressed: Callable[[str], Counter[str]]) -> None:
    seen = stressed("novdso nofsgsbase")
    assert set(seen) >= ALL - {"exit_group"}, seen
    assert seen["clock_gettime"] > 1000 and seen["arch_prctl"] > 100


def test_the_counters_miss_no_call(minimal: Vm, strace: str, tmp_path: Path) -> None:
    """The kernel's counts are those of the host."""
    log = tmp_path / "log"
    script = "seq 1000; i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done; sleep 0.2"
    machine = minimal.but(options=("--json", "--append", "novdso nofsgsbase"))
    finished = subprocess.run(
        [strace, "-f", "-o", str(log), *machine.argv("/bin/sh", "-c", script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    counted = counts_of(finished.stderr)
    lines = log.read_text(errors="replace").splitlines()
    start = next(n for n, line in enumerate(lines) if "seccomp(SECCOMP_SET_MODE_FILTER" in line)
    machine_pid = lines[start].split()[0]
    seen = Counter(re.findall(rf"^{machine_pid} +(\w+)\(", "\n".join(lines[start + 1 :]), re.M))
    assert set(seen) <= ALL
    for name in ALL:
        # The kernel also counts the calls before the filter was installed.
        assert counted[name] >= seen[name] and (counted[name] == 0 or seen[name] > 0), (name, counted, seen)


def test_an_idle_machine_makes_fewer_than_two_calls_a_second(tmp_path: Path) -> None:
    """Measured as for docs/host-syscalls.md, for a shorter time."""
    counted = host_calls.run(host_calls.Work("idle", "", "sleep 10"), tmp_path)
    assert counted.seconds > 9
    assert set(counted.calls) == ALL
    assert 0 < sum(counted.calls.values()) / counted.seconds < 2, counted
