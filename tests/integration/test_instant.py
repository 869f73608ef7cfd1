# SPDX-License-Identifier: Apache-2.0
"""Instant starts: a VM that resumes from a snapshot of its boot behaves like a VM that boots."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .instant import RESTORED, Cache, start, start_of, until, until_instant
from .instant import cache as cache
from .vm import Vm, status_of

COLD = "--cold"
SETTINGS = ("--workdir", "/etc", "--hostname", "somewhere", "--user", "nobody", "--env", "A=b c", "--env", "HOME=/x")

# A script must print, report and return the same after a boot and after a restore.
SCRIPTS = {
    "status": "exit 77",
    "signal": "kill -SEGV $$",
    "streams": "echo out; echo err >&2; cat; wc -c </dev/null",
    "environment": "env | sort; set | sort",
    "arguments": 'for word in "$0" "$@"; do echo "<$word>"; done',
    "processes": "echo $$ $PPID; (sh -c 'echo $PPID'); sleep 0.01 & wait $!; echo $?",
    "family": "cat /proc/$PPID/comm; tr '\\0' ' ' </proc/1/cmdline; ls -l /proc/1/exe | sed 's/.*-> //'",
    "limits": "ulimit -a; ulimit -Ha; umask",
    "signals": "grep -E '^(Sig|Shd|Cap|Uid|Gid|Groups|Seccomp|NoNew)' /proc/self/status",
    "descriptors": "ls -l /proc/self/fd | sed 's/.* \\([0-9]* ->\\)/\\1/' | grep -v /proc",
    "terminal": "tty; test -t 0; echo $?; test -e /dev/tty && echo >/dev/tty",
    "command line": "cat /proc/cmdline",
    "messages": "cat /proc/sys/kernel/printk; dmesg | sed 's/^[^]]*] //' | grep -v -E 'random:|BogoMIPS|Memory:'",
    "mounts": "cat /proc/mounts /proc/filesystems; df -a | awk '{ print $1, $2, $6 }'",
    "nodes": "ls -lR /dev | sed 's/[A-Z][a-z][a-z] *[0-9]* .*:.. //'",
    "folders": "ls -a / /run /tmp /dev/shm /sys/class; ls -ld /tmp /run | cut -c1-10",
    "memory": "grep -E 'MemTotal|SwapTotal|CommitLimit' /proc/meminfo; cat /proc/sys/vm/*ratio*",
    "processor": "grep -v -i mhz /proc/cpuinfo; cat /proc/sys/kernel/osrelease",
    "names": "hostname; uname -a; cat /etc/hostname",
    "loopback": (
        "ip addr; ip route; (echo hello | nc -l -p 9 127.0.0.1) &"
        "until nc 127.0.0.1 9 </dev/null 2>/dev/null; do sleep 0.01; done; wait"
    ),
    "disk": (
        "echo 1 >/root/1 && sync && cat /root/1; dd if=/dev/zero of=/root/a bs=64k count=9 2>&1 | grep records;"
        "cksum /root/a; ls -l /root | wc -l"
    ),
    "files": "cd / && find bin etc lib sbin usr -xdev -type f -exec cksum {} + | sort",
    "pipes": "seq 100000 | sort -r | head -3; yes | head -c 100000 | cksum",
    "timers": "timeout -s INT 0.1 sleep 100; echo $?; trap 'echo caught' ALRM; kill -ALRM $$",
    "power": (
        "exec 2>/dev/null; (trap 'echo stopped; exit' TERM; echo waiting; >/tmp/up; while :; do sleep 0.01; done) &"
        "until test -e /tmp/up; do sleep 0.01; done; poweroff; sleep 1000"
    ),
    "interrupts": "awk '{ print $1 }' /proc/interrupts; cat /proc/partitions /proc/sys/fs/file-max",
    "modules": "ls /proc/nabla /proc/sys/net/ipv4 | cksum; cat /proc/nabla/settings | tr '\\0' '\\n'",
}


def both(vm: Vm, *command: str, stdin: bytes | None = None) -> None:
    """Run a command in a VM that boots and in two that are restored; compare."""
    cold = vm.but(options=(*vm.options, COLD)).run(*command, stdin=stdin)
    for _ in range(2):
        restored = vm.run(*command, stdin=stdin)
        assert restored == cold, f"{restored.describe()}\n=== boots\n{cold.describe()}"


def test_first_start_makes_it(minimal: Vm, cache: Cache) -> None:
    assert start(minimal) == RESTORED
    file = cache.only()
    status = file.stat()
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert status.st_mode & 0o777 == 0o400
    assert status.st_blocks * 512 < 16 << 20
    assert [start(minimal) for _ in range(3)] == [RESTORED] * 3
    assert cache.only() == file and file.stat().st_mtime_ns == status.st_mtime_ns


@pytest.mark.parametrize("name", SCRIPTS)
def test_same_behavior(name: str, minimal: Vm, cache: Cache) -> None:
    both(minimal, "/bin/sh", "-c", SCRIPTS[name], "name", "", "two words", "ü", "--", stdin=b"in\0put\n")
    assert len(cache.files()) == 1, "one was restored"


@pytest.mark.parametrize("name", ["environment", "family", "signals", "names", "nodes", "folders", "modules"])
def test_same_behavior_with_settings(name: str, minimal: Vm, cache: Cache) -> None:
    """Options that nabla-init applies need no boot."""
    vm = minimal.but(options=SETTINGS)
    both(vm, "/bin/sh", "-c", f"pwd; id; {SCRIPTS[name]}", stdin=b"")
    assert start(vm) == RESTORED


def test_same_errors(minimal: Vm, cache: Cache) -> None:
    for command in ("/no/such/command", "no-such-command", "/etc/passwd", "/etc"):
        both(minimal, command)
    for option in (("--workdir", "/nowhere"), ("--user", "nobody:nogroup"), ("--user", "nemo"), ("--service", "none")):
        both(minimal.but(options=option), "/bin/true")
    both(minimal, stdin=b"echo from a shell; exit 5\n")
    assert len(cache.files()) == 1


def test_same_disks(minimal: Vm, cache: Cache, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(bytes(range(256)) * 4096)
    script = (
        "cksum /dev/ubdb; blockdev --getsize64 /dev/ubdb; echo x >/dev/ubdb; echo $?; cksum /dev/ubdb; touch /root/x"
    )
    for kind in ("ro", "cow"):
        until_instant(minimal.but(options=("--disk", f"{data},{kind}")))
        both(minimal.but(options=("--disk", f"{data},{kind}")), "/bin/sh", "-c", script)
    both(minimal.but(ephemeral=False, read_only=True), "/bin/sh", "-c", script)
    assert data.read_bytes() == bytes(range(256)) * 4096
    assert len(cache.files()) == 3


def test_same_limits(minimal: Vm, cache: Cache) -> None:
    both(minimal.but(options=("--timeout", "0.3")), "sleep", "1000")
    both(minimal.but(options=("--cpu-time", "0.3")), "/bin/sh", "-c", "while :; do :; done")
    both(minimal.but(options=("--max-output", "1000")), "/bin/sh", "-c", "yes | head -c 100000")
    both(minimal.but(options=("--jail",)), "/bin/sh", "-c", "id; echo in a jail")


def test_same_programs(testing: Vm, cache: Cache) -> None:
    script = (
        "import ctypes, hashlib, multiprocessing, os, socket, sqlite3, subprocess, sys, threading, tempfile, time\n"
        "import numpy\n"
        "with multiprocessing.get_context('fork').Pool(3) as pool: print(pool.map(abs, range(-9, 0)))\n"
        "a, b = socket.socketpair(); a.send(b'x'); print(b.recv(9), os.cpu_count(), os.getpid(), sys.argv)\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "db = sqlite3.connect('/root/db'); db.execute('pragma journal_mode=wal'); db.execute('create table t(a)')\n"
        "db.execute('insert into t values(1)'); db.commit(); print(db.execute('select * from t').fetchall())\n"
        "print(hashlib.sha256(numpy.arange(1000.0).dot(numpy.ones(1000)).tobytes()).hexdigest())\n"
        "print(subprocess.run(['sh', '-c', 'echo $0; exit 3'], capture_output=True))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    both(testing, "python3", "-c", script)
    assert start(testing) == RESTORED


def test_random_numbers(minimal: Vm, cache: Cache) -> None:
    script = (
        "head -c 8 /dev/urandom | xxd -p; cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id; mktemp -u"
    )
    seen = [number for _ in range(4) for number in minimal.check(script).split()]
    assert len(set(seen)) == 16


def test_time(minimal: Vm, cache: Cache) -> None:
    assert start(minimal) == RESTORED
    time.sleep(2.5)
    before = time.time()
    now, uptime, boot = map(
        float, minimal.check("date +%s; cut -d' ' -f1 /proc/uptime; awk '/btime/ { print $2 }' /proc/stat").split()
    )
    assert int(before) - 1 <= now <= time.time() + 1
    assert 0 <= uptime < time.time() - before + 1, "the boot has just been"
    assert before - 3 <= boot <= time.time() + 1


def test_verbose(minimal: Vm, cache: Cache) -> None:
    loud = minimal.but(options=("--verbose",))
    first = loud.shell("echo '<4>from the guest' >/dev/kmsg")
    assert "nabla-run: start: restored" in first.errors
    assert "from the guest" in first.errors, "the kernel's messages from there on"
    cold = loud.but(options=("--verbose", COLD)).run("/bin/true")
    assert "nabla-run: start: cold, --cold\n" in cold.errors
    assert "Linux version 6.1.176" in cold.errors


@pytest.mark.parametrize(
    ("reason", "options"),
    [
        ("--cold", ["--cold"]),
        ("--append", ["--append", "quiet"]),
        ("--init", ["--init", "/sbin/../sbin/nabla-init"]),
        ("--net", ["--net", "user"]),
        ("a disk is writable", ["--disk", "DISK"]),
    ],
)
def test_boots(reason: str, options: list[str], minimal: Vm, cache: Cache, image: Path) -> None:
    words = [str(image) if word == "DISK" else word for word in options]
    assert start(minimal.but(options=tuple(words))) == ("cold", reason)
    assert not cache.files()


def test_boots_for_a_snapshot_of_the_user(minimal: Vm, cache: Cache, tmp_path: Path) -> None:
    vm = minimal.but(options=("--snapshot", str(tmp_path / "s.snap")))
    assert start(vm, "nabla-snapshot") == ("cold", "--snapshot")
    assert start(minimal.but(options=("--restore", str(tmp_path / "s.snap")))) == RESTORED
    assert not cache.files()


def test_variable(minimal: Vm, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NABLA_COLD", "1")
    assert start(minimal) == ("cold", "NABLA_COLD is set")
    monkeypatch.setenv("NABLA_COLD", "")
    assert start(minimal) == RESTORED
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(cache.base))
    assert start(minimal) == RESTORED
    assert (cache.base / ".cache" / "nabla-run").is_dir()
    monkeypatch.delenv("HOME")
    assert start(minimal) == ("cold", "neither XDG_CACHE_HOME nor HOME names a folder")


def test_other_memory_and_terminal_have_their_own(minimal: Vm, cache: Cache) -> None:
    for memory in ("64M", "65M", "1G"):
        assert start(minimal.but(memory=memory)) == RESTORED
    assert len(cache.files()) == 3


def test_terminal(minimal: Vm, cache: Cache) -> None:
    for options in ((COLD,), (), ()):
        with minimal.but(options=options).interactive(size=(31, 97)) as console:
            console.expect_exact("# ")
            console.sendline("stty size; tty; echo $TERM")
            for line in ("31 97", "/dev/console", "linux"):
                console.expect_exact(line)
            console.sendline("echo asleep; sleep 1000")
            console.expect_exact("\nasleep")
            console.sendintr()
            console.expect_exact("# ")
            console.sendline("echo status $?")
            console.expect_exact("status 130")
            console.sendline("exit 9")
            assert status_of(console) == 9
    assert len(cache.files()) == 1


def test_size_of_the_terminal_is_known_at_once(minimal: Vm, cache: Cache) -> None:
    for _ in range(20):
        with minimal.interactive("stty", "size", size=(31, 97)) as console:
            console.expect_exact("31 97")
            assert status_of(console) == 0


def test_power_button(minimal: Vm, cache: Cache) -> None:
    assert start(minimal) == RESTORED
    words = minimal.argv("/bin/sh", "-c", "echo up; sleep 1000")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM


def test_dry_run_makes_nothing(minimal: Vm, cache: Cache) -> None:
    words = [*minimal.argv()[:-1], "--dry-run", str(minimal.image)]

    def dry() -> str:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    assert "start: cold, the cache folder: No such file or directory\n" in dry()
    assert not cache.folder.exists()
    assert start(minimal.but(memory="65M")) == RESTORED
    assert "start: cold, there is no snapshot yet\n" in dry()
    assert start(minimal) == RESTORED
    assert "start: restored\n" in dry() and "restore=fd:14" in dry()


def test_report(minimal: Vm, cache: Cache) -> None:
    result = minimal.but(options=("--json",)).run("/bin/true")
    report = json.loads(result.errors)
    assert start_of(result) == RESTORED
    assert all(report[f"{part}_us"] > 0 for part in ("launch", "boot", "run", "total"))


def test_nothing_of_the_command_is_saved(minimal: Vm, cache: Cache) -> None:
    """The snapshot is older than the command and its settings."""
    words = ("/bin/sh", "-c", "echo w0rd-in-c0mmand; cat")
    result = minimal.run(*words, stdin=b"w0rd-in-input", env={"SECRET": "w0rd-in-variable"})
    assert result.status == 0
    saved = cache.only().read_bytes()
    assert not re.search(rb"w0rd-in-(c0mmand|input|variable)", saved)


def test_changed_image(minimal: Vm, cache: Cache, copy_of: Callable[[str], Path]) -> None:
    """The command reads its own image, even if size and time of modification equal those of another."""
    image = copy_of("minimal")
    vm = Vm(image, memory="64M")
    vm.check("echo 1 >/root/number")
    temporary = vm.but(ephemeral=True)
    until_instant(temporary)
    assert temporary.check("cat /root/number") == "1\n"
    before = image.stat()
    vm.check("echo 2 >/root/number")
    subprocess.run(["touch", "-d", f"@{before.st_mtime_ns / 1e9:.9f}", image], check=True)
    result = temporary.but(options=("--json",)).shell("cat /root/number")
    assert result.output == "2\n"
    # A busy host starts it later than a moment after the change.
    assert start_of(result) in (RESTORED, ("cold", "an image or the kernel was changed a moment ago"))
    until_instant(temporary)
    assert temporary.check("cat /root/number") == "2\n"
    assert len(cache.files()) == 2


def test_limits_of_the_first_command_are_its_own(minimal: Vm, cache: Cache) -> None:
    """The VM that creates the snapshot has none of them."""
    minimal.but(options=("--cpu-time", "0.001")).run("/bin/true")
    assert start(minimal) == RESTORED
    assert cache.only().stat().st_size


def test_writers_are_not_disturbed(minimal: Vm, cache: Cache, copy_of: Callable[[str], Path]) -> None:
    """Nothing holds the image when a start has ended."""
    vm = Vm(copy_of("minimal"), memory="64M")
    until_instant(vm.but(ephemeral=True))
    for number in range(20):
        memory = f"{64 + number}M"
        assert vm.but(ephemeral=True, memory=memory).run("/bin/true").status == 0
        assert vm.but(memory=memory).run("/bin/true").errors == ""


def test_image_that_does_not_save_itself(cache: Cache, copy_of: Callable[[str], Path]) -> None:
    """It boots each time; only the first start tries."""
    vm = Vm(copy_of("minimal"), memory="64M")
    script = "printf '#!/bin/sh\\necho own init\\nexec poweroff -f\\n' >/sbin/other; chmod 755 /sbin/other"
    script += "; mv /sbin/other /sbin/nabla-init"
    vm.check(script)
    temporary = vm.but(ephemeral=True)
    until(lambda: start(temporary) == ("cold", "the image does not save its boot"))
    file = cache.only()
    changed = file.stat().st_ctime_ns
    assert file.stat().st_size == 0
    assert start(temporary) == ("cold", "the image does not save its boot")
    assert file.stat().st_ctime_ns == changed
    assert "own init" in temporary.run("/bin/true").errors
