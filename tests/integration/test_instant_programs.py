# SPDX-License-Identifier: Apache-2.0
"""The contents of an instant start's snapshot besides the boot: programs in memory, and a list of pages."""

from __future__ import annotations

import pytest

from . import saved
from .instant import RESTORED, Cache, start
from .instant import cache as cache
from .vm import Vm

# A program that contains this name prints it.
CHANGE = """
import mmap, os, subprocess
path = os.path.realpath("/bin/sh")
with open(path, "r+b") as stream:
    at = stream.read().index(b"BusyBox v")
    {change}
print(subprocess.run([path, "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.split()[0].decode())
"""
CHANGES = {
    "nothing": "pass",
    "write": "stream.seek(at); stream.write(b'BusyBoy')",
    "map": "mmap.mmap(stream.fileno(), 0)[at:at + 7] = b'BusyBoy'",
    "other file": (
        "stream.seek(0); text = stream.read().replace(b'BusyBox v', b'BusyBoy v'); os.unlink(path);"
        "open(path, 'wb').write(text); os.chmod(path, 0o755)"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_programs_are_those_of_the_disk(change: str, testing: Vm, cache: Cache) -> None:
    """A program that is in the snapshot is not used when its file has changed."""
    assert start(testing) == RESTORED
    output = testing.run("python3", "-c", CHANGE.format(change=CHANGES[change])).output
    assert output == ("BusyBox\n" if change == "nothing" else "BusyBoy\n")


def test_programs_run_many_times(minimal: Vm, cache: Cache) -> None:
    """The first uses the preloaded program; the others load the same."""
    assert start(minimal) == RESTORED
    assert minimal.check("for i in 1 2 3; do sh -c 'busybox sh -c \"echo $0\"' $i; done") == "1\n2\n3\n"


def test_memory_of_programs_that_nobody_runs(minimal: Vm, cache: Cache) -> None:
    """It is freed when other programs need it."""
    script = "free=$(awk '/MemAvailable/ { print $2 }' /proc/meminfo); dd if=/dev/zero bs=$((free * 3 / 4))k count=1"
    assert start(minimal) == RESTORED
    assert minimal.run("/bin/sh", "-c", f"{script} | cat >/dev/null").status == 0


def test_list_of_pages(minimal: Vm, cache: Cache) -> None:
    """The file lists pages that every start writes to, within memory and each once."""
    assert start(minimal) == RESTORED
    pages = saved.hot_pages(cache.only())
    assert len(pages) > 50
    assert len(set(pages)) == len(pages)
    assert all(saved.at("_sdata") <= page * saved.PAGE < 64 << 20 for page in pages)
    assert saved.at("jiffies") // saved.PAGE in pages
