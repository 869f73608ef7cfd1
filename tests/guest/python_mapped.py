# SPDX-License-Identifier: Apache-2.0
"""Shared mappings of files in Python and SQLite: a line for each check, an exception at the first that fails."""

import mmap
import shelve
import sqlite3
import subprocess
import sys
import tempfile
from multiprocessing import shared_memory

import numpy

WRITER = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=60)
for number in range(100):
    base.execute("insert into t values (?)", (number,))
    base.commit()
"""


def write_ahead_log(folder: str) -> None:
    """Two processes write to one SQLite database in WAL mode, whose index they share by mapping a file."""
    base = sqlite3.connect(f"{folder}/base", timeout=60)
    assert base.execute("pragma journal_mode = wal").fetchone() == ("wal",)
    base.execute("create table t (n)")
    base.commit()
    other = subprocess.Popen([sys.executable, "-c", WRITER, f"{folder}/base"])
    for number in range(100, 200):
        base.execute("insert into t values (?)", (number,))
        base.commit()
    assert other.wait(timeout=100) == 0
    assert base.execute("select count(*), sum(n) from t").fetchone() == (200, 19900)
    base.execute("pragma mmap_size = 1048576")
    assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    base.close()


def mapped_file(folder: str) -> None:
    """The module mmap: a store is seen by read()."""
    with open(f"{folder}/map", "w+b") as file:
        file.truncate(100_000)
        with mmap.mmap(file.fileno(), 0) as view:
            view[70_000:70_005] = b"hello"
            view.flush()
        file.seek(70_000)
        assert file.read(5) == b"hello"


def shelf(folder: str) -> None:
    """The module shelve, on whatever database dbm finds."""
    with shelve.open(f"{folder}/shelf") as store:
        store["a"] = [1, 2]
    with shelve.open(f"{folder}/shelf") as store:
        assert dict(store) == {"a": [1, 2]}


def mapped_array(folder: str) -> None:
    """An array of numpy in a file."""
    array = numpy.memmap(f"{folder}/array", dtype="f8", mode="w+", shape=(1000,))
    array[:] = 1.5
    array.flush()
    assert float(numpy.memmap(f"{folder}/array", dtype="f8", mode="r").sum()) == 1500


def shared_segment(_folder: str) -> None:
    """The module multiprocessing.shared_memory."""
    memory = shared_memory.SharedMemory(create=True, size=5000)
    again = shared_memory.SharedMemory(memory.name)
    assert memory.buf is not None
    assert again.buf is not None
    memory.buf[4999] = 7
    assert again.buf[4999] == 7
    again.close()
    memory.close()
    memory.unlink()


def main() -> None:
    """Run all, on ext and on tmpfs."""
    for directory in ("/root", "/tmp"):
        for number, check in enumerate((write_ahead_log, mapped_file, shelf, mapped_array, shared_segment)):
            with tempfile.TemporaryDirectory(dir=directory) as folder:
                check(folder)
            print(f"ok {number + 1} - {directory}: {check.__doc__}")


main()
