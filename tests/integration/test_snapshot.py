# SPDX-License-Identifier: Apache-2.0
"""A VM saves itself to a file and continues; any number of VMs resume from the file, and can detect that."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nabla.core.artifacts import IMAGE_TOOLS
from nabla.core.paths import NABLA_RUN
from nabla.fs import ext3

from .saved import Saved, becomes, save
from .vm import Vm, status_of

LOAD = Path(__file__).with_name("snapshot_load.py").read_text()
ROUNDS = 1000
# Memory of reservations, some of it a family's, before and after.
RESERVED = """
import mmap, os
GB, MB = 1 << 30, 1 << 20
def reserve():
    return mmap.mmap(-1, 4 * GB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
m, places = reserve(), range(0, 4 * GB, 256 * MB)
for at in places:
    m[at : at + 8] = (at + 1).to_bytes(8, "little")
m[GB + MB : GB + 9 * MB] = b"x" * 8 * MB
wait, go = os.pipe()
pid = os.fork()
if not pid:
    m[2 * GB + MB] = 1
    os.read(wait, 1)
    good = m[2 * GB + MB] == 1 and m[3 * GB + MB] == 0 and m[GB + 9 * MB - 1] == ord("x")
    m[GB + MB : GB + 9 * MB] = b"y" * 8 * MB
    os._exit(not good)
m[2 * GB + MB] = 2
with open("/proc/nabla/snapshot", "w") as file:
    file.write("save")
m[3 * GB + MB] = 3
os.write(go, b".")
assert os.waitpid(pid, 0)[1] == 0
assert all(m[at : at + 8] == (at + 1).to_bytes(8, "little") for at in places)
assert m[GB + MB : GB + 9 * MB] == b"x" * 8 * MB
assert (m[2 * GB + MB], m[3 * GB + MB]) == (2, 3)
other = reserve()
for at in places:
    assert other[at : at + 4096] == bytes(4096)
    other[at] = 1
print("good")
"""
CLOCKS = "import time; print(time.monotonic_ns(), time.time_ns(), flush=True)"


def states(text: str) -> dict[str, str]:
    """Parse the contents of /proc/nabla/snapshot."""
    return dict(line.split() for line in text.splitlines())


@pytest.fixture(scope="module")
def small(minimal: Vm, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The smallest VM, which prints its state."""
    file = tmp_path_factory.mktemp("small") / "s.snap"
    return becomes(minimal, file, "cat", "/proc/nabla/snapshot")


@pytest.fixture(scope="module")
def python(testing: Vm, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A shell of the test image; the words of a restored VM are its script."""
    return becomes(testing, tmp_path_factory.mktemp("python") / "p.snap", "python3", "-c")


def test_both_go_on(minimal: Vm, tmp_path: Path) -> None:
    script = 'x=$$; echo before; nabla-snapshot; test $x = $$ && echo "after $x"; exit 7'
    file = tmp_path / "s.snap"
    result = minimal.but(options=("--snapshot", str(file))).shell(script)
    assert result.status == 7, result.describe()
    before, name, after = result.lines()
    assert (before, name) == ("before", "original")
    for _ in range(2):
        again = Saved(minimal, file).run()
        assert (again.status, again.lines(), again.errors) == (7, ["restored", after], "")


def test_ends_when_it_is_saved(minimal: Vm, tmp_path: Path) -> None:
    saved, result = save(minimal, tmp_path / "s.snap", "/bin/sh", "-c", "echo 1; nabla-snapshot; echo 2")
    assert result.output == "1\n"
    assert saved.run().output == "restored\n2\n"


def test_only_the_owner_reads_it(small: Saved) -> None:
    assert small.file.stat().st_mode & 0o777 == 0o600
    assert small.file.stat().st_blocks * 512 < 8 << 20, "free memory takes no space"


def test_state(small: Saved, minimal: Vm, tmp_path: Path) -> None:
    assert states(minimal.check("cat /proc/nabla/snapshot"))["state"] == "original"
    first, second = (states(small.run().output) for _ in range(2))
    assert first["state"] == second["state"] == "restored"
    assert first["generation"] == second["generation"] == "1"
    assert first["instance"] != second["instance"]


def test_a_restored_vm_can_be_saved(minimal: Vm, tmp_path: Path) -> None:
    one, two = tmp_path / "1.snap", tmp_path / "2.snap"
    script = "nabla-snapshot; echo -; cat /proc/nabla/snapshot; echo s >/proc/nabla/snapshot; cat /proc/nabla/snapshot"
    saved, _ = save(minimal, one, "/bin/sh", "-c", script)
    middle = saved.restored().but(options=("--restore", str(one), "--snapshot", str(two))).run()
    assert [line for line in middle.lines() if line.startswith("generation")] == ["generation 1", "generation 1"]
    last = Saved(minimal, two).run()
    assert [line for line in last.lines() if line.startswith("generation")] == ["generation 2"]


def test_it_can_be_saved_once(minimal: Vm, tmp_path: Path) -> None:
    script = "nabla-snapshot >/dev/null; nabla-snapshot"
    result = minimal.but(options=("--snapshot", str(tmp_path / "s.snap"))).shell(script)
    assert result.status == 1
    assert "it can be saved once" in result.errors


def test_without_a_file(minimal: Vm) -> None:
    result = minimal.run("nabla-snapshot")
    assert (result.status, result.output) == (1, "")
    assert "start it with nabla-run --snapshot FILE" in result.errors


def test_arguments(testing: Vm, tmp_path: Path) -> None:
    saved = becomes(testing, tmp_path / "s.snap", "/bin/sh", "-c", 'pwd; echo "$A" "$#" "$2"', "name")
    vm = saved.restored().but(options=(*saved.restored().options, "--workdir", "/usr"))
    assert vm.run("one", "two words", "3", env={"A": "b=c"}).output == "/usr\nb=c 3 two words\n"
    assert saved.run().output == "/\n 0 \n"
    assert saved.run("x").output == "/\n 1 \n"


def test_any_command(minimal: Vm, tmp_path: Path) -> None:
    """A snapshot of the VM before its command starts each command."""
    saved = becomes(minimal, tmp_path / "s.snap")
    assert saved.run("echo", "a b", "c").output == "a b c\n"
    assert saved.run("/bin/sh", "-c", "exit 3").status == 3
    assert saved.run(stdin=b"echo in a shell\n").output == "in a shell\n"
    assert saved.run("nothing").status == 127


def test_status_of_the_command(minimal: Vm, tmp_path: Path) -> None:
    saved = becomes(minimal, tmp_path / "s.snap", "/bin/sh", "-c")
    assert [saved.run(f"exit {n}").status for n in (0, 1, 77)] == [0, 1, 77]
    assert becomes(minimal, tmp_path / "t.snap", "/nowhere").run().status == 127
    assert saved.run("cat", stdin=b"in").output == "in"


def test_random_numbers_differ(python: Saved) -> None:
    script = "import os, secrets, ssl; print(os.urandom(8).hex(), secrets.token_hex(8), ssl.RAND_bytes(8).hex())"
    seen = [number for _ in range(3) for number in python.run(script).output.split()]
    assert len(set(seen)) == 9


def test_clocks(testing: Vm, tmp_path: Path) -> None:
    script = f"{CLOCKS}; open('/proc/nabla/snapshot', 'w').write('save'); {CLOCKS}"
    saved, result = save(testing, tmp_path / "s.snap", "python3", "-c", script)
    before, _ = map(int, result.output.split())
    time.sleep(1.1)
    started = time.time_ns()
    after, day = map(int, saved.run().output.split())
    assert after >= before, "the monotonic clock never goes back"
    # The difference arises if the host preempts the VM between two readings of its clock.
    assert day >= started - 1_000_000_000, "the time of day is the host's"


def test_private_disks(testing: Vm, tmp_path: Path) -> None:
    """Changes are in the snapshot, the rest is read from the image, which nobody changes."""
    script = (
        "dd if=/dev/urandom of=/root/a bs=1M count=8 2>/tmp/l; sync; md5sum /root/a; echo 3 >/proc/sys/vm/drop_caches"
        "; nabla-snapshot >/dev/null; md5sum /root/a; md5sum /usr/lib/nabla-tests/files; echo more >>/root/a; sync"
    )
    before = testing.image.stat().st_mtime_ns
    saved, result = save(testing, tmp_path / "s.snap", "/bin/sh", "-c", script)
    (first,) = result.lines()
    runs = [saved.run().lines() for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0][0] == first
    assert runs[0][1] == testing.check("md5sum /usr/lib/nabla-tests/files").strip()
    assert testing.image.stat().st_mtime_ns == before


def test_writable_disk(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    disk = copy_of("minimal")
    vm = Vm(disk, memory="64M")
    saved, _ = save(vm, tmp_path / "s.snap", "/bin/sh", "-c", "echo 1 >/root/1; nabla-snapshot; echo 2 >/root/2")
    assert saved.run().output == "restored\n"
    assert vm.check("cat /root/1 /root/2") == "1\n2\n"
    ext3.check(disk, tools=IMAGE_TOOLS.path)
    late = saved.run()
    assert late.status == 125
    assert "has changed since" in late.errors


def test_read_only_root(minimal: Vm, tmp_path: Path) -> None:
    vm = minimal.but(ephemeral=False, read_only=True)
    saved = becomes(vm, tmp_path / "s.snap", "/bin/ls")
    assert "sbin" in saved.run("/").lines()


def test_protection_is_made_again(testing: Vm, tmp_path: Path) -> None:
    """PROT_NONE kills a program that touches it, before and after."""
    script = (
        "import ctypes, mmap, os\n"
        "m = mmap.mmap(-1, 8192); at = ctypes.addressof(ctypes.c_char.from_buffer(m)); m[:] = b'x' * 8192\n"
        "libc = ctypes.CDLL(None); assert not libc.mprotect(ctypes.c_void_p(at), 4096, 0)\n"
        "open('/proc/nabla/snapshot', 'w').write('save')\n"
        "pid = os.fork()\n"
        "if not pid: ctypes.string_at(at, 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "assert not libc.mprotect(ctypes.c_void_p(at), 4096, 3); print(m[:1], m[4096:4097])\n"
    )
    saved, _ = save(testing, tmp_path / "s.snap", "python3", "-c", script)
    result = saved.run()
    assert result.output == f"{-signal.SIGSEGV}\nb'x' b'x'\n", result.describe()


def test_reservations(testing: Vm, tmp_path: Path) -> None:
    saved, _ = save(testing.but(memory="128M"), tmp_path / "s.snap", "python3", "-c", RESERVED)
    assert saved.file.stat().st_blocks * 512 < 96 << 20, "addresses take no space"
    for _ in range(2):
        result = saved.run()
        assert (result.status, result.output) == (0, "good\n"), result.describe()


def test_memory_that_was_never_needed(testing: Vm, tmp_path: Path) -> None:
    """It takes no space in the file, and is added in the restored VM."""
    saved, _ = save(testing.but(memory="4G"), tmp_path / "s.snap", "nabla-snapshot")
    assert saved.file.stat().st_blocks * 512 < 64 << 20
    assert saved.run().output == "restored\n"
    saved = becomes(testing.but(memory="2G"), tmp_path / "t.snap", "/usr/lib/nabla-tests/large", "map")
    for megabytes in ("10", "1700"):
        result = saved.run(megabytes)
        assert result.status == 0, result.describe()


def test_without_a_window(minimal: Vm, tmp_path: Path) -> None:
    vm = minimal.but(options=("--append", "window=0"))
    save(vm, tmp_path / "s.snap", "nabla-snapshot")
    assert Saved(minimal, tmp_path / "s.snap").run().output == "restored\n"


def test_under_load(testing: Vm, tmp_path: Path) -> None:
    """Threads, timers, writes to a disk, and a family that shares addresses: all continue, each time."""
    vm = testing.but(options=("--snapshot", str(tmp_path / "s.snap")))
    first = vm.run("python3", "-W", "ignore", "-c", LOAD)
    assert first.output.startswith("original good"), first.describe()
    seen = []
    for _ in range(8):
        result = Saved(testing, tmp_path / "s.snap").run()
        assert result.status == 0, result.describe()
        assert result.output.startswith("restored good"), result.describe()
        seen.append(result.output.split()[2])
    assert len(set(seen)) == len(seen)


FULL = """
import hashlib, os
def available():
    return next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
pieces = []
while available() > 6000:
    pieces.append(os.urandom(300_000))
def digest():
    sum = hashlib.sha256()
    for piece in pieces:
        sum.update(piece)
    return sum.hexdigest()
before = digest()
open("/proc/nabla/snapshot", "w").write("save")
assert digest() == before, "memory is damaged"
pieces[0] = bytes(300_000)
assert digest() != before
assert available() < 20000
print(len(pieces))
"""


def test_memory_nearly_full(testing: Vm, tmp_path: Path) -> None:
    """Neither saving nor restoring a VM needs memory of the guest."""
    vm = testing.but(memory="96M")
    saved, first = save(vm, tmp_path / "s.snap", "python3", "-c", FULL, then_exit=False)
    assert int(first.output.split()[0]) > 20, first.describe()
    for _ in range(4):
        result = saved.run()
        assert (result.status, result.output, result.errors) == (0, first.output, ""), result.describe()


def test_file_system_under_load(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    """Saved while a program writes to the image; the restored VM continues and leaves a sound file system."""
    disk = copy_of("minimal")
    script = (
        "(until test -e /tmp/stop; do dd if=/dev/zero of=/root/a bs=64k count=9 2>/tmp/log; cp /root/a /root/b; done) &"
        "sleep 0.2; nabla-snapshot; touch /tmp/stop; wait; cmp /root/a /root/b && echo same"
    )
    saved, _ = save(Vm(disk, memory="64M"), tmp_path / "s.snap", "/bin/sh", "-c", script)
    assert saved.run().output == "restored\nsame\n"
    ext3.check(disk, tools=IMAGE_TOOLS.path)


@pytest.mark.slow
def test_many_in_a_row(small: Saved) -> None:
    words = small.restored().argv()
    seen = set()
    for _ in range(ROUNDS):
        result = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        state = states(result.stdout)
        assert (state["state"], state["generation"]) == ("restored", "1")
        seen.add(state["instance"])
    assert len(seen) == ROUNDS


def test_many_at_once(minimal: Vm, tmp_path: Path) -> None:
    saved = becomes(minimal, tmp_path / "s.snap", "/bin/sh", "-c", "read x; echo $x")
    clones = [
        subprocess.Popen(saved.restored().argv(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(40)
    ]
    answers = [clone.communicate(f"{n}\n", timeout=120)[0] for n, clone in enumerate(clones)]
    assert answers == [f"{n}\n" for n in range(40)]


def test_terminal(minimal: Vm, tmp_path: Path) -> None:
    file = tmp_path / "s.snap"
    with minimal.but(options=("--snapshot", str(file))).interactive() as console:
        console.expect_exact("# ")
        console.sendline("nabla-snapshot; stty size")
        console.expect_exact("original")
        console.expect_exact("24 80")
        console.sendline("exit")
        assert status_of(console) == 0
    with Saved(minimal, file).restored().interactive(size=(30, 100)) as console:
        console.expect_exact("restored")
        console.expect_exact("# ")
        console.sendline("stty size")
        console.expect_exact("30 100")
        console.sendline("exit 3")
        assert status_of(console) == 3


def test_jail_and_limits(small: Saved, minimal: Vm, tmp_path: Path) -> None:
    options = small.restored().options
    result = small.vm.but(options=(*options, "--jail")).run()
    assert result.status == 0 and "restored" in result.output, result.describe()
    saved = becomes(minimal, tmp_path / "s.snap", "/bin/sh", "-c", "sleep 1000")
    late = saved.restored().but(options=(*saved.restored().options, "--timeout", "0.5")).run()
    assert late.status == 124, late.describe()


def test_report(small: Saved) -> None:
    vm = small.restored().but(options=(*small.restored().options, "--json"))
    result = vm.run()
    assert '"reason":"exit"' in result.errors
    assert '"host_calls":{' in result.errors


def test_power_button(minimal: Vm, tmp_path: Path) -> None:
    saved = becomes(minimal, tmp_path / "s.snap", "/bin/sh", "-c", "echo up; sleep 1000")
    with subprocess.Popen(saved.restored().argv(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM


def test_dry_run(small: Saved, tmp_path: Path) -> None:
    options = ["--ephemeral", "--memory", small.vm.memory, "--dry-run"]
    for more in (["--restore", str(small.file)], ["--snapshot", str(tmp_path / "new.snap")]):
        result = subprocess.run(
            [NABLA_RUN, *options, *more, small.vm.image], capture_output=True, text=True, check=True
        )
        assert f"{more[0][2:]}=fd:1" in result.stdout
    assert not (tmp_path / "new.snap").exists()
