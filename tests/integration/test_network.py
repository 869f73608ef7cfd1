# SPDX-License-Identifier: Apache-2.0
"""The network device on an open descriptor: this test is the peer on the wire, and exchanges Ethernet frames."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nabla.core.paths import VMLINUX

from .vm import Vm

GUEST_MAC = bytes.fromhex("02000000000a")
OUR_MAC = bytes.fromhex("02000000000b")
GUEST, US = socket.inet_aton("10.1.2.3"), socket.inet_aton("10.1.2.4")
SET_UP = "ip addr add 10.1.2.3/24 dev eth0; ip link set eth0 up; "


@contextmanager
def wired(
    image: Vm, kind: socket.SocketKind, script: str, mtu: int = 1500
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """Start a VM that runs a script, with one end of a socket pair as its eth0; yields it and the other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.settimeout(20)
    with ours, theirs, open(image.image, "rb") as disk:
        words = [str(VMLINUX), "mem=64M", f"ubd0=fd:{disk.fileno()},cow", "root=/dev/ubda", "rootfstype=ext4", "rw"]
        stream = ",stream" if kind == socket.SOCK_STREAM else ""
        words += [
            f"eth0=fd:{theirs.fileno()},{GUEST_MAC.hex(':')}{stream}",
            "init=/sbin/nabla-init",
            "loglevel=0",
            "--",
        ]
        words += ["arg=/bin/sh", "arg=-c", f"arg={SET_UP}ip link set eth0 mtu {mtu}; {script}", "tty=0"]
        with subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(disk.fileno(), theirs.fileno()),
        ) as machine:
            try:
                yield machine, ours
            finally:
                machine.kill()


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def receive(wire: socket.socket, kind: int) -> bytes:
    """Return the payload of the next frame of an EtherType that is addressed to this test or to all."""
    while True:
        frame = wire.recv(70000)
        if frame[12:14] == struct.pack("!H", kind):
            return frame[14:]


def framed(frame: bytes) -> bytes:
    """Return a frame in the stream's format."""
    return struct.pack("!I", len(frame)) + frame


def receive_framed(wire: socket.socket, kind: int) -> bytes:
    """Like `receive`, from a stream."""
    while True:
        (length,) = struct.unpack("!I", wire.recv(4, socket.MSG_WAITALL))
        frame = wire.recv(length, socket.MSG_WAITALL)
        assert len(frame) == length
        if frame[12:14] == struct.pack("!H", kind):
            return frame[14:]


def arp(operation: int, target: bytes) -> bytes:
    """Return an ARP frame (RFC 826) from this test."""
    head = target + OUR_MAC + b"\x08\x06"
    return head + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + OUR_MAC + US + target + GUEST


def ping(size: int) -> bytes:
    """Return an ICMP echo request with `size` bytes of data."""
    body = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + bytes(i & 0xFF for i in range(size))
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 1, 0) + US + GUEST
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return GUEST_MAC + OUR_MAC + b"\x08\x00" + head + body


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("load", ["", "while :; do :; done & "])
def test_answers(minimal: Vm, kind: socket.SocketKind, load: str) -> None:
    """ARP and pings of all sizes are answered, by an idle VM and by a busy one."""
    with wired(minimal, kind, load + "echo up; read done") as (machine, wire):
        assert machine.stdout is not None
        assert machine.stdin is not None
        assert machine.stdout.readline() == b"up\n"
        wire.send(arp(1, b"\xff" * 6))
        answer = receive(wire, 0x0806)
        assert answer[6:8] == b"\x00\x02"
        assert answer[8:14] == GUEST_MAC
        for size in (0, 56, 1472, *range(100, 1400, 130)):
            request = ping(size)
            wire.send(request)
            reply = receive(wire, 0x0800)
            assert reply[20] == 0
            assert reply[28:] == request[42:]
        machine.stdin.write(b"\n")
        machine.stdin.flush()
        assert machine.wait(timeout=20) == 0


def test_guest_speaks_first(minimal: Vm) -> None:
    """A datagram from the guest arrives from the configured hardware address."""
    with wired(minimal, socket.SOCK_DGRAM, "cat /sys/class/net/eth0/address; ping -c 1 10.1.2.4") as (machine, wire):
        assert machine.stdout is not None
        assert machine.stdout.readline().strip().decode() == GUEST_MAC.hex(":")
        assert receive(wire, 0x0806)[24:28] == US
        wire.send(arp(2, GUEST_MAC))
        request = receive(wire, 0x0800)
        assert request[12:20] == GUEST + US
        assert request[20] == 8


def test_wrong_descriptor(minimal: Vm) -> None:
    """The kernel prints an error and continues without a network."""
    with open(minimal.image, "rb") as disk:
        words = [str(VMLINUX), "mem=64M", f"ubd0=fd:{disk.fileno()},cow", "root=/dev/ubda", "rootfstype=ext4", "rw"]
        words += ["eth0=fd:77", "init=/sbin/nabla-init", "--", "arg=/bin/ls", "arg=/sys/class/net", "tty=0"]
        result = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, pass_fds=(disk.fileno(),), check=False, timeout=20
        )
    assert result.returncode == 0
    assert result.stdout == b"lo\n"
    assert b"eth0=fd:77: error -9" in result.stderr


def echoed(reply: bytes, request: bytes) -> bool:
    """Return whether an IP packet answers a frame."""
    return reply[20] == 0 and reply[28:] == request[42:]


def test_stream(minimal: Vm) -> None:
    """Frames of all sizes, whole, split anywhere, and many at once, are answered in order."""
    with wired(minimal, socket.SOCK_STREAM, "echo up; read done", mtu=65520) as (machine, wire):
        assert machine.stdout is not None
        assert machine.stdin is not None
        assert machine.stdout.readline() == b"up\n"
        wire.sendall(framed(arp(1, b"\xff" * 6)))
        assert receive_framed(wire, 0x0806)[8:14] == GUEST_MAC
        for size in (0, 56, 1472, 9000, 40000, 65490):
            wire.sendall(framed(ping(size)))
            assert echoed(receive_framed(wire, 0x0800), ping(size)), size
        for byte in framed(ping(10)):
            wire.sendall(bytes([byte]))
        assert echoed(receive_framed(wire, 0x0800), ping(10))
        sizes = [*range(0, 3000, 100), 65490, 2, 65490, 4]
        wire.sendall(b"".join(framed(ping(size)) for size in sizes))
        for size in sizes:
            assert echoed(receive_framed(wire, 0x0800), ping(size)), size
        machine.stdin.write(b"\n")
        machine.stdin.flush()
        assert machine.wait(timeout=20) == 0


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_slow_peer(minimal: Vm, kind: socket.SocketKind) -> None:
    """Nothing is lost, truncated or reordered if the peer does not read for a while: the guest waits."""
    count = 300
    script = f"dd if=/dev/zero bs=8000 count={count} 2>/dev/null | nc -u -w 60 10.1.2.4 9 & read done"
    # The guest may drop packets for an unknown address, so it first learns this test's.
    with wired(minimal, kind, f"echo up; read go; {script}", mtu=9000) as (machine, wire):
        assert machine.stdout is not None
        assert machine.stdin is not None
        assert machine.stdout.readline() == b"up\n"
        frames = receive_framed if kind == socket.SOCK_STREAM else receive
        wrap = framed if kind == socket.SOCK_STREAM else bytes
        wire.send(wrap(arp(1, b"\xff" * 6)))
        assert frames(wire, 0x0806)[6:8] == b"\x00\x02"
        machine.stdin.write(b"\n")
        machine.stdin.flush()
        select.select([wire], [], [], 20)  # the guest sends
        time.sleep(0.5)
        wire.settimeout(20)
        payload = 0
        while payload < count * 8000:
            packet = frames(wire, 0x0800)
            assert packet[9] == 17
            payload += len(packet) - 28
        assert payload == count * 8000
        machine.stdin.write(b"\n")
        machine.stdin.flush()
        assert machine.wait(timeout=20) == 0


@pytest.mark.parametrize("nonsense", [b"\xff" * 4000, framed(b""), framed(b"short"), b"\x00\x00"])
def test_hostile_peer(minimal: Vm, nonsense: bytes) -> None:
    """The VM survives any data on the wire, and the wire's end."""
    script = (
        "echo up; until [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done; ip link show eth0; read done"
    )
    with wired(minimal, socket.SOCK_STREAM, script) as (machine, wire):
        assert machine.stdout is not None
        assert machine.stdin is not None
        assert machine.stdout.readline() == b"up\n"
        wire.sendall(nonsense)
        wire.close()
        assert b"eth0" in machine.stdout.readline()
        machine.stdin.write(b"\n")
        machine.stdin.flush()
        assert machine.wait(timeout=20) == 0
