# SPDX-License-Identifier: Apache-2.0
"""A network that a test makes: a namespace whose loopback interface has many addresses, with servers and a witness.

As a program in new namespaces, this module is the servers and the witness; no device leads out of them.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ALLOWED, DENIED, THIRD, SERVER = "198.51.100.1", "198.51.100.2", "198.51.100.3", "203.0.113.53"
SIX = "2001:db8::1"
TRANSLATED = "64:ff9b::c633:6402"  # DENIED behind a translator from IPv6
PORT, LOOPBACK_PORT, ECHO = 8000, 8001, 9
HOSTS = f"127.0.0.1 localhost\n{ALLOWED} web.example\n{DENIED} other.example\n127.0.0.1 evil.example\n"
_ADDRESSES = (f"{ALLOWED}/32", f"{DENIED}/32", f"{THIRD}/32", f"{SERVER}/32", f"{SIX}/128", f"{TRANSLATED}/128")
_ETHERNET, _IPV4, _IPV6 = 14, 0x0800, 0x86DD
_SYN, _ACK = 2, 16
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class World:
    """The servers' process and the words that run a program in its namespaces."""

    process: subprocess.Popen[str]
    prefix: tuple[str, ...]

    def seen(self) -> set[str]:
        """Return what anybody has sent since the last call: "tcp ADDRESS PORT", "udp ADDRESS PORT", "icmp ADDRESS"."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("report\n")
        self.process.stdin.flush()
        return set(json.loads(self.process.stdout.readline()))


@contextmanager
def new_world() -> Iterator[World]:
    """Make the network for the duration of the context."""
    root = os.geteuid() == 0
    user = [] if root else ["--user", "--map-current-user", "--keep-caps"]
    words = ["unshare", *user, "--net", "--mount", sys.executable, "-m", "tests.integration.world"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=_FOLDER.parent.parent) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        enter = ("nsenter", f"--target={process.pid}", "--net", "--mount")
        yield World(process, enter if root else (*enter, "--user", "--preserve-credentials"))
        process.stdin.close()
        process.wait(timeout=30)


# Inside


def _command(*words: str) -> None:
    subprocess.run(words, check=True)


def _put_file(path: str, text: str, folder: Path) -> None:
    copy = folder / Path(path).name
    copy.write_text(text)
    copy.chmod(0o644)
    _command("mount", "--bind", str(copy), path)


def _set_up() -> None:
    _command("ip", "link", "set", "lo", "up")
    for address in _ADDRESSES:
        _command("ip", "address", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
    _command("mount", "-t", "tmpfs", "none", "/mnt")
    _put_file("/etc/hosts", HOSTS, Path("/mnt"))
    _put_file("/etc/resolv.conf", f"nameserver {SERVER}\noptions timeout:1 attempts:1\n", Path("/mnt"))
    if os.geteuid() == 0:
        # As udev makes it: everybody may open it.
        tun = Path("/mnt/tun")
        os.mknod(tun, 0o20666, os.makedev(10, 200))
        tun.chmod(0o666)
        _command("mount", "--bind", str(tun), "/dev/net/tun")


def _destination(frame: bytes) -> str | None:
    """Return what a frame is the beginning of; None for an answer."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == _IPV4:
        header = (frame[_ETHERNET] & 15) * 4
        protocol, address = frame[_ETHERNET + 9], socket.inet_ntoa(frame[_ETHERNET + 16 : _ETHERNET + 20])
    elif kind == _IPV6:
        header, protocol = 40, frame[_ETHERNET + 6]
        address = socket.inet_ntop(socket.AF_INET6, frame[_ETHERNET + 24 : _ETHERNET + 40])
    else:
        return None
    rest = frame[_ETHERNET + header :]
    if protocol == socket.IPPROTO_TCP:
        return f"tcp {address} {rest[2] << 8 | rest[3]}" if rest[13] & (_SYN | _ACK) == _SYN else None
    if protocol == socket.IPPROTO_UDP:
        ports = struct.unpack_from("!HH", rest)
        return f"udp {address} {ports[1]}" if ports[0] not in {ECHO, 53} else None
    if protocol in {socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6}:
        return f"icmp {address}" if rest[0] in {8, 128} else None
    return f"protocol {protocol} {address}"


def _servers() -> tuple[list[socket.socket], list[socket.socket]]:
    streams = [
        socket.create_server(("0.0.0.0", PORT)),
        socket.create_server(("127.0.0.1", LOOPBACK_PORT)),
        socket.create_server((SIX, PORT), family=socket.AF_INET6),
    ]
    datagrams = []
    for address in (ALLOWED, DENIED, THIRD, SERVER, "127.0.0.1"):
        for port in (ECHO, 53):
            datagrams.append(socket.socket(type=socket.SOCK_DGRAM))
            datagrams[-1].bind((address, port))
    return streams, datagrams


def _answer(stream: socket.socket) -> None:
    connection, _ = stream.accept()
    with connection:
        here = connection.getsockname()
        connection.settimeout(5)
        try:
            connection.recv(4096)
            connection.sendall(f"HTTP/1.0 200 OK\r\n\r\nhere is {here[0]} {here[1]}\n".encode())
        except OSError:
            pass


def _serve() -> None:
    witness = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    witness.bind(("lo", 0))
    streams, datagrams = _servers()
    seen: set[str] = set()
    print("ready", flush=True)
    while True:
        # The witness first: a report contains all that came before the question.
        ready = select.select([witness, *streams, *datagrams, sys.stdin], [], [])[0]
        if witness in ready:
            seen.add(_destination(witness.recv(1 << 17)) or "")
            continue
        for one in ready:
            if one in streams:
                _answer(one)
            elif one in datagrams:
                data, peer = one.recvfrom(4096)
                one.sendto(data, peer)
        if sys.stdin in ready:
            if not sys.stdin.readline():
                return
            print(json.dumps(sorted(seen - {""})), flush=True)
            seen.clear()


if __name__ == "__main__":
    _set_up()
    _serve()
