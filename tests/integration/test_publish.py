# SPDX-License-Identifier: Apache-2.0
"""Published ports: servers in a guest that an ordinary user started, reached from the host."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .networked import GATEWAY, OWN_ERROR, Installation, free_port, ordinary_installation, page, sha256, talk, until

MIB = 1 << 20
UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """Launcher, kernel and images in a folder that an ordinary user can access."""
    with ordinary_installation("minimal", "test") as installed:
        yield installed


@pytest.fixture(scope="module")
def peer(installation: Installation) -> Iterator[int]:
    """A published port of network_peer.py, in one VM for all tests of this file."""
    with installation.peer() as (port, _):
        yield port


@pytest.mark.parametrize("border", [[], ["--jail"]])
def test_page_of_busybox(installation: Installation, border: list[str]) -> None:
    """httpd starts a process for each request; the client's address is the gateway's."""
    script = """
        mkdir -p /tmp/www/cgi-bin && cd /tmp/www && echo 'a page of the guest' >index.html
        printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' >cgi-bin/who && chmod 755 cgi-bin/who
        exec httpd -f -p 80 -h /tmp/www
    """
    port = free_port()
    with installation.running("minimal", "/bin/sh", "-c", script, options=["--publish", f"{port}:80", *border]):
        assert until(lambda: page(port), "a page") == b"a page of the guest\n"
        assert page(port, "/cgi-bin/who") == f"{GATEWAY}\n".encode()
        for _ in range(50):
            assert page(port) == b"a page of the guest\n"


def test_page_of_python(installation: Installation) -> None:
    port = free_port()
    command = ["/usr/bin/python3", "-m", "http.server", "8000", "--directory", "/usr/lib/nabla-tests"]
    with installation.running("test", *command, options=["--publish", f"{port}:8000"]):
        shown = until(lambda: page(port), "a page")
        assert b"network_peer.py" in shown
        curl = shutil.which("curl")
        if curl is not None:  # what a person would try first
            words = [curl, "-sS", f"http://127.0.0.1:{port}/"]
            assert subprocess.run(words, capture_output=True, check=True).stdout == shown


def test_user_of_the_guest_serves(installation: Installation) -> None:
    """The server is an ordinary user in the guest as well."""
    port = free_port()
    script = "mkdir -p /tmp/www/cgi-bin; printf '#!/bin/sh\\necho; id -u\\n' >/tmp/www/cgi-bin/id"
    script += "; chmod 755 /tmp/www/cgi-bin/id; exec httpd -f -p 8080 -h /tmp/www"
    options = ["--publish", f"{port}:8080", "--user", "nobody"]
    with installation.running("minimal", "/bin/sh", "-c", script, options=options):
        assert until(lambda: page(port, "/cgi-bin/id"), "a page") == b"65534\n"


def test_datagrams(peer: int) -> None:
    """Datagrams of each size come back unchanged, up to the largest for this network."""
    noise = random.Random(7)
    with socket.socket(type=socket.SOCK_DGRAM) as wire:
        wire.settimeout(20)
        wire.connect(("127.0.0.1", peer))
        for size in (1, 2, 100, 1472, 1473, 9000, 32768, 60000, 65000):
            sent = noise.randbytes(size)
            wire.send(sent)
            assert wire.recv(65535) == sent


def test_many_senders_of_datagrams(peer: int) -> None:
    """Each client receives its own answers."""
    wires = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(50)]
    for number, wire in enumerate(wires):
        wire.settimeout(20)
        wire.connect(("127.0.0.1", peer))
        wire.send(b"%d" % number)
    for number, wire in enumerate(wires):
        assert wire.recv(100) == b"%d" % number
        wire.close()


def test_large_transfers(peer: int) -> None:
    """Both ways, with checksums."""
    data = random.Random(1).randbytes(64 * MIB)
    assert talk(peer, line="take", send=data).decode() == sha256(data)
    # The guest generates its bytes in pieces of the same size as network_peer.py here.
    source = random.Random(2)
    expected = b"".join(source.randbytes(1 << 18) for _ in range(64 * MIB >> 18))
    assert sha256(talk(peer, line=f"give 2 {64 * MIB}")) == sha256(expected)


def echo(port: int, seed: int, size: int) -> bool:
    """Send and receive at the same time; return whether the same data come back."""
    data = random.Random(seed).randbytes(size)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire, ThreadPoolExecutor(1) as sender:

        def send() -> None:
            wire.sendall(b"echo\n" + data)
            wire.shutdown(socket.SHUT_WR)

        sending = sender.submit(send)
        back = b"".join(iter(lambda: wire.recv(1 << 16), b""))
        sending.result()
    return back == data


def test_both_directions_at_once(peer: int) -> None:
    """Both ends of the wire are full most of the time; neither may wait for the other forever."""
    assert echo(peer, 3, 32 * MIB)


def test_parallel_connections(peer: int) -> None:
    """First 200 that are open at the same time, then 400 that come and go."""
    wires = [socket.create_connection(("127.0.0.1", peer), timeout=60) for _ in range(200)]
    for number, wire in enumerate(wires):
        wire.sendall(b"echo\n%d" % number)
    for number, wire in enumerate(wires):
        wire.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda wire=wire: wire.recv(100), b"")) == b"%d" % number  # type: ignore[misc]
        wire.close()
    with ThreadPoolExecutor(20) as many:
        assert all(many.map(lambda seed: echo(peer, seed, 50_000), range(400)))


def test_nobody_listens(peer: int, installation: Installation) -> None:
    """A published port without a server refuses connections and does no harm."""
    port = free_port()
    with installation.peer(options=["--publish", f"{port}:99"]) as (other, _):
        with pytest.raises(OSError, match=r"reset|refused"), socket.create_connection(("127.0.0.1", port)) as wire:
            wire.settimeout(20)
            if wire.recv(1) == b"":
                raise ConnectionResetError("reset")
        assert talk(other, line="echo", send=b"x") == b"x"


def answers(port: int, address: str) -> bool:
    """Return whether connections to this address of the host's loopback are accepted."""
    try:
        socket.create_connection((address, port), timeout=60).close()
    except ConnectionRefusedError:
        return False
    return True


def test_addresses(installation: Installation) -> None:
    """A port is published on 127.0.0.1 unless another address is given."""
    plain, every, other = free_port(), free_port(), free_port("127.0.0.3")
    options = ["--publish", f"{plain}:7", "--publish", f"0.0.0.0:{every}:7", "--publish", f"127.0.0.3:{other}:7"]
    with installation.peer(options=options):
        seen = {
            (port, host) for port in (plain, every, other) for host in (1, 2, 3) if answers(port, f"127.0.0.{host}")
        }
    assert seen == {(plain, 1), (every, 1), (every, 2), (every, 3), (other, 3)}


def test_only_what_was_published(installation: Installation) -> None:
    """Publishing a TCP port does not publish the UDP port of the same number, and vice versa."""
    tcp, udp = free_port(), free_port()
    with installation.peer(options=["--publish", f"{tcp}:7", "--publish", f"{udp}:7/udp"]):
        assert not answers(udp, "127.0.0.1")
        with socket.socket(type=socket.SOCK_DGRAM) as mine:
            mine.bind(("127.0.0.1", tcp))
        assert answers(tcp, "127.0.0.1")


def refused(installation: Installation, message: str, *options: str) -> None:
    """Assert that the VM does not start, and that one line states the reason."""
    result = installation.run("minimal", "/bin/true", options=options)
    assert result.returncode == OWN_ERROR, result
    assert result.stderr.startswith("nabla-run: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_port_in_use(installation: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused(installation, f"--publish: TCP port {port} of 127.0.0.1: Address", "--publish", f"{port}:80")
        refused(installation, f"--publish: TCP port {port} of 0.0.0.0: Address", "--publish", f"0.0.0.0:{port}:80")
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        refused(installation, f"--publish: UDP port {port} of 127.0.0.1: Address", "--publish", f"{port}:80/udp")


def test_port_of_another_machine(installation: Installation, peer: int) -> None:
    refused(installation, f"TCP port {peer} of 127.0.0.1: Address", "--publish", f"{peer}:80")
    refused(installation, f"UDP port {peer} of 127.0.0.1: Address", "--publish", f"{peer}:80/udp")


def test_port_again_at_once(installation: Installation) -> None:
    """Connections that have just ended do not block the port for the next VM."""
    port = free_port()
    script = "mkdir /tmp/www; echo x >/tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"
    for _ in range(3):
        with installation.running("minimal", "/bin/sh", "-c", script, options=["--publish", f"{port}:80"]):
            assert until(lambda: page(port), "a page") == b"x\n"


def test_addresses_that_are_not_ours(installation: Installation) -> None:
    refused(installation, "this host has no such address", "--publish", "192.0.2.77:8080:80")
    twice = ("--publish", "127.0.0.1:8080:80", "--publish", "127.0.0.2:8080:81")
    refused(installation, "port 8080 is published twice", *twice)


def test_low_port(installation: Installation) -> None:
    """Hosts differ in who may bind ports below 1024; the VM gets the port, or one line reports the error."""
    result = installation.run("minimal", "/bin/true", options=["--publish", "127.0.0.9:81:80"])
    if int(UNPRIVILEGED.read_text()) <= 81:
        assert result.returncode == 0, result
    else:
        assert result.returncode == OWN_ERROR
        assert "TCP port 81 of 127.0.0.9: Permission denied (ports below" in result.stderr
