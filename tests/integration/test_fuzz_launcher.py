# SPDX-License-Identifier: Apache-2.0
"""nabla-run against hostile input: random and mutated arguments, damaged images and kernels, paths that are not files,
closed streams, signals at any moment of a VM's life, with and without a terminal.

Every case requires one clear line for an error, the right status, no crash, nothing left behind, and the terminal
restored. The launcher is compiled with the address and undefined behavior sanitizers (and used as built where timing
matters). All random choices have fixed seeds; a failure prints the arguments.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pytest

from nabla.core.paths import LAUNCHER_SRC, NABLA_RUN, ROOT, VMLINUX
from nabla.sandbox.bwrap import Bind, Sandbox

from .conftest import image_of
from .launcher import OWN_ERROR, TIMED_OUT

SANITIZED = "-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
COMPILE = f"""
make CC=gcc-12 call_names.inc
ls *.c | xargs -P "$JOBS" -n 1 ccache gcc-12 -std=c11 -D_GNU_SOURCE {SANITIZED} -c
gcc-12 {SANITIZED} -static-libasan -static-libubsan *.o -o nabla-run
"""
SANITIZER_FAILED = 99
# exit frees memory that is still reachable.
ENVIRONMENT = {
    **os.environ,
    "NABLA_KERNEL": str(VMLINUX),
    "ASAN_OPTIONS": f"detect_leaks=0:exitcode={SANITIZER_FAILED}:abort_on_error=0",
    "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode={SANITIZER_FAILED}",
}
SUPERBLOCK = 1024


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher with sanitizers, dynamically linked with the host's C library."""
    folder = tmp_path_factory.mktemp("launcher")
    for source in (*LAUNCHER_SRC.glob("*.[ch]"), LAUNCHER_SRC / "Makefile"):
        shutil.copy(source, folder)
    Sandbox((Bind(folder, "/build", writable=True),), {"JOBS": str(os.cpu_count())}).run(
        COMPILE, title="the launcher with sanitizers"
    )
    return folder / "nabla-run"


@dataclass(frozen=True)
class Victim:
    """The launcher under test, with an image and a kernel."""

    launcher: Path
    image: Path
    kernel: Path

    def run(self, *words: str | bytes | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Start it with these arguments."""
        settings: dict[str, Any] = {"capture_output": True, "stdin": subprocess.DEVNULL, "timeout": 60}
        result: subprocess.CompletedProcess[bytes] = subprocess.run(
            [self.launcher, *words], check=False, env=ENVIRONMENT, **settings | options
        )
        return result

    def judge(self, *words: str | bytes | Path, allowed: tuple[int, ...] = (0,)) -> int:
        """Start it; assert that its status is one of these, or its own after one clear line. Returns the status."""
        result = self.run(*words)
        details = f"{words}\nstatus {result.returncode}\n{result.stderr.decode(errors='replace')}"
        if result.returncode != OWN_ERROR:
            assert result.returncode in allowed, details
            return result.returncode
        assert is_one_line(result.stderr), details
        assert result.stdout == b"", details
        return OWN_ERROR


def is_one_line(text: bytes) -> bool:
    return text.startswith(b"nabla-run: ") and text.endswith(b"\n") and not re.search(rb"[\x00-\x1f\x7f]", text[:-1])


@pytest.fixture
def victim(sanitized: Path, image: Path) -> Victim:
    return Victim(sanitized, image, VMLINUX)


# Words


SWITCHES = (
    "--read-only",
    "--ephemeral",
    "--verbose",
    "--jail",
    "--json",
    "--trace-policy",
    "--dry-run",
    "--follow-symlinks",
)
VALUES: dict[str, tuple[str, ...]] = {
    "--memory": (
        "64M",
        "24M",
        "15M",
        "0",
        "1G",
        "18446744073709551615",
        "17592186044415M",
        "9" * 30 + "G",
        "1K",
        "64m",
    ),
    "--disk": (
        "OTHER,ro",
        "OTHER",
        "IMAGE,ro",
        "IMAGE,cow",
        "IMAGE",
        ",ro",
        "IMAGE,ro,cow",
        "/dev/null",
        "/",
        ",",
        ",,,,ro",
    ),
    "--kernel": ("KERNEL", "/", "/dev/null", "IMAGE", "", "KERNEL/x", "/proc/self/exe", "/etc/passwd"),
    "--init": ("/sbin/nabla-init", "sh", "/a b", "/" + "x" * 5000, '/"'),
    "--append": (
        "panic=1",
        "a b  c",
        "--",
        "mem=1G",
        'a"b',
        "x" * 5000,
        " ",
        "\t\n",
        "policy=trace",
        "=",
        "ubd",
        "eth0",
    ),
    "--env": ("A=1", "=", "A", "A=" + "x" * 5000, "A==", "A=\n\x1b[2J"),
    "--workdir": ("/", "tmp", "/" * 3000, ""),
    "--user": ("root", "0:0", ":", "4294967295", "4294967294", "a:b", "-x", "99999999999999999999", "x" * 65),
    "--hostname": ("h", "x" * 64, "x" * 65, "a b", "é"),
    "--net": (
        "none",
        "user",
        "tap=",
        "tap=tap99",
        "tap=" + "x" * 99,
        "fd=0",
        "fd=99",
        "fd=-1",
        "fd=",
        "fd=4294967297",
        "x",
    ),
    "--publish": ("8080:80", "0.0.0.0:8080:80/udp", "0:0", "65536:1", "1:65536", "1.2.3:4:5", ":::::", "80", "1:2/tcp"),
    "--dns": ("9.9.9.9", "256.1.1.1", "1.1.1", "::1", "09.9.9.9", "1.1.1.1 "),
    "--ip": ("10.0.0.2/24,10.0.0.1", "10.0.0.2/33", "10.0.0.2", "10.0.0.2/", "10.0.0.2/24,", "10.0.0.2/0", "/24"),
    "--run-as": ("65534", "0", "1000:1000", "4294967295", "1:", ":1", "root", "1:4294967295"),
    "--timeout": ("1", "0.5", "0", "0.", ".5", "1e9", "1000000000", "0.0000000001", "9" * 40, "1." + "9" * 100),
    "--cpu-time": ("60", "none", "0.25", "0", "-1", "1e3", "9" * 40, "1000000001", "None"),
    "--nice": ("10", "0", "19", "20", "-1", "+1", "4294967296", ""),
    "--max-output": ("1M", "none", "0", "18446744073709551615", "9" * 30 + "G", "1T", "-1", "none "),
    "--max-cow": ("1G", "none", "0", "18446744073709551615K", "1KB", "", "0x10"),
    "--stats-fd": ("2", "0", "99", "-1", "4294967298", "2147483648", "1x"),
}
NOISE = (
    "",
    "-",
    "--",
    "---",
    "-h",
    "--help",
    "--version",
    "--manual",
    "=",
    "--=",
    "--memory=",
    "%s%n%n%d",
    "é",
    "\x1b[2J",
    "x" * 5000,
)


def make_words(chosen: random.Random, names: dict[str, str]) -> list[bytes]:
    """Return a mostly valid command line."""
    words = ["--net=user"] if chosen.random() < 0.5 else []
    for _ in range(chosen.randrange(6)):
        if chosen.random() < 0.3:
            words.append(chosen.choice(SWITCHES))
            continue
        option = chosen.choice([*VALUES])
        # The first one is good.
        value = VALUES[option][0] if chosen.random() < 0.8 else chosen.choice(VALUES[option])
        value = re.sub("IMAGE|KERNEL|OTHER", lambda found: names[found[0]], value)
        words += [f"{option}={value}"] if chosen.random() < 0.4 else [option, value]
    words += [names["IMAGE"]] if chosen.random() < 0.9 else []
    words += ["--", "true"] if chosen.random() < 0.3 else []
    return [word.encode() for word in words]


def mutate(chosen: random.Random, words: list[bytes]) -> list[bytes]:
    """Damage a command line."""
    words = list(words)
    for _ in range(chosen.randrange(4)):
        at = chosen.randrange(len(words) + 1)
        kind = chosen.randrange(6)
        if kind == 0:
            words.insert(at, chosen.choice(NOISE).encode())
        elif kind == 1 and words:
            del words[at % len(words)]
        elif kind == 2 and words:
            words.insert(at, chosen.choice(words))
        elif words:
            word = bytearray(words[at % len(words)])
            if word and kind == 3:
                word[chosen.randrange(len(word))] = chosen.randrange(1, 256)
            elif kind == 4:
                del word[chosen.randrange(len(word) + 1) :]
            else:
                word[chosen.randrange(len(word) + 1) :] = bytes(chosen.choices(range(1, 256), k=chosen.randrange(40)))
            words[at % len(words)] = bytes(word)
    return words


def test_options(victim: Victim, tmp_path: Path) -> None:
    """Nothing is started: --dry-run stands in front, so that whatever follows is read, too."""
    chosen = random.Random(20260601)
    names = {"IMAGE": str(victim.image), "KERNEL": str(victim.kernel), "OTHER": str(tmp_path / "other")}
    (tmp_path / "other").write_bytes(bytes(4096))
    seen = {0: 0, OWN_ERROR: 0}
    for number in range(300):
        words = make_words(chosen, names)
        seen[victim.judge("--dry-run", *(mutate(chosen, words) if number % 3 else words))] += 1
    assert min(seen.values()) > 50, seen  # some arguments are valid and some are not


def test_options_of_machines_that_run(victim: Victim) -> None:
    """Valid options in any combination start a VM or are refused; the exit status is the command's."""
    chosen = random.Random(7)
    good = [
        "--read-only",
        "--ephemeral",
        "--verbose",
        "--json",
        "--memory=32M",
        "--memory=200M",
        "--env=A=b",
        "--workdir=/tmp",
    ]
    good += [
        "--user=0",
        "--user=1000:1000",
        "--hostname=h",
        "--append=a b",
        "--timeout=30",
        "--stats-fd=1",
        "--jail",
        "--ip=1.2.3.4/5",
    ]
    good += [
        f"--disk={victim.image},ro",
        f"--disk={victim.image},cow",
        "--run-as=0",
        "--run-as=12345",
        "--net=none",
        "--dns=1.1.1.1",
    ]
    good += ["--cpu-time=30", "--nice=3", "--max-output=1M", "--max-cow=500M", "--follow-symlinks"]
    seen = {7: 0, OWN_ERROR: 0}
    for _ in range(60):
        words = [*chosen.sample(good, chosen.randrange(7)), "--kernel", str(victim.kernel), str(victim.image)]
        result = victim.run(*words, "--", "sh", "-c", "exit 7")
        assert result.returncode in seen, (words, result)
        assert result.returncode == 7 or is_one_line(result.stderr), (words, result)
        seen[result.returncode] += 1
    assert min(seen.values()) > 5, seen


# Images


FIELDS = {
    "blocks": (4, "<I"),
    "block size": (24, "<I"),
    "magic": (56, "<H"),
    "features": (96, "<I"),
    "high blocks": (336, "<I"),
}
NUMBERS = (0, 1, 5, 6, 7, 21, 22, 31, 32, 53, 54, 63, 64, 127, 0x7FFF, 0x8000, 0xFFFF, 1 << 31, (1 << 32) - 1)


def test_damaged_superblocks(victim: Victim) -> None:
    """Accepted, or refused in one line; an accepted file system must fit into the file."""
    chosen = random.Random(2)
    whole = victim.image.read_bytes()[SUPERBLOCK : 2 * SUPERBLOCK]
    seen = {0: 0, OWN_ERROR: 0}
    with victim.image.open("r+b") as stream:
        for number in range(200):
            block = bytearray(whole)
            for _ in range(chosen.randrange(1, 5)):
                if number % 2:
                    offset, form = chosen.choice([*FIELDS.values()])
                    value = chosen.choice(NUMBERS) & ((1 << 8 * struct.calcsize(form)) - 1)
                    struct.pack_into(form, block, offset, value)
                else:
                    block[chosen.randrange(len(block))] ^= 1 << chosen.randrange(8)
            stream.seek(SUPERBLOCK)
            stream.write(block)
            stream.flush()
            mode = chosen.choice(["--read-only", "--ephemeral", "--dry-run"])
            seen[victim.judge("--dry-run", mode, "--kernel", victim.kernel, victim.image)] += 1
    assert min(seen.values()) > 20, seen


def test_cut_images(victim: Victim) -> None:
    chosen = random.Random(3)
    size = victim.image.stat().st_size
    lengths = [0, 1, 511, 512, 1023, 1024, 1025, 1079, 1080, 2047, 2048, 4096, size - 1, size - 512]
    lengths += [chosen.randrange(size) for _ in range(20)]
    for length in sorted(lengths, reverse=True):
        os.truncate(victim.image, length)
        assert victim.judge("--kernel", victim.kernel, "--ephemeral", victim.image) == OWN_ERROR, length
    # Holes instead of data: the magic number is gone.
    os.truncate(victim.image, size)
    assert victim.judge("--kernel", victim.kernel, victim.image) == OWN_ERROR


def test_machines_on_damaged_images(victim: Victim) -> None:
    """The exit status is the command's, or the launcher's own for a kernel that panics."""
    chosen = random.Random(4)
    whole = victim.image.read_bytes()
    for _ in range(25):
        damaged = bytearray(whole)
        for _ in range(chosen.choice([1, 10, 200])):
            at = chosen.choice([SUPERBLOCK + 1024, 8192, 65536, len(whole)])
            damaged[chosen.randrange(SUPERBLOCK, at)] = chosen.randrange(256)
        victim.image.write_bytes(damaged)
        words = ("--kernel", victim.kernel, "--memory", "64M", "--ephemeral", "--timeout", "10", victim.image)
        result = victim.run(*words, "--", "true")
        assert result.returncode >= 0, result
        assert result.returncode != SANITIZER_FAILED, result
        assert result.returncode == 0 or b"nabla-" in result.stderr or b"panic" in result.stdout + result.stderr, result


def odd_files(folder: Path, image: Path) -> dict[str, Path]:
    """Create paths that are not regular files, and dangling names."""
    made = {
        name: folder / name
        for name in ("directory", "fifo", "socket", "loop", "dangling", "empty", "huge", "a\nb\x1b[2J")
    }
    made["directory"].mkdir()
    os.mkfifo(made["fifo"])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(made["socket"]))
    made["loop"].symlink_to("loop2")
    (folder / "loop2").symlink_to("loop")
    made["dangling"].symlink_to("nowhere")
    made["empty"].touch()
    made["a\nb\x1b[2J"].write_bytes(b"x" * 4096)
    made["huge"].touch()
    os.truncate(made["huge"], 1 << 43)
    (folder / "locked").mkdir(mode=0)
    made["under a file"] = image / "x"
    made["in a locked folder"] = folder / "locked" / "x"
    made["missing"] = folder / "missing"
    made["long name"] = folder / ("x" * 300)
    made["long path"] = Path("/" + "x/" * 3000)
    for name in ("null", "zero", "full", "tty", "random", "fd/0", "stdin"):
        made[f"/dev/{name}"] = Path("/dev", name)
    for name in ("self/mem", "self/fd", "version", "self/ns/net", "kmsg"):
        made[f"/proc/{name}"] = Path("/proc", name)
    if os.geteuid() == 0:
        for name, kind in (("character device", stat.S_IFCHR), ("block device", stat.S_IFBLK)):
            made[name] = folder / name
            os.mknod(made[name], kind | 0o600, os.makedev(240, 7))
    return made


def test_odd_files(victim: Victim, tmp_path: Path) -> None:
    """As image, further disk or kernel, in each mode: refused at once in one line."""
    for name, path in odd_files(tmp_path, victim.image).items():
        common = ("--timeout", "5", "--kernel")
        for mode in ((), ("--read-only",), ("--ephemeral",)):
            assert victim.judge(*common, victim.kernel, *mode, path) == OWN_ERROR, name
        assert victim.judge(*common, path, "--ephemeral", victim.image) == OWN_ERROR, name
        for suffix in ("", ",ro", ",cow"):
            words = ("--dry-run", "--ephemeral", "--disk", f"{path}{suffix}", "--kernel", victim.kernel, victim.image)
            status = victim.judge(*words)
            assert status == OWN_ERROR or name in ("huge", "a\nb\x1b[2J"), name


def test_a_link_to_an_image_is_one(victim: Victim, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(victim.image)
    assert victim.judge("--kernel", victim.kernel, "--read-only", tmp_path / "link", "--", "true") == 0


# Kernels


def test_damaged_kernels(victim: Victim, tmp_path: Path) -> None:
    """Truncated, or with a damaged header: the host refuses it in one line, or the VM crashes and is reported."""
    chosen = random.Random(5)
    kernel = tmp_path / "vmlinux"
    whole = victim.kernel.read_bytes()
    crashed = tuple(128 + int(number) for number in signal.Signals)

    def attempt(data: bytes) -> None:
        kernel.write_bytes(data)
        kernel.chmod(0o755)
        words = ("--kernel", kernel, "--timeout", "0.3", "--ephemeral", victim.image, "--", "true")
        result = victim.run(*words)
        details = (len(data), result)
        assert result.returncode in (0, TIMED_OUT, OWN_ERROR, *crashed), details
        assert result.returncode != SANITIZER_FAILED, details
        assert result.returncode == 0 or result.stderr.count(b"nabla-run: ") == 1 or b"panic" in result.stderr, details

    for length in (0, 1, 4, 63, 64, 65, 120, 4096, len(whole) // 2):
        attempt(whole[:length])
    attempt(b"#!/nonexistent\n")
    attempt(b"#!" + b"x" * 5000)
    attempt(b"echo this is a script\n")
    attempt(chosen.randbytes(70_000))
    for _ in range(30):
        header = bytearray(whole[:512])
        for _ in range(chosen.randrange(1, 6)):
            header[chosen.randrange(4, 64 if chosen.random() < 0.5 else 512)] = chosen.choice([0, 1, 0x7F, 0x80, 0xFF])
        attempt(bytes(header) + whole[512:])
    kernel.write_bytes(whole)
    kernel.chmod(0o644)
    assert victim.judge("--kernel", kernel, "--ephemeral", victim.image) == OWN_ERROR
    kernel.chmod(0o311)  # execute permission suffices
    assert victim.judge("--kernel", kernel, "--ephemeral", victim.image, "--", "true") == 0


# Streams


CLOSINGS = [closed for count in range(4) for closed in itertools.combinations((0, 1, 2), count)]


@pytest.mark.parametrize("closed", CLOSINGS, ids=str)
@pytest.mark.parametrize("others", ["null", "pipe", "full"])
def test_closed_streams(victim: Victim, closed: tuple[int, ...], others: str) -> None:
    """The status is right whichever streams are closed, and nothing is written to the image by mistake."""
    beginning = victim.image.read_bytes()[:SUPERBLOCK]
    open_ones = {"null": "/dev/null", "full": "/dev/full"}
    redirections = " ".join(f"{fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
    if others != "pipe":
        rest = [fd for fd in range(3) if fd not in closed]
        redirections += " " + " ".join(f"{fd}<>{open_ones[others] if fd else '/dev/null'}" for fd in rest)

    def status(*words: str | Path) -> int:
        line = f"{shlex.join([str(victim.launcher), *map(str, words)])} {redirections}"
        return subprocess.run(
            ["sh", "-c", line], stdin=subprocess.PIPE, capture_output=True, env=ENVIRONMENT, timeout=60, check=False
        ).returncode

    kernel = ("--kernel", victim.kernel)
    assert status(*kernel, victim.image, "--", "sh", "-c", "echo out; echo err >&2; cat; exit 7") == 7
    assert status(*kernel, "--json", "--verbose", "--stats-fd", "2", victim.image, "--", "true") in (
        (0, OWN_ERROR) if 2 in closed else (0,)
    )
    assert status(*kernel, victim.image.with_name("missing")) == OWN_ERROR
    assert victim.image.read_bytes()[:SUPERBLOCK] == beginning


# Signals


def machine(launcher: Path, script: str, token: str) -> list[str]:
    """Return the command line of a VM that runs a script; `token` marks its processes."""
    words = [launcher, "--kernel", VMLINUX, "--memory", "32M", "--ephemeral", image_of("minimal"), "--"]
    return [*map(str, words), "sh", "-c", script, token]


QUITTING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def nobody_left(token: str) -> None:
    """Wait until no process has this word on its command line."""
    deadline = time.monotonic() + 10
    while left := list(_processes(token)):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def _processes(token: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if token.encode() in line and path.parent.name != str(os.getpid()):
            found.append(f"{path.parent.name} {line[:200]!r}")
    return found


@pytest.mark.parametrize("which", ["sanitized", "as built"])
def test_signals_without_a_terminal(sanitized: Path, which: str) -> None:
    """128+N whenever the signal arrives, except for signals that only stop, continue, or report a window change."""
    chosen = random.Random(11)
    launcher = sanitized if which == "sanitized" else NABLA_RUN
    token = f"token-{os.getpid()}-{which.replace(' ', '-')}"
    words = machine(launcher, "sleep 0.03; exit 7", token)
    harmless = (signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP, signal.SIGUSR1)
    for number in range(80):
        kind = chosen.choice(QUITTING if number % 2 else harmless[:3])
        with subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            preexec_fn=_usual_signals,
            start_new_session=bool(number & 4),
        ) as process:
            delay = 0.04 * chosen.random() ** 1.5
            time.sleep(delay)
            process.send_signal(kind)
            if kind == signal.SIGTSTP:
                time.sleep(0.002)
                process.send_signal(signal.SIGCONT)
            _, errors = process.communicate(timeout=30)
            details = (kind, delay, process.returncode, errors)
            if kind in QUITTING:
                # Killed by the signal itself if it arrived before a handler was installed; after the end it has no
                # effect.
                assert process.returncode in (128 + kind, -kind, 7), details
            else:
                assert process.returncode == 7, details
            assert errors == b"", details
    nobody_left(token)


def _usual_signals() -> None:
    for number in (*QUITTING, signal.SIGTSTP, signal.SIGWINCH):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("which", ["sanitized", "as built"])
def test_signals_on_a_terminal(sanitized: Path, which: str, tmp_path: Path) -> None:
    """As above; the terminal is restored after each signal, and while the VM is stopped."""
    launcher = sanitized if which == "sanitized" else NABLA_RUN
    token = f"token-{os.getpid()}-tty-{which.replace(' ', '-')}"
    names = ",".join(number.name for number in (*QUITTING, signal.SIGWINCH, signal.SIGTSTP))
    rounds = ["-m", "tests.integration.terminal_rounds", "13", "100", names, str(tmp_path / "results"), "--"]
    command = [*rounds, *machine(launcher, "sleep 0.02; exit 7", token)]
    shell = pexpect.spawn(sys.executable, command, cwd=str(ROOT), env=ENVIRONMENT, timeout=60)
    shell.expect(pexpect.EOF)
    shell.close()
    results = [json.loads(line) for line in (tmp_path / "results").read_text().splitlines()]
    assert shell.exitstatus == 0, shell.before
    assert len(results) == 100
    assert [result for result in results if result["wrong"]] == []
    for result in results:
        number = signal.Signals[result["signal"]]
        right = (128 + number, -number, 7) if number in QUITTING else (7,)
        assert result["code"] in right, result
    nobody_left(token)


def test_killed_launchers_leave_nothing() -> None:
    """SIGKILL at any moment."""
    chosen = random.Random(17)
    token = f"token-{os.getpid()}-kill"
    for _ in range(60):
        with subprocess.Popen(machine(NABLA_RUN, "sleep 1000", token), stdin=subprocess.DEVNULL) as process:
            time.sleep(0.015 * chosen.random())
            process.kill()
    nobody_left(token)
