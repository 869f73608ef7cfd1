# SPDX-License-Identifier: Apache-2.0
"""Our package of redis: what works without fork, its benchmark and its own unit tests from the host."""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from nabla import fetch, lockfile, package_build, recipe
from nabla.package import read_record
from nabla.paths import MUSL
from nabla.sandbox import Bind, Sandbox

from .conftest import image_of
from .networked import free_port, ordinary_place, until
from .vm import Vm

SERVE = "redis-server /etc/redis.conf & until redis-cli ping >/dev/null 2>&1; do sleep 0.02; done"

# Units of upstream's tests that take seconds; the rest of them is the same by far, or about what needs fork.
UNITS = ("bitfield", "bitops", "keyspace", "multi", "pubsub", "type/hash", "type/incr", "type/list", "type/string")
# What a test does that ends in a forked process: a snapshot, the first copy for a replica, a new log of changes.
FORKS = re.compile(r"attach_to_replication_stream|bgsave|bgrewriteaof|debug reload|appendonly yes", re.IGNORECASE)
# Those that compare the host's clock with the guest's to the millisecond.
CLOCKS = ("GETEX PXAT option", "GETEX EXAT option", "Extended SET EXAT option", "Extended SET PXAT option")


@pytest.fixture(scope="module")
def vm() -> Vm:
    """The image with the larger packages."""
    return Vm(image_of("packages"), ephemeral=True)


@contextmanager
def published() -> Iterator[int]:
    """A server in the machine of an ordinary user; yields the host's port."""
    port = free_port()
    options = ["--publish", f"{port}:6379"]
    command = ("/usr/bin/redis-server", "/etc/redis.conf")
    with (
        ordinary_place("packages") as place,
        place.running("packages", *command, options=options, memory="256M"),
    ):
        until(lambda: True if host_tool("redis-cli", "-p", str(port), "ping").stdout == "PONG\n" else None, "PONG")
        yield port


def host_tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of our package on the host: its loader is our libc, its libraries those of our packages."""
    folders = [MUSL / "lib"]
    for record in map(read_record, ("openssl", "redis")):
        for part in record.parts:
            files = package_build.files_path(record.key, part.name)
            folders.append(files / "usr" / "lib")
            if (files / "usr" / "bin" / name).exists():
                program = files / "usr" / "bin" / name
    loader = MUSL / "lib" / "ld-musl-x86_64.so.1"
    words = [str(loader), "--library-path", ":".join(map(str, folders)), str(program), *arguments]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)


def test_keeps_what_it_is_told_to(vm: Vm) -> None:
    """SAVE writes, BGSAVE says why not and the server goes on; what was saved is there after a start."""
    script = f"""
        {SERVE}
        redis-cli set key value
        redis-cli bgsave >/dev/null; grep -c 'save in background: fork' /var/log/redis/redis.log
        redis-cli save
        redis-cli eval 'return redis.call("get", KEYS[1]) .. "!"' 1 key
        redis-cli shutdown nosave; wait; echo ended $?
        {SERVE}
        redis-cli get key
        redis-cli config get save | tail -n 1
        redis-cli shutdown nosave; wait; echo ended
    """
    lines = vm.check(script).split("\n")
    assert lines[:8] == ["OK", "1", "OK", "value!", "ended 0", "value", "", "ended"], lines


def test_log_of_changes(vm: Vm) -> None:
    """With appendonly each change is on the disk, without any fork."""
    script = f"""
        echo 'appendonly yes' >/etc/redis.d/append.conf
        {SERVE}
        for n in 1 2 3; do redis-cli incr counter; done
        kill -9 %1; wait
        {SERVE}
        redis-cli incr counter; redis-cli shutdown nosave
    """
    assert vm.check(script).split() == ["1", "2", "3", "4"]


def test_benchmark_from_the_host() -> None:
    with published() as port:
        finished = host_tool("redis-benchmark", "-p", str(port), "-q", "-n", "20000", "-c", "20", "-t", "set,get,lpush")
        assert finished.returncode == 0, finished.stderr
        for name in ("SET", "GET", "LPUSH"):
            rate = re.search(rf"{name}: ([0-9.]+) requests per second", finished.stdout)
            assert rate is not None, finished.stdout
            assert float(rate[1]) > 0
        assert host_tool("redis-cli", "-p", str(port), "llen", "mylist").stdout == "20000\n"


def test_its_own_units(tmp_path: Path) -> None:
    """Upstream's tests, in Tcl on the host, against the server in the machine."""
    with tarfile.open(fetch.fetch(recipe.load("redis").source[0])) as archive:
        members = [m for m in archive if "/tests/" in m.name and not m.name.endswith((".rdb", ".aof"))]
        archive.extractall(tmp_path, members, filter="data")
    (tree,) = tmp_path.iterdir()
    (tree / "tests" / "tmp").mkdir(exist_ok=True)
    helper = tree / "tests" / "test_helper.tcl"
    helper.write_text(helper.read_text().replace("localhost", "127.0.0.1"))  # the build root knows no names
    skipped = [name for unit in UNITS for name in forking(tree / "tests" / "unit" / f"{unit}.tcl")]
    assert skipped
    (tree / "skip").write_text("".join(f"{name}\n" for name in (*skipped, *CLOCKS)))
    with published() as port:
        words = ["tclsh", "tests/test_helper.tcl", "--host", "127.0.0.1", "--port", str(port), "--skipfile", "skip"]
        for unit in UNITS:
            words += ["--single", f"unit/{unit}"]
        words += ["--tags", "-external:skip -needs:repl -needs:save -large-memory -slow"]
        finished = run_in_build_root(tree, words)
    passed = re.findall(r"\[ok\]: ", re.sub("\x1b[^m]*m", "", finished.stdout))
    assert finished.returncode == 0, finished.stdout[-3000:]
    assert "All tests passed without errors!" in finished.stdout
    assert len(passed) > 500


def forking(unit: Path) -> Iterator[str]:
    """Yield the names of a unit's tests that cannot work without fork."""
    for body in re.split(r'^[ \t]*test (?=["{])', unit.read_text(), flags=re.MULTILINE)[1:]:
        name = re.match(r'\{((?:[^{}]|\{[^}]*\})*)\}|"((?:[^"\\]|\\.)*)"', body)
        assert name is not None, body[:80]
        if FORKS.search(body):
            yield name[1] or name[2]


def run_in_build_root(folder: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of the build root of packages (that has Tcl), with the host's network."""
    place = Sandbox((Bind(folder, "/build", writable=True),), pins=lockfile.PACKAGING)
    command = [word for word in place.argv(words) if word != "--unshare-net"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
