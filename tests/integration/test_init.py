# SPDX-License-Identifier: Apache-2.0
"""nabla-init and its settings: the command's user, and errors about settings that cannot be applied."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nabla.core.paths import VMLINUX

from .vm import Vm, status_of

NO_START = 125
IDS = "id -u; id -g; id -G"


def ids(vm: Vm, user: str, script: str = IDS) -> list[str]:
    """Run a script as a user of the guest."""
    return vm.but(options=("--user", user)).check(script).splitlines()


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("nobody", ["65534", "65534", "65534"]),
        ("65534", ["65534", "65534", "65534"]),
        ("nobody:tty", ["65534", "5", "5"]),
        ("nobody:7", ["65534", "7", "7"]),
        ("1000", ["1000", "1000", "1000"]),
        ("1000:tty", ["1000", "5", "5"]),
        ("1000:2000", ["1000", "2000", "2000"]),
        ("0:5", ["0", "5", "5"]),
        ("4294967294", ["4294967294"] * 3),
    ],
)
def test_users(minimal: Vm, user: str, expected: list[str]) -> None:
    assert ids(minimal, user) == expected


@pytest.mark.parametrize("user", ["root", "mail", "nobody"])
def test_groups(alpine: Vm, user: str) -> None:
    """The command has all groups that list the user's name."""
    uid, gid, groups = ids(alpine, user)
    assert [uid, gid] == ids(alpine, "0", f"id -u {user}; id -g {user}")
    assert sorted(groups.split()) == sorted(set(ids(alpine, "0", f"id -G {user}")[0].split()))
    if user == "root":
        assert len(groups.split()) > 3


def test_environment(alpine: Vm) -> None:
    """HOME, USER and LOGNAME are the user's unless the options set them; nothing else changes."""
    show = 'echo "$HOME $USER $LOGNAME"'
    assert ids(alpine, "mail", show) == ["/var/mail mail mail"]
    assert ids(alpine, "54321", show) == ["/ 54321 54321"]
    assert ids(alpine, "root", show) == ["/root root root"]
    own = alpine.but(options=("--user", "mail", "--env", "HOME=/tmp", "--env", "USER="))
    assert own.check(show) == "/tmp  mail\n"
    without = set(alpine.check("env").splitlines())
    assert set(ids(alpine, "mail", "env")) - without == {"HOME=/var/mail", "USER=mail", "LOGNAME=mail"}


def test_is_really_that_user(minimal: Vm) -> None:
    """No way back to root, no capability, no access to root's files; its own streams can be opened again."""
    script = """
        grep -E '^(Uid|Gid|CapEff|CapPrm)' /proc/self/status | tr '\\t' ' '
        ls /root 2>/dev/null || echo closed
        touch /tmp/mine && stat -c '%U %G' /tmp/mine
        echo again >/dev/stdout
    """
    assert ids(minimal, "nobody", script) == [
        "Uid: 65534 65534 65534 65534",
        "Gid: 65534 65534 65534 65534",
        "CapPrm: 0000000000000000",
        "CapEff: 0000000000000000",
        "closed",
        "nobody nobody",
        "again",
    ]


def test_work_directory_of_another(minimal: Vm) -> None:
    """The user's own permissions apply."""
    result = minimal.but(options=("--user", "nobody", "--workdir", "/root")).run("/bin/true")
    assert result.status == NO_START
    assert result.errors.splitlines() == ["nabla-init: /root: Permission denied"]


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("nobdy", "no such user in the guest's /etc/passwd"),
        ("nobody:nogrp", "no such group in the guest's /etc/group"),
    ],
)
def test_unknown(minimal: Vm, user: str, message: str) -> None:
    """The command does not run."""
    result = minimal.but(options=("--user", user)).run("/bin/echo", "runs")
    assert (result.status, result.output) == (NO_START, "")
    assert result.errors.splitlines() == [f"nabla-init: user {user}: {message}"]


PASSWD = r"""root:x:0:0:root:/root:/bin/sh
# a remark
short:x:77
nohome:x:78:79
7:x:80:81::/seven:
twice:x:82:83::/first:
twice:x:84:85::/second:
bad:x:eighty:81::/:
group:x:86:-1::/:
last:x:87:88::/last"""

GROUP = r"""root:x:0:
seven:x:81:
empty:x:
one:x:201:last
more:x:202:other,last,root
not:x:203:lastly,alast
own:x:88:last
bad:x:words:last
end:x:204:last"""


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("last", "87 88 88,201,202,204 /last last"),
        ("7", "80 81 81 /seven 7"),  # a name takes precedence over a number
        ("80", "80 81 81 /seven 7"),
        ("twice", "82 83 83 /first twice"),
        ("nohome", "78 79 79 / nohome"),
        ("nohome:more", "78 202 202 / nohome"),
        ("999:seven", "999 81 81 / 999"),
        ("short", "damaged line in the guest's /etc/passwd"),
        ("group", "damaged line in the guest's /etc/passwd"),
        ("bad", "no such user in the guest's /etc/passwd"),
        ("last:empty", "no such group in the guest's /etc/group"),
        ("last:bad", "no such group in the guest's /etc/group"),
    ],
)
def test_odd_files(copy_of: Callable[[str], Path], user: str, expected: str) -> None:
    """Lines that are short, duplicate, damaged or not terminated."""
    vm = Vm(copy_of("minimal"), memory="64M")
    vm.check(f"printf '%s' '{PASSWD}' >/etc/passwd; printf '%s' '{GROUP}' >/etc/group")
    show = "echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n | tr '\\n' ,) $HOME $USER"
    result = vm.but(options=("--user", user)).shell(show)
    if " " in expected and expected[0].isdigit():
        assert result.output.replace(", ", " ") == f"{expected}\n", result.describe()
    else:
        assert result.status == NO_START
        assert result.errors.splitlines() == [f"nabla-init: user {user}: {expected}"]


def test_no_files(copy_of: Callable[[str], Path]) -> None:
    """Numbers need no files."""
    vm = Vm(copy_of("minimal"), memory="64M")
    vm.check("rm /etc/passwd /etc/group")
    assert ids(vm, "55") == ["55", "55", "55"]
    assert vm.but(options=("--user", "root")).run("/bin/true").status == NO_START


def test_terminal_belongs_to_the_user(minimal: Vm) -> None:
    vm = minimal.but(options=("--user", "nobody"))
    with vm.interactive(
        "/bin/sh", "-c", "ls -l $(tty) | cut -c 1-40; echo x >/dev/tty; echo y >$(tty); id -un"
    ) as console:
        console.expect("nobody")
        console.expect_exact("x\r\n")
        console.expect_exact("y\r\n")
        console.expect_exact("nobody\r\n")
        assert status_of(console) == 0


# Settings that the launcher rejects: the test starts the kernel itself


def boot(vm: Vm, *settings: str) -> subprocess.CompletedProcess[str]:
    """Start the kernel with settings for init."""
    with open(vm.image, "rb") as disk:
        words = [str(VMLINUX), "mem=64M", f"ubd0=fd:{disk.fileno()},cow", "root=/dev/ubda", "rootfstype=ext4", "rw"]
        words += ["init=/sbin/nabla-init", "loglevel=0", "--", *settings, "arg=/bin/echo", "arg=runs", "tty=0"]
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            pass_fds=(disk.fileno(),),
            check=False,
            timeout=20,
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["address=10.0.0.1/24"], ["eth0: No such device"]),
        (["mtu=1400", "gateway=10.0.0.2"], ["eth0: mtu: No such device", "eth0: No such device"]),
        (["address=10.0.0.1"], ["10.0.0.1: not an address with a prefix length, A.B.C.D/N"]),
        (["address=10.0.0.1/33"], ["10.0.0.1/33: not an address with a prefix length, A.B.C.D/N"]),
        (["address=" + "1" * 5000 + "/8"], ["1" * 5000 + "/8: not an address with a prefix length, A.B.C.D/N"]),
        (["address=/", "user=root"], ["/: not an address with a prefix length, A.B.C.D/N"]),
    ],
)
def test_network_that_cannot_be_set_up(minimal: Vm, settings: list[str], message: list[str]) -> None:
    """An error is printed, and the VM continues."""
    result = boot(minimal, *settings)
    assert (result.returncode, result.stdout) == (0, "runs\n"), result
    assert result.stderr.splitlines() == [f"nabla-init: {line}" for line in message]


@pytest.mark.parametrize("user", ["4294967295", "12345678901", "-1", "", ":", ":5", "nobody:", "65534x", "x" * 3000])
def test_users_that_are_none(minimal: Vm, user: str) -> None:
    result = boot(minimal, f"user={user}")
    assert (result.returncode, result.stdout) == (NO_START, "")
    kind = "group in the guest's /etc/group" if user == "nobody:" else "user in the guest's /etc/passwd"
    assert result.stderr.splitlines() == [f"nabla-init: user {user}: no such {kind}"]


@pytest.mark.parametrize(("how", "status"), [("signal", 5), ("trap", 5), ("exec", 5), ("kill", 128 + signal.SIGTERM)])
def test_a_command_that_asks_to_be_traced(testing: Vm, how: str, status: int) -> None:
    """Init is its tracer and must not take a stop for an exit."""
    result = testing.run("/usr/lib/nabla-tests/traced", how)
    assert result.status == status, result.describe()


def test_a_kill_of_everything_spares_init(testing: Vm) -> None:
    """kill(-1) reaches every process but the caller and process 1, which reports the command's own status."""
    script = "sleep 1000 & kill -9 -1; wait; echo still here; exit 7"
    result = testing.run("/bin/sh", "-c", script)
    assert (result.status, result.output) == (7, "still here\n"), result.describe()
