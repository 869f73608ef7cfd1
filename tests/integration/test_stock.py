# SPDX-License-Identifier: Apache-2.0
"""Alpine's own, unmodified C library and busybox: programs enter the kernel by instructions, the shell forks."""

from __future__ import annotations

import pytest

from .conftest import image_of
from .test_guest_programs import FOLDER
from .vm import Vm, tap_failures


@pytest.fixture(scope="session")
def stock() -> Vm:
    """The test image with Alpine's own libc."""
    return Vm(image_of("stock"), memory="512M", ephemeral=True)


def test_the_libc_is_alpines(stock: Vm, testing: Vm) -> None:
    """Libc and busybox are the files in Alpine's package database."""
    audit = stock.check("apk audit --system 2>/dev/null")
    for path in ("/lib/ld-musl-x86_64.so.1", "/bin/busybox"):
        assert path[1:] not in audit
        assert stock.check(f"md5sum {path}") != testing.check(f"md5sum {path}")


def test_shell(stock: Vm) -> None:
    """What scripts expect of /bin/sh, by Alpine's own ash."""
    result = stock.run("/bin/sh", f"{FOLDER}/shell.sh")
    assert not tap_failures(result.output), result.describe()


@pytest.mark.parametrize(
    "name",
    [
        "process",
        "signals",
        "threads",
        "cancel",
        "memory",
        "files /root",
        "shared /root",
        "sites",
        "sockets",
        "faults",
        "polling",
        "pipes",
    ],
)
def test_guest_program(stock: Vm, name: str) -> None:
    program, *arguments = name.split()
    result = stock.run(f"{FOLDER}/{program}", *arguments)
    assert not tap_failures(result.output), result.describe()


def test_curl(stock: Vm) -> None:
    script = f"""
        cd /tmp && mkdir www && seq 300000 >www/numbers || exit
        curl -sf file:///tmp/www/numbers | cmp - www/numbers || exit
        python3 {FOLDER}/serve.py http 8080 www >log 2>&1 &
        curl -sf --retry 60 --retry-delay 0 --retry-connrefused http://127.0.0.1:8080/numbers >got || exit
        cmp got www/numbers && echo same
    """
    assert stock.check(script) == "same\n"


def test_python(stock: Vm) -> None:
    result = stock.run("/usr/bin/python3", f"{FOLDER}/python_checks.py", timeout=200)
    assert not tap_failures(result.output), result.describe()
