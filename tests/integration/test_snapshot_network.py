# SPDX-License-Identifier: Apache-2.0
"""The network device of a restored VM: it is on a new wire, announces itself, and works; this test is the peer."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .launcher import refused
from .saved import Saved, becomes, save
from .test_network import GUEST, OUR_MAC, US
from .vm import Vm

SCRIPT = (
    "ip addr add 10.1.2.3/24 dev eth0; ip link set eth0 up; nabla-snapshot; cat /sys/class/net/eth0/carrier;"
    "arping -c 1 -w 20 -I eth0 10.1.2.4 >/dev/null && echo answered; ip link set eth0 mtu 1400 && echo changed"
)


@contextmanager
def wire() -> Iterator[tuple[socket.socket, int]]:
    """Yield our end of a wire, and the descriptor of the VM's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.settimeout(60)
        yield ours, theirs.fileno()


def net(vm: Vm, fd: int) -> Vm:
    return vm.but(options=(*vm.options, "--net", f"fd={fd}"))


@pytest.fixture(scope="module")
def connected(minimal: Vm, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A VM with an address."""
    file = tmp_path_factory.mktemp("net") / "s.snap"
    with wire() as (_, fd):
        words = net(minimal.but(options=("--snapshot", str(file), "--snapshot-then-exit")), fd)
        subprocess.run(words.argv("/bin/sh", "-c", SCRIPT), pass_fds=[fd], stdin=subprocess.DEVNULL, check=True)
    return Saved(minimal, file)


def arp(ours: socket.socket) -> tuple[bytes, bytes, bytes]:
    """Return the sender's hardware address, its address, and the requested address."""
    while True:
        frame = ours.recv(2000)
        if frame[12:14] == b"\x08\x06":
            return frame[22:28], frame[28:32], frame[38:42]


def test_new_wire(connected: Saved) -> None:
    with wire() as (ours, fd):
        words = net(connected.restored(), fd).argv()
        with subprocess.Popen(words, pass_fds=[fd], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            mac, sender, asked = arp(ours)
            assert (sender, asked) == (GUEST, GUEST), "it announces itself first"
            while asked != US:
                mac, sender, asked = arp(ours)
            head = b"\x08\x06\0\x01\x08\0\x06\x04\0\x02"
            ours.send(mac + OUR_MAC + head + OUR_MAC + US + mac + sender)
            output, _ = process.communicate(timeout=120)
    assert output == b"restored\n1\nanswered\nchanged\n"


def test_without_a_wire(connected: Saved) -> None:
    """The device stays, without a carrier."""
    assert connected.run().output == "restored\n0\nchanged\n"


def test_network_comes_too_late(minimal: Vm, tmp_path: Path) -> None:
    saved = becomes(minimal, tmp_path / "s.snap")
    with wire() as (_, fd):
        words: list[str | Path] = ["--ephemeral", "--restore", saved.file, "--net", f"fd={fd}", minimal.image]
        refused("has no network device", *words, pass_fds=[fd])
    save(minimal, tmp_path / "t.snap", "nabla-snapshot")
