# SPDX-License-Identifier: Apache-2.0
"""Changes by the host in a shared directory between two calls of a guest: without `:cache`, the second call sees them.

The guest's program is an interpreter of Python: each line is a step, and the host changes something between steps.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .launcher import NOBODY
from .vm import Vm

INTERPRETER = """
import ctypes, os, stat, struct, sys, threading
os.chdir("/work")
kept, results = [], []

def attempt(code):
    try:
        results.append(eval(code))
    except OSError as error:
        results.append(type(error).__name__)

def start(code):
    kept.append([threading.Thread(target=attempt, args=(code,)) for _ in range(2)])
    for thread in kept[-1]:
        thread.start()

def waiting():
    tasks = (open(f"/proc/self/task/{task}/stat").read() for task in os.listdir("/proc/self/task"))
    return sum(task.rpartition(") ")[2][0] == "D" for task in tasks)

def finish():
    for thread in kept.pop():
        thread.join()
    return results

def keep_capabilities(mask):
    c = ctypes.CDLL(None, use_errno=True)
    assert c.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
    os.setresuid(1000, 1000, 1000)
    header, data = struct.pack("II", 0x20080522, 0), struct.pack("6I", mask, mask, 0, 0, 0, 0)
    assert c.capset(header, data) == 0

for line in sys.stdin:
    try:
        print(repr(eval(line)), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


def write(path: Path, content: str, mode: int = 0o644) -> Path:
    """Write a file of the VM's user, and its directories."""
    new = [each for each in path.parents if not each.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    if os.geteuid() == 0:
        for each in (path, *new):
            os.lchown(each, NOBODY, NOBODY)
    return path


class Guest:
    """A program in a VM that evaluates the test's expressions."""

    def __init__(self, process: subprocess.Popen[str], share: Path) -> None:
        self.process, self.share = process, share

    def __call__(self, expression: str) -> object:
        """Return the value, or the name of an exception."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        return answer if answer.endswith("Error") else ast.literal_eval(answer)

    def do(self, *expressions: str) -> None:
        """Evaluate them for their effect."""
        for expression in expressions:
            assert self(f"({expression}) and None or None") is None, expression

    def server(self) -> int:
        """Return the number of the file server's process."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        (server,) = [child for child in children if Path(f"/proc/{child}/comm").read_text() == "nabla-run\n"]
        return int(server)

    def descriptors(self) -> int:
        """Return the number of descriptors of the file server."""
        return len(os.listdir(f"/proc/{self.server()}/fd"))


@pytest.fixture
def guest(testing: Vm, tmp_path: Path) -> Iterator[Guest]:
    """A VM with an empty share at /work."""
    share = tmp_path / "share"
    share.mkdir()
    if os.geteuid() == 0:
        os.chown(share, NOBODY, NOBODY)
    vm = testing.but(options=("--mount", f"{share}:/work"))
    words = vm.argv("python3", "-c", INTERPRETER)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Guest(process, share)
        assert process.stdin
        process.stdin.close()
        assert process.wait(60) == 0


def test_attributes_are_used_in_one_call(guest: Guest) -> None:
    """Calls that look up a name, and do not examine it, leave nothing behind for the next one."""
    file = write(guest.share / "d" / "file", "1")
    for size, call in enumerate(('os.open("d/file", os.O_PATH)', 'os.open("d/file", 0)', 'os.open("d/file", 2)'), 2):
        descriptor = guest(call)
        file.write_text("x" * size)
        assert guest(f"os.fstat({descriptor}).st_size") == size, call
    for links, call in enumerate(('os.chdir("/work/d")', 'os.chdir("/work") or os.chdir("d")', 'os.chdir("../d")'), 3):
        guest.do(call)
        (guest.share / "d" / f"new{links}").mkdir()
        assert guest('os.stat(".").st_nlink') == links, call


# The guest uses the directory: without that, no entry outlives a call.
USED = [
    'os.open("d", 0)',
    'os.open("d", os.O_PATH)',
    'os.chdir("d") or os.chdir("/work/d/..")',
    'kept.append(open("d/file"))',
]


def test_attributes(guest: Guest) -> None:
    """Of a name, of an open file, and of one that was only looked up."""
    file = write(guest.share / "file", "1")
    path_only, opened = guest('os.open("file", os.O_PATH)'), guest('os.open("file", 0)')
    for size in range(2, 6):
        file.write_text("x" * size)
        file.chmod(0o640 + size)
        for look in ('os.stat("file")', f"os.fstat({path_only})", f"os.fstat({opened})"):
            assert guest(f"({look}.st_size, {look}.st_mode & 0o777)") == (size, 0o640 + size), look
    assert guest('os.stat("file").st_blksize') == file.stat().st_blksize


@pytest.mark.parametrize("use", USED)
def test_a_directory_in_use_is_replaced(guest: Guest, use: str) -> None:
    """Each call on a name acts in the new one, however deep the name is."""
    for name in ("d", "next"):
        write(guest.share / name / "file", name)
        write(guest.share / name / "e" / "f" / "file", name * 2)
    guest.do(use)
    guest.do('(os.open("d/e", os.O_PATH), os.open("d/e/f", 0), os.stat("d/e/f/file"), os.stat("d/file"))')
    (guest.share / "d").rename(guest.share / "old")
    (guest.share / "next").rename(guest.share / "d")
    assert guest('os.mkdir("d/e/made")') is None
    assert guest('os.stat("d/file").st_size') == 4
    assert guest('os.stat("d/e/f/file").st_size') == 8
    assert guest('open("d/e/f/file").read()') == "nextnext"
    assert (
        guest('os.mknod("d/e/f/node"), os.symlink("x", "d/e/f/link"), os.link("d/file", "d/e/f/hard")') == (None,) * 3
    )
    assert (
        guest('os.rename("d/e/f/hard", "d/e/hard"), os.unlink("d/e/f/file"), os.chmod("d/file", 0o600)') == (None,) * 3
    )
    assert guest('open("d/e/f/new", "x").write("created")') == 7
    assert guest('sorted(os.listdir("d/e"))') == ["f", "hard", "made"]
    assert sorted(os.listdir(guest.share / "d" / "e" / "f")) == ["link", "new", "node"]
    assert sorted(os.listdir(guest.share / "old" / "e" / "f")) == ["file"]
    assert (guest.share / "d" / "file").stat().st_mode & 0o777 == 0o600


CALLS = {
    "stat": 'os.stat("d/e/file").st_size',
    "open": 'len(open("d/e/file").read())',
    "create": 'open("d/e/new", "x").write("1234")',
    "mkdir": 'os.mkdir("d/e/new") or 4',
    "mknod": 'os.mknod("d/e/new") or 4',
    "symlink": 'os.symlink("x", "d/e/new") or 4',
    "link": 'os.link("d/e/file", "d/e/new") or 4',
    "rename": 'os.rename("d/e/file", "d/e/new") or 4',
    "unlink": 'os.unlink("d/e/file") or 4',
    "rmdir": 'os.rmdir("d/e/empty") or 4',
    "truncate": 'os.truncate("d/e/file", 4) or 4',
    "utime": 'os.utime("d/e/file", (4, 4)) or 4',
    "chmod": 'os.chmod("d/e/file", 0o604) or 4',
    "chdir": 'os.chdir("d/e") or os.stat("file").st_size',
    "with a dot": 'os.stat("d/./e/./file").st_size',
    "with two dots": 'os.stat("d/../d/e/../e/file").st_size',
    "with a dot at the end": 'len(os.listdir("d/e/."))+2',
    "with two dots at the end": 'os.stat("d/e/..").st_nlink+1',
    "with a slash at the end": 'len(os.listdir("d/e/"))+2',
    "absolute": 'os.stat("/work/d/e/file").st_size',
    "through a link": 'os.stat("/tmp/link/file").st_size',
}


@pytest.mark.parametrize("call", CALLS)
def test_the_first_call_after_it(guest: Guest, call: str) -> None:
    """It succeeds, in the new directory."""
    for name, content in (("d", "1"), ("next", "1234")):
        write(guest.share / name / "e" / "file", content)
        (guest.share / name / "e" / "empty").mkdir()
    for path in (guest.share / "next").rglob("*"):
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    guest.do('(os.open("d", 0), os.open("d/e", 0), os.open("d/e/empty", 0), os.open("d/e/file", 0))')
    guest.do('(os.symlink("/work/d/e", "/tmp/link"), os.stat("d/e/file"), os.stat("d/e/empty"))')
    (guest.share / "d").rename(guest.share / "old")
    before = sorted(os.listdir(guest.share / "old" / "e")), (guest.share / "old" / "e" / "file").stat()
    (guest.share / "next").rename(guest.share / "d")
    assert guest(CALLS[call]) == 4
    after = sorted(os.listdir(guest.share / "old" / "e")), (guest.share / "old" / "e" / "file").stat()
    assert after == before


def test_a_directory_in_use_is_removed(guest: Guest) -> None:
    write(guest.share / "d" / "e" / "file", "1")
    guest.do('(os.open("d/e", 0), os.open("d", 0), os.stat("d/e/file"))')
    (guest.share / "d" / "e" / "file").unlink()
    (guest.share / "d" / "e").rmdir()
    for call in (
        'os.stat("d/e/file")',
        'open("d/e/new", "x")',
        'os.mkdir("d/e/new")',
        'os.stat("d/e/.")',
        'os.stat("d/e")',
    ):
        assert guest(call) == "FileNotFoundError", call
    assert guest('os.stat("d/e/..")') == "FileNotFoundError"
    assert guest('open("d/e", "x").write("1")') == 1
    assert guest('os.stat("d/e/file")') == "NotADirectoryError"


def test_a_directory_in_use_is_moved(guest: Guest) -> None:
    """A process in it stays in it, as on a disk, and its old name leads nowhere."""
    write(guest.share / "d" / "e" / "file", "1")
    guest.do('(os.stat("d/e/file"), os.chdir("d"), os.stat("e/file"), os.open("e", 0), os.stat("/work/d/e/file"))')
    guest.do('(os.open("/work/d/e", 0), os.stat("/work/d/e/file"))')
    (guest.share / "d").rename(guest.share / "moved")
    for _ in range(2):
        assert guest('os.stat("e/file").st_size') == 1
        assert guest('open("e/file").read()') == "1"
        assert guest('os.listdir("e")') == ["file"]
        assert guest('os.stat("/work/d/e/file")') == "FileNotFoundError"
        assert guest('os.stat("/work/moved/e/file").st_size') == 1
    assert guest('open("new", "x").write("12")') == 2
    assert guest('os.mkdir("e/new")') is None
    assert sorted(os.listdir(guest.share / "moved")) == ["e", "new"]


def test_modes_of_directories_on_the_way(guest: Guest) -> None:
    """An ordinary user of the guest, who needs them, sees changes of them."""
    write(guest.share / "d" / "e" / "file", "1")
    guest.do('(os.open("d", 0), os.open("d/e", 0), os.setresuid(1000, 1000, 1000))')
    for mode, expected in ((0o755, 1), (0o700, "PermissionError"), (0o711, 1), (0o700, "PermissionError")):
        (guest.share / "d").chmod(mode)
        assert guest('os.stat("d/e/file").st_size') == expected


def test_files_are_closed_on_the_host(guest: Guest) -> None:
    """Even if the guest makes no further request."""
    for number in range(200):
        write(guest.share / f"f{number}", "1")
    opened = guest('[os.open(f"f{n}", 0) for n in range(200)]')
    assert isinstance(opened, list)
    during = guest.descriptors()
    assert during >= 200
    guest.do(f"[os.close(n) for n in {opened}]")
    deadline = time.monotonic() + 60
    while guest.descriptors() > during - 200 + 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_program_that_the_guest_has_written(guest: Guest) -> None:
    """When the guest has closed it, the host can run it: nobody has it open for writing."""
    program = Path("/bin/true").read_bytes()
    write(guest.share / "copy", "").write_bytes(program)
    for number in range(20):
        name = f"p{number}"
        assert guest(f'open("{name}", "wb").write(open("copy", "rb").read())') == len(program)
        (guest.share / name).chmod(0o755)
        assert subprocess.run([guest.share / name], check=False).returncode == 0


# The operations of two tasks at the same time; their results, and the resulting contents of the new directory.
BOTH: dict[str, tuple[str, list[object], dict[str, str]]] = {
    "stat": ('os.stat("d/file").st_size', [4, 4], {"file": "next"}),
    "open": ('len(open("d/file").read())', [4, 4], {"file": "next"}),
    "append": ('open("d/file", "a").write("+")', [1, 1], {"file": "next++"}),
    "create": ('open("d/new", "a").write("+")', [1, 1], {"file": "next", "new": "++"}),
    "unlink": ('os.unlink("d/file")', ["FileNotFoundError", None], {}),
    "mkdir": ('os.mkdir("d/new")', ["FileExistsError", None], {"file": "next", "new": ""}),
    "rename": ('os.rename("d/file", "d/new")', ["FileNotFoundError", None], {"new": "next"}),
}


@pytest.mark.parametrize("call", BOTH)
def test_two_tasks_that_have_passed_a_directory(guest: Guest, call: str) -> None:
    """One waits for the other's request: when that fails, it must not send its own in the old directory."""
    code, expected, content = BOTH[call]
    for name in ("d", "next"):
        write(guest.share / name / "file", name)
    guest.do('kept.append(os.open("d", 0))', 'os.stat("d/file")', 'os.listdir("d")')
    server = guest.server()
    os.kill(server, signal.SIGSTOP)
    try:
        guest.do(f"start({code!r})")
        deadline = time.monotonic() + 60
        while guest("waiting()") != 2:
            assert time.monotonic() < deadline
        (guest.share / "d").rename(guest.share / "old")
        (guest.share / "next").rename(guest.share / "d")
    finally:
        os.kill(server, signal.SIGCONT)
    results = guest("finish()")
    assert isinstance(results, list) and sorted(results, key=str) == expected
    names = {path.name: "" if path.is_dir() else path.read_text() for path in (guest.share / "d").iterdir()}
    assert names == content
    assert [path.read_text() for path in (guest.share / "old").iterdir()] == ["d"]


def test_deep_names(guest: Guest) -> None:
    """Deeper than the server checks in one request, and from a directory that the host has moved."""
    deep = Path(*"d" * 80)
    write(guest.share / deep / "file", "1")
    path = str(deep)
    guest.do(f'kept.append(os.open("{path}", 0))', f'os.stat("{path}/file")')
    for _ in range(2):
        assert guest(f'os.stat("{path}/file").st_size') == 1
        assert guest(f'open("{path}/file").read()') == "1"
        assert guest('os.stat("file", dir_fd=kept[0]).st_size') == 1
        assert guest('os.read(os.open("file", 0, dir_fd=kept[0]), 9)') == b"1"
    assert guest(f'open("{path}/new", "x").write("12")') == 2
    guest.do(f'os.stat("{path}/new")')
    (guest.share / "d").rename(guest.share / "moved")
    for name in ("a", "b"):
        assert guest('os.read(os.open("file", 0, dir_fd=kept[0]), 9)') == b"1"
        assert guest(f'os.write(os.open("{name}", os.O_CREAT | os.O_WRONLY, dir_fd=kept[0]), b"1")') == 1
        assert guest(f'open("{path}/file")') == "FileNotFoundError"
    assert sorted(os.listdir(guest.share / "moved" / Path(*"d" * 79))) == ["a", "b", "file", "new"]


def test_modes_matter_to_a_user_with_one_capability(guest: Guest) -> None:
    """The right to search all directories does not include writing to them: the mode is requested."""
    write(guest.share / "d" / "e" / "file", "1")
    for path in (guest.share / "d", guest.share / "d" / "e"):
        path.chmod(0o777)
    guest.do('kept.append((os.open("d", 0), os.open("d/e", 0)))', f"keep_capabilities({1 << 2})")
    for number, (mode, expected) in enumerate(((0o777, 1), (0o755, "PermissionError"), (0o777, 1))):
        (guest.share / "d" / "e").chmod(mode)
        assert guest(f'open("d/e/new{number}", "x").write("1")') == expected
