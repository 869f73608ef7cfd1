# SPDX-License-Identifier: Apache-2.0
"""The end of memory, and the limits of tmpfs."""

from __future__ import annotations

import pytest

from .vm import Vm, tap_failures

FOLDER = "/usr/lib/nabla-tests"


@pytest.mark.parametrize("memory", ["128M", "256M"])
def test_large_mappings(testing: Vm, memory: str) -> None:
    result = testing.but(memory=memory).run(f"{FOLDER}/large")
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


@pytest.mark.parametrize("program", ["window", "window_search"])
@pytest.mark.parametrize("memory", ["48M", "96M", "1G"])
def test_reservations(testing: Vm, memory: str, program: str) -> None:
    result = testing.but(memory=memory).run(f"{FOLDER}/{program}", timeout=200)
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


@pytest.mark.parametrize("memory", ["64M", "256M", "1G"])
def test_files_are_read_when_they_are_touched(testing: Vm, memory: str) -> None:
    result = testing.but(memory=memory).run(f"{FOLDER}/mapped", timeout=200)
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


@pytest.mark.parametrize("memory", ["512M", "1G"])
def test_relatives_that_map_a_file(testing: Vm, memory: str) -> None:
    result = testing.but(memory=memory).run(f"{FOLDER}/mapped_random", timeout=200)
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


def test_files_of_a_tmpfs_are_read_when_they_are_touched(testing: Vm) -> None:
    result = testing.but(memory="256M").run(f"{FOLDER}/mapped", "/tmp", timeout=200)
    assert not tap_failures(result.output), result.describe()
    assert result.status == 0, result.describe()


def test_without_a_window_large_reservations_are_refused(testing: Vm) -> None:
    """As on hosts that limit the address space; the tests of mappings in RAM pass."""
    vm = testing.but(memory="128M", options=("--append", "window=0"))
    result = vm.run(f"{FOLDER}/window")
    assert "not ok 1 - 4 GB of addresses" in result.output, result.describe()
    result = vm.run(f"{FOLDER}/large")
    assert not tap_failures(result.output), result.describe()


JOINS = """
import mmap
def total():
    return int(open("/proc/meminfo").readline().split()[1]) // 1024
assert total() > 1980, total()
held = [bytearray(200_000) for _ in range(500)]     # small and large, in turn
maps = []
for megabytes in (1, 15, 16, 17, 100, 300):
    maps.append(mmap.mmap(-1, megabytes << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    maps[-1][:] = b"m" * len(maps[-1])
    held += [bytearray(b"h") * 200_000 for _ in range(100)]
one = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
one[:] = b"o" * len(one)
for megabytes in (30, 60, 400):
    one.resize(megabytes << 20)
assert one[:1 << 20] == b"o" * (1 << 20) and not any(one[1 << 20:2 << 20]) and not any(one[-1 << 20:])
assert all(m[:] == b"m" * len(m) for m in maps)
assert not any(map(any, held[:500])) and all(h == b"h" * 200_000 for h in held[500:])
assert total() > 1980
print("all of it")
"""


def test_memory_joins_when_it_is_needed(testing: Vm) -> None:
    """All of a large VM's memory counts from the start, and can be used by small and large mappings."""
    result = testing.but(memory="2G").run("python3", "-c", JOINS, timeout=300)
    assert (result.status, result.output) == (0, "all of it\n"), result.describe()
    result = testing.but(memory="2G").run(f"{FOLDER}/large", "map", "1850", timeout=300)
    assert result.status == 0, result.describe()


HALF = """
import numpy, re
total = int(re.search("MemTotal: *([0-9]+)", open("/proc/meminfo").read())[1]) << 10
a = numpy.arange(total // 16, dtype=numpy.int64)
n = len(a)
assert int(a.sum()) == n * (n - 1) // 2
a *= 3
a.sort()
assert a[-1] == 3 * (n - 1) and (a.nbytes + 16) * 2 > total
print("half")
"""


def test_numpy_with_an_array_of_half_of_the_memory(testing: Vm) -> None:
    result = testing.but(memory="256M").run("python3", "-c", HALF, timeout=200)
    assert (result.status, result.output) == (0, "half\n"), result.describe()


def test_the_eater_is_refused_and_can_be_ended(testing: Vm) -> None:
    """malloc returns NULL, and the shell continues. It starts no program before there is memory again."""
    script = f"""
        {FOLDER}/large eat >/run/eater & eater=$!
        until read -r line </run/eater; do :; done
        kill -9 $eater
        wait $eater
        echo "ended by $?"
        {FOLDER}/large map 10 && echo free
    """
    result = testing.but(memory="64M").run("/bin/sh", "-c", script, timeout=100)
    assert result.lines() == ["ended by 137", "free"], result.describe()


@pytest.mark.parametrize("processes", [1, 10, 50])
def test_who_takes_all_memory_ends(testing: Vm, processes: int) -> None:
    """Whatever fills the memory, small processes survive, older and younger ones."""
    result = testing.but(memory="64M").run(f"{FOLDER}/hunger", "all", "1", str(processes))
    assert result.status == 0, result.describe()
    assert result.output.count(" 0 rounds failed\n") == 10, result.describe()


def test_tmp_is_limited(testing: Vm) -> None:
    """A full /tmp leaves half of the memory, and removing files frees theirs."""
    script = f"""
        for round in 1 2 3; do
            dd if=/dev/zero of=/tmp/fill bs=64k 2>/run/error && exit 1
            grep -q "No space left" /run/error || exit 2
            {FOLDER}/large map 5 || exit 3
            rm /tmp/fill
            {FOLDER}/large map 10 || exit 4
        done
        df -k /tmp | awk 'NR == 2 {{ print ($3 < 100) }}'
    """
    result = testing.but(memory="128M").run("/bin/sh", "-c", script)
    assert (result.status, result.output) == (0, "1\n"), result.describe()


def test_options_of_tmpfs(testing: Vm) -> None:
    script = """
        mkdir /run/t && mount -t tmpfs -o size=1M,nr_inodes=8 none /run/t && cd /run/t || exit 1
        dd if=/dev/zero of=a bs=10k count=200 2>/dev/null
        echo size $(stat -c %s a) $(stat -f -c "%T %b %f %c %d" .)
        rm a
        truncate -s 1G hole && dd if=hole bs=1M count=50 2>/dev/null | tr -d '\\0' | wc -c
        echo hole $(du -k hole | cut -f 1) $(stat -f -c %f .)
        echo end | dd of=hole bs=1 seek=1000000 conv=notrunc 2>/dev/null
        dd if=hole bs=1 skip=1000000 count=3 2>/dev/null; echo
        touch b x; ln b c; mv x c; mkdir e; for n in 1 2 3 4 5 6 7 8; do touch f$n 2>/dev/null || break; done
        echo inodes $(ls | wc -l)
        rm -r ./*
        echo left $(stat -f -c "%f %d" .)
        mount -o remount,size=2M /run/t && echo $(stat -f -c %b .)
        dd if=/dev/zero of=a bs=10k count=150 2>/dev/null && mount -o remount,size=1M /run/t 2>/dev/null || echo refused
        mount -t tmpfs -o size=1X none /run/t 2>/dev/null || echo refused
    """
    result = testing.run("/bin/sh", "-c", script)
    assert result.lines() == [
        "size 1048576 tmpfs 256 0 8 6",
        "0",
        "hole 0 256",
        "end",
        "inodes 7",
        "left 256 7",
        "512",
        "refused",
        "refused",
    ], result.describe()
