# SPDX-License-Identifier: Apache-2.0
"""`nabla exec` and `nabla cp`: programs and files in running VMs. See test_control_vm.py, _hostile.py, _clients.py."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import signal
import stat
import struct
import subprocess
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from nabla.core.paths import ROOT

from .launcher import OWN_ERROR, Terminal, proc_status, terminal
from .named import BUSY, ERROR, SESSIONS, STARTED, Named, named, start, until
from .vm import Vm

BAD_INPUT = 2


@pytest.fixture(scope="module")
def vm(minimal: Vm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    """A VM that sleeps, for tests that do not change it."""
    words = minimal.argv("sleep", "100000", env={"OUTER": "of the VM"})
    with named(words, tmp_path_factory.mktemp("named")) as running:
        yield running


def test_status_and_output(vm: Named) -> None:
    result = vm.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert vm.run("true").returncode == 0
    assert vm.run("sh", "-c", "kill -9 $$").returncode == 128 + 9


def test_a_program_that_is_none(vm: Named) -> None:
    result = vm.run("nothing-of-this-name")
    assert (result.returncode, result.stderr) == (127, "nabla: VM vm: nothing-of-this-name: not found\n")
    result = vm.run("/etc/passwd")
    assert (result.returncode, result.stderr) == (126, "nabla: VM vm: /etc/passwd: Permission denied\n")


def test_environment_directory_and_user(vm: Named) -> None:
    """The command has the environment of the VM's own command; given variables replace those."""
    script = "pwd; id -u; echo $OUTER $INNER $HOME"
    assert vm.check(script) == "/\n0\nof the VM /root\n"
    options = ("--env", "INNER=x", "--env=OUTER=y", "--workdir", "/tmp", "--user", "nobody")
    result = vm.run("sh", "-c", script, options=options)
    assert result.stdout.split() == ["/tmp", "65534", "y", "x", "/"], result
    result = vm.run("id", "-g", options=("--user", "7:8"))
    assert result.stdout == "8\n", result
    result = vm.run("true", options=("--user", "nobody-else"))
    assert result.returncode == OWN_ERROR and "it has no such user" in result.stderr
    result = vm.run("true", options=("--workdir", "/nowhere"))
    assert result.returncode == OWN_ERROR and "cannot enter directory /nowhere" in result.stderr


def test_standard_input(vm: Named) -> None:
    """Only with -i; more data than all buffers on the way hold, in both directions."""
    data = random.Random(1).randbytes(5_000_000)
    argv = vm.words("exec", "-i", "vm", "--", "cat")
    back = subprocess.run(argv, env=vm.env, input=data, capture_output=True, check=True, timeout=60).stdout
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
    argv = vm.words("exec", "vm", "--", "cat")
    assert subprocess.run(argv, env=vm.env, input=b"x", capture_output=True, check=True, timeout=60).stdout == b""
    result = vm.run("sh", "-c", "exec <&-; sleep 0.2; echo done", options=("-i",), stdin=None, input="x" * 500_000)
    assert (result.returncode, result.stdout) == (0, "done\n")


def test_much_output(vm: Named) -> None:
    argv = vm.words("exec", "vm", "--", "dd", "if=/dev/zero", "bs=65536", "count=1024")
    result = subprocess.run(argv, env=vm.env, capture_output=True, check=True, timeout=60)
    assert len(result.stdout) == 1024 * 65536


def test_who_does_not_read_stops_nobody_else(vm: Named) -> None:
    """Its program waits, because its credit is used up; others continue."""
    with vm.started("sh", "-c", "dd if=/dev/zero bs=65536 count=100; echo end >&2") as slow:
        assert slow.stdout
        assert slow.stdout.read(1) == b"\0"
        for _ in range(20):
            assert vm.check("echo other") == "other\n"
        assert len(slow.stdout.read()) == 100 * 65536 - 1
        assert slow.wait(60) == 0


def test_what_stays_in_the_background(vm: Named) -> None:
    """The session ends with its program, although another one holds its output."""
    assert vm.check("sleep 1000 & echo $!").strip().isdigit()
    vm.check("pkill -f 'sleep 1000$'")


WRITES_ON = "yes & dd if=/dev/zero bs=50000 count=1 2>/dev/null | tr '\\0' x; echo; exit 3"


def test_what_writes_in_the_background(vm: Named) -> None:
    """It does not delay the end of the session, and the program's own last output arrives."""
    result = vm.run("sh", "-c", WRITES_ON)
    assert result.returncode == 3 and result.stdout.count("x") == 50000
    assert vm.check("pkill -x yes; echo there") == "there\n"
    with on_a_terminal(vm, f"trap '' HUP; {WRITES_ON}") as host:
        host.read_until(b"x" * 1000)
        until(lambda: host.read() == b"")
        assert host.wait() == 3
    assert vm.check("pkill -x yes; echo there") == "there\n"


def test_many_at_once(vm: Named) -> None:
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda n: vm.check(f"echo {n}; exit 0"), range(100)))
    assert results == [f"{n}\n" for n in range(100)]


def test_as_many_sessions_as_there_are(minimal: Vm, tmp_path: Path) -> None:
    with named(minimal.but(memory="256M").argv("sleep", "1000"), tmp_path) as vm:
        for _ in range(SESSIONS):
            peer = vm.connect()
            peer.send(start("sleep", "1000"))
            peer.expect(STARTED)
        more = vm.connect()
        more.send(start("true"))
        assert more.expect(ERROR) == bytes([BUSY])
        assert "cannot have more" in vm.run("true").stderr
        vm.hang_up()
        until(lambda: vm.run("true").returncode == 0)


def test_who_goes_away_hangs_up(vm: Named) -> None:
    with vm.started("sh", "-c", "echo $$; exec sleep 1000") as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        process.kill()
    until(lambda: not vm.check(f"test -d /proc/{pid} && echo there || true"))


def test_signals_are_passed_on(vm: Named) -> None:
    with vm.started("sh", "-c", "trap 'echo got; exit 7' INT; echo ready; while :; do sleep 0.05; done") as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"got\n"
        assert process.wait(60) == 7


def test_signals_while_nobody_reads(vm: Named) -> None:
    """They end a program whose output is blocked."""
    with vm.started("sh", "-c", "echo $$; exec dd if=/dev/zero bs=65536") as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        # all windows and pipes are full when the program sleeps in write()
        until(lambda: vm.check(f"grep -c pipe_write /proc/{pid}/wchan || true") == "1\n")
        process.send_signal(signal.SIGTERM)
        until(lambda: not vm.check(f"test -d /proc/{pid} && echo there || true"))
        process.stdout.read()
        assert process.wait(60) == 128 + signal.SIGTERM


def test_a_terminal(vm: Named) -> None:
    """Its size and its changes, echo, keys that send signals; the host's terminal is raw during the session only."""
    script = "tty; stty size; read x; echo \"<$x>\"; trap 'stty size; exit 5' INT; while :; do sleep 0.05; done"
    with on_a_terminal(vm, script) as host:
        seen = host.read_until(b"\r\n")
        assert seen.startswith(b"/dev/pts/"), seen
        host.read_until(b"\r\n")
        assert host.is_raw()
        os.write(host.master, b"word\r")
        host.read_until(b"<word>\r\n")
        fcntl.ioctl(host.master, termios.TIOCSWINSZ, struct.pack("4H", 33, 101, 0, 0))
        until(lambda: b"33 101" in _window(vm))
        os.write(host.master, b"\x03")
        host.read_until(b"33 101\r\n")
        assert host.wait() == 5
        assert not host.is_raw()
    result = vm.run("true", options=("-t",))
    assert result.returncode == BAD_INPUT and "are not a terminal" in result.stderr


def on_a_terminal(vm: Named, script: str) -> AbstractContextManager[Terminal]:
    """Start a shell script in the VM on a terminal."""
    runtime = f"XDG_RUNTIME_DIR={vm.runtime}"
    return terminal("/usr/bin/env", runtime, *vm.words("exec", "-it", "vm", "--", "sh", "-c", script))


def test_a_terminal_that_is_stopped(vm: Named) -> None:
    """By another program, as the guest gets the key. The host's terminal has its own mode until nabla continues."""
    with on_a_terminal(vm, "echo up; read x; stty size; exit 4") as host:
        host.read_until(b"up\r\n")
        until(host.is_raw)
        os.kill(host.pid, signal.SIGTSTP)
        until(lambda: proc_status(host.pid)["State"].startswith("T"))
        assert not host.is_raw()
        fcntl.ioctl(host.master, termios.TIOCSWINSZ, struct.pack("4H", 34, 102, 0, 0))
        os.kill(host.pid, signal.SIGCONT)
        until(lambda: host.is_raw() and b"34 102" in _window(vm))
        os.write(host.master, b"\r")
        host.read_until(b"34 102\r\n")
        assert host.wait() == 4
        assert not host.is_raw()


def test_the_type_of_the_terminal(vm: Named) -> None:
    """The host's value, unless another one is given."""
    env = ("/usr/bin/env", f"XDG_RUNTIME_DIR={vm.runtime}", "TERM=of-the-host")
    script = ("vm", "--", "sh", "-c", "echo $TERM.")
    with terminal(*env, *vm.words("exec", "-t", *script)) as host:
        host.read_until(b"of-the-host.")
    with terminal(*env, *vm.words("exec", "-t", "--env", "TERM=given", *script)) as host:
        assert host.read_until(b".") == b"given."


def test_patience(vm: Named) -> None:
    """Signals that do not request an end are not counted."""
    script = "trap 'echo u' USR1; trap 'echo i' INT; echo ready; while :; do sleep 0.05; done"
    with vm.started("sh", "-c", script) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        for _ in range(6):
            process.send_signal(signal.SIGUSR1)
            assert process.stdout.readline() == b"u\n"
        assert process.poll() is None
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.stdout.read1(100)  # type: ignore[attr-defined]
        assert process.wait(60) == 128 + signal.SIGINT


def _window(vm: Named) -> bytes:
    """Return the size of the first terminal of the guest."""
    return vm.check("for t in /dev/pts/[0-9]*; do stty size <$t; done").encode()


def test_signals_to_all_processes(minimal: Vm, tmp_path: Path) -> None:
    """A signal that reaches a program before it starts must not act on process 1, which would end the VM."""
    with named(minimal.argv("sh", "-c", "trap '' TERM USR1 USR2; sleep 1000"), tmp_path) as vm:
        script = "echo ready; while :; do kill -TERM -1; kill -USR1 -1; kill -USR2 -1; done"
        with vm.started("sh", "-c", script) as process:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            for _ in range(200):
                assert vm.run("true").returncode in {0, *(128 + n for n in (signal.SIGTERM, 10, 12))}
            process.kill()
        assert vm.check("echo there") == "there\n"


def test_files(vm: Named, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(3_000_000)
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(data)
    there.chmod(0o750)
    assert vm.nabla("cp", there, "vm:/tmp/file").returncode == 0
    assert vm.check("stat -c '%a %s' /tmp/file") == "750 3000000\n"
    assert vm.nabla("cp", "vm:/tmp/file", back).returncode == 0
    assert back.read_bytes() == data and stat.S_IMODE(back.stat().st_mode) == 0o750
    # an existing file is replaced, a folder takes the file's own name
    (tmp_path / "short").write_bytes(b"short")
    assert vm.nabla("cp", tmp_path / "short", "vm:/tmp/file").returncode == 0
    assert vm.check("cat /tmp/file") == "short"
    assert vm.nabla("cp", tmp_path / "short", "vm:/tmp/").returncode == 0
    assert vm.nabla("cp", "vm:/tmp/short", "-").stdout == "short"
    assert vm.nabla("cp", "vm:/tmp/short", tmp_path).returncode == 0
    assert vm.nabla("cp", "-", "vm:/tmp/in", stdin=None, input="from stdin").returncode == 0
    assert vm.check("cat /tmp/in; rm /tmp/in /tmp/short /tmp/file") == "from stdin"


@pytest.mark.parametrize("path", ["/nothing", "/tmp", "/dev/null", "/proc/nothing/x"])
def test_files_that_cannot_be_copied(vm: Named, tmp_path: Path, path: str) -> None:
    """No file of the host is created or changed."""
    result = vm.nabla("cp", f"vm:{path}", tmp_path / "out")
    assert result.returncode == OWN_ERROR and f"VM vm: {path}: " in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    if path != "/nothing":
        assert vm.nabla("cp", ROOT / "LICENSE", f"vm:{path}").returncode == OWN_ERROR


def test_a_file_that_cannot_be_read(vm: Named) -> None:
    """An error on the host is the error of the copy."""
    result = vm.nabla("cp", "/proc/self/mem", "vm:/tmp/half")
    assert result.returncode == OWN_ERROR and "cannot read the input: " in result.stderr
    vm.check("rm /tmp/half")


def test_a_full_disk(vm: Named, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * (50 << 20))  # more than /tmp of a VM of 64 MB
    result = vm.nabla("cp", big, "vm:/tmp/big")
    assert result.returncode == OWN_ERROR and "No space left on device" in result.stderr
    vm.check("rm /tmp/big")


def test_only_process_1_has_the_channel(vm: Named, minimal: Vm) -> None:
    """Without a name there is no device."""
    result = vm.run("sh", "-c", "exec 3<>/dev/host/control")
    assert result.returncode != 0 and "Operation not permitted" in result.stderr
    assert vm.check("ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    assert minimal.check("ls /dev/host").split() == ["stderr", "stdin", "stdout"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "unknown command nonsense (see nabla --help)"),
        (["ps", "x"], "unexpected argument 'x'"),
        (["exec"], "no VM given"),
        (["exec", "vm"], "no command given"),
        (["exec", "vm", "--"], "no command given"),
        (["exec", "-x", "vm", "--", "true"], "unknown option -x"),
        (["exec", "--env", "A", "vm", "--", "true"], "'A' is not an assignment"),
        (["exec", "--env"], "--env needs a value"),
        (["exec", "--workdir", "tmp", "vm", "--", "true"], "'tmp' does not begin with /"),
        (["exec", "--user=", "vm", "--", "true"], "the name is empty"),
        (["exec", "../vm", "--", "true"], "'../vm' is not the name of a VM"),
        (["exec", "vm", "--", "echo", "x" * 70000], "longer than 65536 bytes"),
        (["cp"], "cp takes two arguments"),
        (["cp", "a", "b"], "no file is in a VM"),
        (["cp", "a:/b", "c:/d"], "both files are in VMs"),
        (["cp", "vm:b", "x"], "'b' is not an absolute path of VM vm"),
        (["cp", "/nothing", "vm:/x"], "cannot open /nothing"),
        (["cp", "/tmp", "vm:/x"], "/tmp is a directory (add -r)"),
        (["stop"], "no VM given"),
        (["stats", "a b"], "'a b' is not the name of a VM"),
    ],
)
def test_errors_in_words(vm: Named, words: list[str], message: str) -> None:
    result = vm.nabla(*words)
    assert result.returncode == BAD_INPUT, result
    assert message in result.stderr and result.stderr.count("\n") == 1 and result.stderr.startswith("nabla: ")
    assert result.stdout == ""


def test_a_vm_that_is_none(vm: Named) -> None:
    for words in (["exec", "none", "--", "true"], ["stop", "none"], ["cp", "none:/x", "-"], ["stats", "none"]):
        result = vm.nabla(*words)
        assert result.returncode == OWN_ERROR, result
        assert "nabla: this user has no running VM named none (list running VMs: nabla ps" in result.stderr


def test_help(vm: Named) -> None:
    text = vm.nabla("--help").stdout
    for command in ("ps", "exec", "cp", "stop", "kill", "pause", "resume", "stats", "port", "logs"):
        assert f"nabla {command}" in text
        assert vm.nabla(command, "--help").stdout.startswith(f"usage: nabla {command}")
    assert vm.nabla().returncode == BAD_INPUT
    assert vm.nabla("--version").stdout.startswith("nabla ")


def test_the_wire_is_described_once() -> None:
    """Both programs have the same copy."""
    assert (ROOT / "init/control_wire.h").read_bytes() == (ROOT / "launcher/control_wire.h").read_bytes()


def test_beside_as_many_shares_as_there_are(testing: Vm, tmp_path: Path) -> None:
    """A VM has all its streams and a name."""
    for number in range(7):
        (tmp_path / f"d{number}").mkdir()
    options = [word for n in range(7) for word in ("--mount", f"{tmp_path}/d{n}:/mnt/d{n}:ro")]
    tmp_path.chmod(0o755)
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    with named(testing.but(options=tuple(options)).argv("sleep", "1000"), tmp_path) as full:
        assert full.check("mount | grep -c '/mnt/d[0-6] type 9p'") == "7\n"
