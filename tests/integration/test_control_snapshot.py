# SPDX-License-Identifier: Apache-2.0
"""VMs with a name that are saved and restored: the channel is a new one, and nothing of the old one is left in it."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from verify import syscall_table

from . import confined, saved
from .confined import PROGRAM
from .instant import Cache
from .instant import cache as cache
from .launcher import refused
from .named import CONTROL_FD, ERROR, Named, named, start, until
from .saved import Saved, at, becomes, check_confined
from .vm import Vm

KILLED = 128 + signal.SIGSYS

# a shell reports the status of nabla-snapshot on a standard error that nobody reads
HUP = 'exec 2>/dev/null; trap "echo hup >/tmp/hup; exit" HUP; nabla-snapshot; while :; do sleep 0.01; done'


@contextlib.contextmanager
def original(vm: Vm, file: Path, *command: str) -> Iterator[Named]:
    """Start a VM with a name that can save itself."""
    words = vm.but(options=(*vm.options, "--snapshot", str(file))).argv(*command)
    with named(words, file.parent, "original") as running:
        yield running


@contextlib.contextmanager
def restored(vm: Saved, name: str = "restored") -> Iterator[Named]:
    """Start a VM with a name from a snapshot."""
    with named(vm.restored().argv(), vm.file.parent, name) as running:
        yield running


@pytest.fixture(scope="module")
def warm(minimal: Vm, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A VM with a file, saved by a session."""
    file = tmp_path_factory.mktemp("warm") / "s.snap"
    with original(minimal, file, "sleep", "100000") as vm:
        vm.check("echo one >/tmp/file")
        assert vm.check("nabla-snapshot; cat /tmp/file") == "original\none\n"
        vm.check("echo two >/tmp/file")
    return Saved(minimal, file)


def test_sessions_in_restored_vms(warm: Saved) -> None:
    """Each has files of its own, status, output, input, and the settings of the one that was saved."""
    with restored(warm, "a") as a, restored(warm, "b") as b:
        for vm in (a, b):
            assert vm.check("cat /tmp/file; head -n 2 /proc/nabla/snapshot") == "one\nstate restored\ngeneration 1\n"
            assert vm.run("sh", "-c", "echo err >&2; exit 3").returncode == 3
            text = "0123456789abcde\n" * 40_000
            assert vm.run("cat", options=("-i",), input=text, stdin=None).stdout == text
        a.check("echo a >/tmp/file")
        assert b.check("cat /tmp/file") == "one\n"
        assert a.check("head -n 3 /proc/nabla/snapshot") != b.check("head -n 3 /proc/nabla/snapshot")
        assert b.nabla("stop", "b").returncode == 0


def test_without_a_name_and_with_one_again(minimal: Vm, tmp_path: Path) -> None:
    """The agent waits until a host connects to it."""
    # the VM's own command saves it as soon as that is possible, in each VM
    script = "while :; do nabla-snapshot 2>/dev/null && echo >>/tmp/saves; sleep 0.01; done"
    with original(minimal, tmp_path / "1.snap", "sh", "-c", script) as vm:
        until(lambda: vm.run("test", "-e", "/tmp/saves").returncode == 0)
    for options in (("--timeout", "0.5"), ("--snapshot", str(tmp_path / "2.snap"), "--snapshot-then-exit")):
        Saved(minimal.but(options=options), tmp_path / "1.snap").run()
    with restored(Saved(minimal, tmp_path / "2.snap")) as other:
        assert other.check("sed -n 2p /proc/nabla/snapshot") == "generation 2\n"


def test_what_was_on_the_way(minimal: Vm, tmp_path: Path) -> None:
    """Sessions of the saved VM continue. In a restored VM, their programs get SIGHUP."""
    with original(minimal, tmp_path / "s.snap", "sleep", "100000") as vm:
        busy = vm.started("sh", "-c", "cat | wc -c", options=("-i",))
        assert busy.stdin and busy.stdout
        pipe, sent, stop = busy.stdin, [0], threading.Event()

        def feed() -> None:
            while not stop.is_set():
                sent[0] += os.write(pipe.fileno(), bytes(50_000))

        feeder = threading.Thread(target=feed)
        feeder.start()
        until(lambda: sent[0] > 1 << 20)
        saver = vm.started("sh", "-c", HUP, options=("-i",))
        assert saver.stdout and saver.stdout.readline() == b"original\n"
        before = sent[0]
        until(lambda: sent[0] > before + (1 << 20))
        stop.set()
        feeder.join()
        pipe.close()
        assert int(busy.stdout.read()) == sent[0]
        assert vm.run("test", "-e", "/tmp/hup").returncode == 1
        with restored(Saved(minimal, tmp_path / "s.snap")) as other:
            until(lambda: other.run("test", "-e", "/tmp/hup").returncode == 0)
            until(lambda: other.run("pidof", "wc").returncode == 1)
            assert other.check("echo up") == "up\n"
        saver.kill()
        saver.wait(60)
        busy.wait(60)
        for each in (busy, saver):
            for stream in filter(None, (each.stdin, each.stdout, each.stderr)):
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def test_most_sessions_are_free_again(minimal: Vm, tmp_path: Path) -> None:
    """All sessions of a saved VM are in use; a restored one has all of them."""
    large = minimal.but(memory="128M")
    with original(large, tmp_path / "s.snap", "sleep", "100000") as vm:
        first = [vm.connect() for _ in range(31)]
        for peer in first:
            peer.send(start("sleep", "1000"))
            assert peer.receive()
        vm.check("nabla-snapshot")
        with restored(Saved(large, tmp_path / "s.snap")) as other:
            second = [other.connect() for _ in range(32)]
            for peer in second:
                peer.send(start("sleep", "1000"))
                answer = peer.receive()
                assert answer and answer[0] != ERROR, answer


def test_refused(warm: Saved, minimal: Vm, tmp_path: Path) -> None:
    plain = becomes(minimal, tmp_path / "plain.snap", "echo", "up")
    options = ("--ephemeral", "--name", "x", "--restore")
    message = "--name: the snapshot {} has no control channel (make the snapshot with --name)"
    refused(message.format(plain.file), *options, plain.file, minimal.image)
    flags = plain.file.read_bytes()[saved.FLAGS_AT : saved.FLAGS_AT + 4]
    assert not struct.unpack("<I", flags)[0] & 8
    assert plain.run().output == "up\n"


def test_first_start_of_an_image_with_a_name(minimal: Vm, cache: Cache, tmp_path: Path) -> None:
    """It makes the snapshot from which all others start, with and without a name; only the former have the device."""
    for name in ("first", "second"):
        with named(minimal.argv("sleep", "1000"), tmp_path, name) as running:
            assert running.check("ls /dev/host") == "control\nstderr\nstdin\nstdout\n"
            assert running.run("sh", "-c", "exec 3</dev/host/control").returncode != 0
            cache.only()
    with original(minimal, tmp_path / "s.snap", "sleep", "1000") as vm:
        script = "head -n 2 /proc/nabla/snapshot; nabla-snapshot; head -n 2 /proc/nabla/snapshot"
        assert vm.check(script) == "state restored\ngeneration 1\noriginal\nstate restored\ngeneration 1\n"
        cache.only()
        with restored(Saved(minimal, tmp_path / "s.snap")) as other:
            assert other.check("sed -n 2p /proc/nabla/snapshot") == "generation 2\n"
    result = minimal.but(options=("--verbose",)).run("ls", "/dev/host")
    assert "start: restored" in result.errors
    assert result.output == "stderr\nstdin\nstdout\n"


# --- forged snapshots -------------------------------------------------------------------------------------------------


@pytest.fixture
def anonymous(warm: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Saved:
    """The snapshot, to be started with a name."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    return Saved(warm.vm.but(options=("--name", "forged")), warm.file)


FORGERIES = {
    "the device": ("control", b"\xff" * 24),
    "what the device is about": ("control", struct.pack("<iiq", 14, 14, 0) + struct.pack("<Q", 14) * 6),
    "polled descriptors": ("poll_fds", struct.pack("<ihh", 14, 7, 7) * 16),
    "descriptors": ("poll_fd", struct.pack("<i", 14) * 16),
    "their interrupts": ("poll_irq", b"\xff" * 64),
    "permitted descriptors": ("um_fds", b"\xff" * 16),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_variables(name: str, anonymous: Saved, tmp_path: Path, strace: str) -> None:
    """The descriptor of the channel is permitted by what nabla-run gave, not by what the file says."""
    symbol, data = FORGERIES[name]
    check_confined(anonymous.forge(tmp_path / "s", (at(symbol), data)), tmp_path, strace)


def test_forged_flag(minimal: Vm, anonymous: Saved, tmp_path: Path, strace: str) -> None:
    """A VM without a channel that claims to have one goes on without; one that hides it cannot have a name."""
    plain = becomes(minimal, tmp_path / "plain.snap", "echo", "up")
    (flags,) = struct.unpack("<I", plain.file.read_bytes()[saved.FLAGS_AT : saved.FLAGS_AT + 4])
    claims = plain.forge(tmp_path / "claims", (saved.FLAGS_AT, struct.pack("<I", flags | 8)))
    claims = Saved(anonymous.vm, claims.file)
    assert claims.run().output == "up\n"
    check_confined(claims, tmp_path, strace)
    hides = anonymous.forge(tmp_path / "hides", (saved.FLAGS_AT, struct.pack("<I", flags)))
    refused("has no control channel", "--name", "x", "--ephemeral", "--restore", hides.file, minimal.image)


def test_escapes(testing: Vm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a name, the channel is a stream and nothing else; without one, the descriptor is none."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    named_vm = testing.but(memory="64M", options=("--name", "x"))
    escape = becomes(named_vm, tmp_path / "s.snap", PROGRAM)
    symbol, numbers = str(confined.gadget()), syscall_table.numbers()
    for call in ("pwritev2", "preadv2"):
        words = [symbol, str(numbers[call]), str(CONTROL_FD), "zeros:16", "1", "0", "0", "0"]
        assert escape.run(*words).status == KILLED
    for call in ("fdatasync", "close", "sendmsg", "recvmsg", "dup"):
        assert escape.run(symbol, str(numbers[call]), str(CONTROL_FD)).status == KILLED, call
    nameless = Saved(testing.but(memory="64M"), escape.file)
    words = [symbol, str(numbers["pwritev2"]), str(CONTROL_FD), "zeros:16", "1", "-1", "-1", "0"]
    assert nameless.run(*words).status == KILLED
