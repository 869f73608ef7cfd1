# SPDX-License-Identifier: Apache-2.0
"""Run each program of tests/guest in the guest; the programs contain the checks."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nabla.core.paths import TESTS

from .vm import Vm, tap_failures

GUEST = TESTS / "guest"
FOLDER = "/usr/lib/nabla-tests"

# System calls use the kernel's entry point; "raw" selects the instruction, which the kernel traps.
BOTH_WAYS = ("registers", "vectors", "efault")


def programs() -> list[str]:
    """Return the command lines, from the sources and the Makefile's list of static programs."""
    lines = sorted(path.stem for path in GUEST.glob("*.c"))
    static = re.search(r"^STATIC = (.*)$", (GUEST / "Makefile").read_text(), re.MULTILINE)
    assert static is not None, "tests/guest/Makefile has no line STATIC = …"
    lines += [f"static_{name}" for name in static[1].split()]
    lines += [f"{name} raw" for name in BOTH_WAYS]
    elsewhere = ("raw_hello", "files", "mapped_random", "reclaim", "shared", "shared_disk", "traced")
    return [line for line in lines if line not in elsewhere]


@pytest.mark.parametrize("line", programs())
def test_program(testing: Vm, line: str) -> None:
    name, *arguments = line.split()
    result = testing.run(f"{FOLDER}/{name}", *arguments)
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


@pytest.mark.parametrize(
    "name", ["protect", "protect_stacks", "hide", "memory", "exec", "faults", "threads", "signals", "signal_waits"]
)
def test_with_read_only_memory(testing: Vm, name: str) -> None:
    """The kernel parameter protect=all: the host refuses writes to what a program asked to be read-only."""
    result = testing.but(options=("--append", "protect=all")).run(f"{FOLDER}/{name}")
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


@pytest.mark.parametrize("directory", ["/root", "/tmp"])
def test_files(testing: Vm, directory: str) -> None:
    """On ext3 and on tmpfs."""
    result = testing.run(f"{FOLDER}/files", directory)
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


@pytest.mark.parametrize("directory", ["/root", "/tmp", "/dev/shm"])
@pytest.mark.parametrize("name", ["shared", "shared_disk"])
def test_shared(testing: Vm, name: str, directory: str) -> None:
    """On ext3 and on tmpfs."""
    result = testing.run(f"{FOLDER}/{name}", directory)
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


def test_reclaim(testing: Vm) -> None:
    """Pages of mappings that reclaim has isolated, with so little memory that it always works."""
    result = testing.but(memory="64M").run(f"{FOLDER}/reclaim")
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


def test_shared_is_written_at_power_off(copy_of: Callable[[str], Path]) -> None:
    """What a program has stored in a mapping, and nobody has synchronized, is on the disk after the VM has ended."""
    vm = Vm(copy_of("test"), memory="256M")
    stored = vm.run(f"{FOLDER}/shared_disk", "store", "/root/kept")
    assert stored.status == 0, stored.describe()
    loaded = vm.run(f"{FOLDER}/shared_disk", "load", "/root/kept")
    assert loaded.status == 0, loaded.describe()


@pytest.mark.parametrize("name", ["sites", "sites_shared"])
def test_sites_are_left_alone(testing: Vm, name: str) -> None:
    """With `um_patch=0` no program is changed."""
    result = testing.but(options=("--append", "um_patch=0")).run(f"{FOLDER}/{name}")
    assert not tap_failures(result.output), result.describe()


def test_without_libc(testing: Vm) -> None:
    result = testing.run(f"{FOLDER}/raw_hello", "77")
    assert not tap_failures(result.output), result.describe()
    assert result.status == 77, result.describe()


@pytest.mark.parametrize("script", sorted(path.name for path in GUEST.glob("*.sh")))
def test_script(testing: Vm, script: str) -> None:
    result = testing.run("/bin/sh", f"{FOLDER}/{script}")
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


@pytest.mark.parametrize("name", ["signals", "signal_waits", "threads", "process"])
def test_with_little_memory(testing: Vm, name: str) -> None:
    result = testing.but(memory="96M").run(f"{FOLDER}/{name}")
    assert not tap_failures(result.output), result.describe()


def test_again_and_again(testing: Vm) -> None:
    """Nothing that a program leaves behind disturbs the next one in the same VM."""
    names = ("process", "signals", "signal_waits", "threads", "memory")
    script = f"for i in 1 2 3 4 5; do {' && '.join(f'{FOLDER}/{name}' for name in names)} || exit; done"
    result = testing.shell(script, timeout=200)
    assert result.status == 0, result.describe()


RECURSE = "import faulthandler; faulthandler._stack_overflow()"


def test_endless_recursion_of_the_command_is_its_sigsegv(testing: Vm) -> None:
    """CPython's C code recurses; its handler reports from an alternate stack and lets the signal kill it."""
    result = testing.run("python3", "-X", "faulthandler", "-c", RECURSE)
    assert result.status == 128 + signal.SIGSEGV, result.describe()
    assert "Fatal Python error: Segmentation fault" in result.output + result.errors, result.describe()


def test_endless_recursion_disturbs_nobody_else(testing: Vm) -> None:
    script = (
        "sleep 1000 & other=$!; "
        f"for i in 1 2 3; do python3 -c '{RECURSE}'; echo status $?; done; "
        f"kill -0 $other && {FOLDER}/memory >/dev/null && echo sound"
    )
    result = testing.shell(script)
    assert result.output.count("status 139\n") == 3, result.describe()
    assert result.output.endswith("sound\n"), result.describe()
