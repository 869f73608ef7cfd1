# SPDX-License-Identifier: Apache-2.0
"""A guest's attacks on network rules, run by the guest's Python as root: frames made by hand, and ordinary sockets."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Protocol

OWN, GATEWAY, GATEWAY_MAC = "10.0.2.15", "10.0.2.2", bytes.fromhex("026e61626c61")
DENIED, THIRD, SERVER, SIX = "198.51.100.2", "198.51.100.3", "203.0.113.53", "2001:db8::1"
FOURS = [DENIED, THIRD, SERVER, GATEWAY, "127.0.0.1", "127.0.0.2", "0.0.0.0", "10.0.2.3"]
FOURS += ["169.254.77.1", "169.254.77.2", "255.255.255.255", "224.0.0.1"]
SIXES = [SIX, "::1", "::", "::ffff:127.0.0.1", "::ffff:198.51.100.2", "64:ff9b::c633:6402", "fe80::1", "ff02::1"]
SIXES += ["::127.0.0.1", "2002:c633:6402::1"]
SOURCES = [OWN, "10.0.2.77", "127.0.0.1", GATEWAY, DENIED, "0.0.0.0", "203.0.113.9", "169.254.77.1"]
SOURCES6 = ["fd00::15", "::1", SIX, "fe80::15", "::"]
PORTS = [8000, 8001, 9, 53]


class Send(Protocol):
    """Sends a packet with its type to a hardware address."""

    def __call__(self, packet: bytes, mac: bytes = GATEWAY_MAC, /) -> None:
        """Send it."""


def checksum(data: bytes) -> int:
    """Return the sum of the Internet protocols."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def four(source: str, target: str, protocol: int, payload: bytes, *, options: bytes = b"", fragment: int = 0) -> bytes:
    """Return an IPv4 packet behind its type."""
    ends = socket.inet_aton(source), socket.inet_aton(target)
    version, size = 0x45 + len(options) // 4, 20 + len(options) + len(payload)
    head = struct.pack("!BBHHHBBH4s4s", version, 0, size, 7, fragment, 64, protocol, 0, *ends)
    head += options
    return b"\x08\x00" + head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def six(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """Return an IPv6 packet behind its type."""
    ends = b"".join(socket.inet_pton(socket.AF_INET6, address) for address in (source, target))
    return b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + ends + payload


def pseudo(source: str, target: str, protocol: int, length: int) -> bytes:
    """Return what the sum covers in addition to the packet."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    both = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    return both + (struct.pack("!II", length, protocol) if ":" in target else struct.pack("!HH", protocol, length))


def syn(source: str, target: str, port: int, own: int = 4321) -> bytes:
    """Return the beginning of a TCP connection."""
    head = struct.pack("!HHIIBBHHH", own, port, 1, 0, 0x50, 2, 64240, 0, 0)
    return head[:16] + struct.pack("!H", checksum(pseudo(source, target, 6, 20) + head)) + head[18:]


def datagram(source: str, target: str, port: int, own: int = 4321) -> bytes:
    """Return a UDP packet."""
    data = b"hello"
    head = struct.pack("!HHHH", own, port, 8 + len(data), 0)
    total = checksum(pseudo(source, target, 17, len(head) + len(data)) + head + data)
    return head[:6] + struct.pack("!H", total or 0xFFFF) + data


def echo(kind: int) -> bytes:
    """Return a ping."""
    head = struct.pack("!BBHHH", kind, 0, 0, 1, 1) + b"12345678"
    return head[:2] + struct.pack("!H", checksum(head)) + head[4:]


def link() -> Send:
    """Open the guest's Ethernet device."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.bind(("eth0", 0))
    own = wire.getsockname()[4]

    def send(packet: bytes, mac: bytes = GATEWAY_MAC, /) -> None:
        try:
            wire.send(mac + own + packet)
        except OSError as error:
            print("not sent:", error, file=sys.stderr)

    return send


def from_everywhere(send: Send) -> None:
    """Spoof the source; also a port that passt listens on."""
    number = 20000
    for source in SOURCES:
        for target in FOURS:
            for port in PORTS:
                number += 1
                for own in (number, 80, 7070):
                    send(four(source, target, 6, syn(source, target, port, own)))
                    send(four(source, target, 17, datagram(source, target, port, own=own)))
            send(four(source, target, 1, echo(8)))


def tunnels(send: Send) -> None:
    """Wrap a packet into another one, and name the next hop."""
    inner = four(OWN, DENIED, 17, datagram(OWN, DENIED, 9))[2:]
    for target in FOURS:
        for protocol in (2, 4, 41, 47, 50, 132, 255):
            send(four(OWN, target, protocol, inner))
    allowed = sys.argv[1]
    route = bytes([131, 7, 4]) + socket.inet_aton(DENIED) + b"\0"
    send(four(OWN, allowed, 6, syn(OWN, allowed, 8001), options=route))
    send(four(OWN, allowed, 17, datagram(OWN, allowed, 53), options=route))


def ipv6(send: Send) -> None:
    """The guest's kernel has none, so passt expects none either."""
    number = 30000
    for source in SOURCES6:
        for target in SIXES:
            for port in PORTS:
                number += 1
                send(six(source, target, 6, syn(source, target, port, number)))
                send(six(source, target, 17, datagram(source, target, port, own=number)))
            send(six(source, target, 58, echo(128)))


def odd(send: Send) -> None:
    """Send fragments, a VLAN, and to hardware addresses of nobody and of all. passt of 2023 may hang, as after lies."""
    send(four(OWN, DENIED, 17, datagram(OWN, DENIED, 9)[:8], fragment=0x2000))
    send(four(OWN, DENIED, 17, b"hello", fragment=1))
    send(b"\x81\x00\x00\x05" + four(OWN, DENIED, 17, datagram(OWN, DENIED, 9)))
    for mac in (b"\xff" * 6, bytes(6), b"\x02abcde"):
        send(four(OWN, DENIED, 17, datagram(OWN, DENIED, 9)), mac)
        send(four(OWN, DENIED, 6, syn(OWN, DENIED, 8000)), mac)


def lies(send: Send) -> None:
    """Send headers that lie about their length. After these, passt of 2023 may be busy forever."""
    for _ in range(50):
        for cut in (1, 2, 13, 20, 33, 40):
            send(four(OWN, DENIED, 6, syn(OWN, DENIED, 8000))[:cut])
        send(b"\x08\x00\x4f" + bytes(59))


def sockets() -> None:
    """Connect and send as every program may."""
    for target in [*FOURS, "localhost"]:
        for port in PORTS:
            with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
                stream.setblocking(False)
                with contextlib.suppress(OSError):
                    stream.connect((target, port))
                with contextlib.suppress(OSError):
                    datagrams.sendto(b"x", (target, port))
    # an answer begins nothing: from the port of a published server, to somebody who never asked
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("0.0.0.0", 80))
        datagrams.sendto(b"x", (DENIED, 9))


def reach(target: str, port: int) -> None:
    """Print the last line of the answer of an allowed host."""
    with socket.create_connection((target, port), timeout=20) as stream:
        stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
        print(stream.makefile().read().splitlines()[-1])


# passt and pasta work in order: when the allowed host answers, what was sent before has been decided on
reach(sys.argv[1], 8000)
sockets()
reach(sys.argv[1], 8000)
for attack in (from_everywhere, tunnels, ipv6):
    attack(link())
    reach(sys.argv[1], 8000)
odd(link())
lies(link())
print("over")
