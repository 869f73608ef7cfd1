# SPDX-License-Identifier: Apache-2.0
"""Host directories in a VM: `--mount`, and a directory as the root. See also test_directories_hostile.py."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from .launcher import NOBODY, Ordinary
from .vm import Vm

# More than the file server has descriptors for.
MANY = 6000


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A directory that the VM's user owns."""
    folder = tmp_path / "share"
    folder.mkdir()
    give(folder)
    return folder


def give(*paths: Path) -> None:
    """Make the VM's user the owner."""
    for path in paths:
        if os.geteuid() == 0:
            os.lchown(path, NOBODY, NOBODY)


def write(path: Path, text: str) -> Path:
    """Write a file that the VM's user owns."""
    path.write_text(text)
    give(path)
    return path


def mounted(vm: Vm, *shares: str) -> Vm:
    """Return the same VM with --mount options."""
    return vm.but(options=tuple(word for each in shares for word in ("--mount", each)))


def test_files_in_both_directions(minimal: Vm, share: Path) -> None:
    write(share / "in", "from the host\n")
    vm = mounted(minimal, f"{share}:/work")
    assert (
        vm.check("cat /work/in; echo from the guest >/work/out; mount | grep ' /work '").splitlines()[0]
        == "from the host"
    )
    assert (share / "out").read_text() == "from the guest\n"
    owner = (share / "out").stat()
    assert owner.st_uid == (NOBODY if os.geteuid() == 0 else os.geteuid())
    assert stat.S_IMODE(owner.st_mode) == 0o644


def test_what_a_file_system_does(minimal: Vm, share: Path) -> None:
    """Names, links, modes, times, sizes, directories, and their appearance on the host."""
    script = """
    set -e
    cd /work
    echo one >a; mv a b; ln b c; ln -s c l; cat l; stat -c %h b
    mkdir -p d/e/f; mv d x; echo deep >x/e/f/g; cat x/e/f/g; rmdir x/e 2>/dev/null || echo full
    chmod 4751 b; stat -c %a b; chown 1:1 b; stat -c %u:%g b
    touch -d '2001-02-03 04:05:06' b; stat -c %Y b
    echo more >>b; wc -c <b; : >b; wc -c <b; truncate -s 5000 b; wc -c <b
    mkfifo p; (echo through >p &); cat p
    readlink l; ln -s /etc/passwd abs; grep -c root abs
    cd x/e/f; pwd; cd ..; rm -r f; ls | wc -l
    """
    output = mounted(minimal, f"{share}:/work").check(script).split()
    numbers = ["one", "2", "deep", "full", "751", "0:0", "981173106", "9", "0", "5000"]
    assert output == [*numbers, "through", "c", "1", "/work/x/e/f", "0"], output
    assert os.readlink(share / "abs") == "/etc/passwd"
    assert (share / "b").stat().st_size == 5000 and (share / "b").stat().st_nlink == 2
    assert stat.S_ISFIFO((share / "p").stat().st_mode)
    assert sorted(os.listdir(share)) == ["abs", "b", "c", "l", "p", "x"]


def test_an_open_file_outlives_its_name(testing: Vm, share: Path) -> None:
    """Removed by the guest, by the host, replaced by the host."""
    write(share / "replaced", "old")
    write(share / "removed", "host")
    script = """
import os, sys
os.chdir("/work")
f = open("own", "w+"); f.write("kept"); f.flush(); os.unlink("own")
os.ftruncate(f.fileno(), 3); f.seek(0)
print(f.read(), os.fstat(f.fileno()).st_size, os.fstat(f.fileno()).st_nlink)
old, gone = open("replaced"), open("removed")
print("ready", flush=True); sys.stdin.readline()
print(old.read(), gone.read(), open("replaced").read(), os.path.exists("removed"))
print(os.fstat(old.fileno()).st_size, os.fstat(gone.fileno()).st_size, os.stat("replaced").st_size)
"""
    words = mounted(testing, f"{share}:/work").argv("python3", "-c", script)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "kep 3 0\n"
        assert process.stdout.readline() == "ready\n"
        write(share / "new", "newer").rename(share / "replaced")
        (share / "removed").unlink()
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.read() == "old host newer False\n3 4 5\n"
        assert process.wait(60) == 0


def test_changes_of_the_host_are_seen(minimal: Vm, share: Path) -> None:
    """Content, size, new and removed names, replaced files and directories; with `:cache` perhaps not."""
    write(share / "file", "1")
    script = "cd /work; cat file; mkdir -p d; for i in 1 2 3 4; do echo; read x; cat file; ls; done; cat d/in"
    words = mounted(minimal, f"{share}:/work").argv("/bin/sh", "-c", script)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "1\n"

        def step() -> None:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()

        write(share / "file", "longer than before\n")
        step()
        assert [process.stdout.readline().strip() for _ in range(4)] == ["longer than before", "d", "file", ""]
        write(share / "new", "another\n").rename(share / "file")
        write(share / "more", "")
        step()
        assert [process.stdout.readline().strip() for _ in range(5)] == ["another", "d", "file", "more", ""]
        (share / "more").unlink()
        step()
        assert [process.stdout.readline().strip() for _ in range(4)] == ["another", "d", "file", ""]
        (share / "d").rename(share / "old")
        (share / "d").mkdir()
        give(share / "d", write(share / "d" / "in", "in the new one\n"))
        step()
        assert process.stdout.read().split("\n")[-2] == "in the new one"
        assert process.wait(60) == 0


def test_read_only(minimal: Vm, share: Path) -> None:
    write(share / "file", "same")
    before = (share / "file").stat().st_mtime_ns
    script = "cd /work; echo x >new; echo x >>file; rm file; mkdir d; chmod 777 file; ln file y; mv file z; cat file"
    result = mounted(minimal, f"{share}:/work:ro").shell(script)
    assert result.output == "same", result.describe()
    assert result.errors.count("Read-only file system") >= 6, result.describe()
    assert os.listdir(share) == ["file"] and (share / "file").stat().st_mtime_ns == before
    remounted = mounted(minimal, f"{share}:/work:ro").shell("mount -o remount,rw /work; echo x >/work/new; echo $?")
    assert remounted.lines()[-1] == "1", remounted.describe()
    assert os.listdir(share) == ["file"]


def test_a_file_of_somebody_else(minimal: Vm, share: Path) -> None:
    """A user with write permission may also truncate the file, but do no more."""
    other = share / "other"
    other.write_text("content")
    other.chmod(0o666)
    script = (
        "cd /work; echo new >other && cat other; chmod 600 other || echo refused; touch -d @1 other || echo refused"
    )
    assert mounted(minimal, f"{share}:/work").shell(script).lines()[: 1 + 2 * (os.geteuid() == 0)] == (
        ["new", "refused", "refused"] if os.geteuid() == 0 else ["new"]
    )


def test_several_directories(minimal: Vm, tmp_path: Path) -> None:
    """Seven, one below another, in directories that the image lacks; two VMs share one."""
    shares = []
    for number in range(7):
        folder = tmp_path / f"s{number}"
        folder.mkdir()
        write(folder / "name", f"{number}\n")
        give(folder)
        shares.append(f"{folder}:/mnt/{'a/' * number}m:ro")
    assert mounted(minimal, *shares).check("cat /mnt/m/name /mnt/a/m/name /mnt/a/a/a/a/a/a/m/name").split() == [
        "0",
        "1",
        "6",
    ]


def test_more_files_than_descriptors(minimal: Vm, share: Path) -> None:
    """Written and removed by the guest; the tree is deep and broad."""
    script = f"""
    set -e
    cd /work
    i=0; while [ $i -lt {MANY // 20} ]; do mkdir -p d$((i % 7))/e$i; i=$((i+1)); done
    for d in d*/e*; do for n in 0 1 2 3 4 5 6 7 8 9 a b c d e f g h i j; do echo $d >$d/$n; done; done
    find . -type f | wc -l
    cat d*/e*/j | sort -u | wc -l
    rm -r d1; find . -type f | wc -l
    p=deep; i=0; while [ $i -lt 200 ]; do mkdir $p; cd $p; i=$((i+1)); done; echo x >bottom; cat bottom
    cd /work; rm -r deep
    """
    for option in ("", ":cache"):
        folder = share / f"f{option.strip(':')}"
        folder.mkdir()
        give(folder)
        vm = minimal.but(memory="128M", options=("--pin", "--mount", f"{folder}:/work{option}"))
        output = vm.check(script).split()
        assert output == [str(MANY), str(MANY // 20), str(sum(i % 7 != 1 for i in range(MANY // 20)) * 20), "x"]
        assert sum(len(files) for _, _, files in os.walk(folder)) == int(output[2])


def test_mappings(testing: Vm, share: Path) -> None:
    """Private mappings are copies; shared ones are refused, as the documentation says."""
    write(share / "file", "x" * 10000)
    script = """
import mmap
f = open("/work/file", "r+b")
m = mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE)
m[0:3] = b"own"; print(m[0:5], f.read(3), len(m))
try:
    mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED)
    print("shared")
except OSError as e:
    print(e.errno)
"""
    output = mounted(testing, f"{share}:/work").run("python3", "-c", script)
    assert output.output == "b'ownxx' b'xxx' 10000\n19\n", output.describe()
    assert (share / "file").read_text() == "x" * 10000


def test_programs_run_from_a_share(minimal: Vm, testing: Vm, share: Path, tmp_path: Path) -> None:
    """A script, and busybox itself with its library."""
    write(share / "script", "#!/bin/sh\necho script $1\n").chmod(0o755)
    vm = mounted(minimal, f"{share}:/work")
    assert (
        vm.check("/work/script one; cp /bin/busybox /work/busybox; /work/busybox echo copied") == "script one\ncopied\n"
    )
    assert vm.check("/work/busybox seq 3 | /work/busybox tail -n 1") == "3\n"


def test_locks(testing: Vm, share: Path) -> None:
    """A lock keeps others out, and a waiting process gets it when it is free; both kinds, in several processes."""
    script = """
import fcntl, os, sys
os.chdir("/work")
for take, drop in ((lambda f, n: fcntl.flock(f, n), lambda f: fcntl.flock(f, fcntl.LOCK_UN)),
                   (lambda f, n: fcntl.lockf(f, n), lambda f: fcntl.lockf(f, fcntl.LOCK_UN))):
    f = open("lock", "w")
    take(f, fcntl.LOCK_EX)
    r, w = os.pipe()
    back, forth = os.pipe()
    if not os.fork():
        g = open("lock", "w")
        try:
            take(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(w, b"free")
        except OSError as e:
            os.write(w, b"held")
        take(g, fcntl.LOCK_EX)
        os.write(w, b"mine")
        os._exit(0)
    print(os.read(r, 4))
    os.set_blocking(r, False)
    try:
        print(os.read(r, 4))
    except BlockingIOError:
        print("waits")
    os.set_blocking(r, True)
    drop(f)
    print(os.read(r, 4))
    os.wait()
"""
    result = mounted(testing, f"{share}:/work").run("python3", "-c", script)
    assert result.output == "b'held'\nwaits\nb'mine'\n" * 2, result.describe()


def test_large_files(minimal: Vm, share: Path) -> None:
    """100 MB in both directions, with and without the cache, are the same bytes."""
    for option in ("", ":cache"):
        vm = mounted(minimal, f"{share}:/work{option}")
        script = "dd if=/dev/urandom of=/work/big bs=1M count=100 2>/dev/null; md5sum </work/big"
        seen = vm.check(script).split()[0]
        assert subprocess.check_output(["md5sum", share / "big"], text=True).split()[0] == seen
        assert vm.check("md5sum </work/big").split()[0] == seen


def test_many_processes(minimal: Vm, share: Path) -> None:
    """Eight write at once; their requests and answers do not mix."""
    script = """
    cd /work
    for p in 1 2 3 4 5 6 7 8; do (i=0; while [ $i -lt 50 ]; do echo $p$i >f$p.$i; i=$((i+1)); done) & done; wait
    for p in 1 2 3 4 5 6 7 8; do
        i=0; while [ $i -lt 50 ]; do [ $(cat f$p.$i) = $p$i ] || echo bad; i=$((i+1)); done
    done
    ls | wc -l
    """
    assert mounted(minimal, f"{share}:/work").check(script) == "400\n"


def test_host_and_guest_at_once(minimal: Vm, share: Path) -> None:
    """The host renames and removes files that the guest uses: errors at most, and the VM ends normally."""
    stop = threading.Event()
    rounds: list[int] = []
    failures: list[Exception] = []

    def disturb() -> None:
        try:
            while not stop.is_set():
                disturb_once()
                rounds.append(1)
        except OSError as error:
            failures.append(error)

    def disturb_once() -> None:
        for number in range(20):
            (share / f"h{number}").mkdir(exist_ok=True)
            (share / f"h{number}" / "f").write_text("x")
        for number in range(20):
            (share / f"h{number}").rename(share / f"g{number}")
            (share / f"g{number}" / "f").unlink()
            (share / f"g{number}").rmdir()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        look = "find . >/dev/null 2>&1; cat */f >/dev/null 2>&1"
        script = f"cd /work; i=0; while [ $i -lt 30 ]; do {look}; i=$((i+1)); done; echo end"
        result = mounted(minimal, f"{share}:/work").shell(script)
    finally:
        stop.set()
        thread.join()
    assert result.output == "end\n" and result.status == 0, result.describe()
    assert rounds and not failures, failures


def test_what_a_cache_holds_is_written_at_the_end(minimal: Vm, share: Path) -> None:
    """Also beside a root that is read-only."""
    vm = minimal.but(ephemeral=False, read_only=True, options=("--mount", f"{share}:/tmp/work:cache"))
    vm.check("echo x >/tmp/work/f")
    assert (share / "f").read_text() == "x\n"


@pytest.mark.parametrize("options", [(), ("--jail",)], ids=["plain", "jail"])
def test_an_ordinary_user(ordinary: Ordinary, options: tuple[str, ...]) -> None:
    folder = ordinary.folder / "share"
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, ordinary.uid, ordinary.uid)
    mount = ("--mount", f"{folder}:/work")
    result = ordinary.run(
        *options, "--ephemeral", *mount, ordinary.folder / "disk.ext3", "--", "sh", "-c", "echo hi >/work/f"
    )
    assert result.returncode == 0, result
    assert (folder / "f").stat().st_uid == ordinary.uid
    (folder / "f").unlink()
