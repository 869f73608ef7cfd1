# SPDX-License-Identifier: Apache-2.0
"""`--net fd=N` and `--net tap=IF`: VMs on both ends of a socket pair, and on a tap in a private namespace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from nabla.core.paths import NABLA_RUN
from tests.fuzz.wires import Wire

from .conftest import image_of
from .networked import OWN_ERROR, program, run_words

HELPER = Path(__file__).with_name("tap_host.py")
PAGE = "mkdir /tmp/www && dd if=/dev/zero bs=1M count=5 2>/dev/null | tr '\\0' 'n' >/tmp/www/index.html && "
SERVE = f"{PAGE}exec httpd -f -p 80 -h /tmp/www"
FETCH = "until wget -q -O - http://{}/ >/tmp/page 2>/dev/null; do sleep 0.1; done; tr -d n </tmp/page; wc -c </tmp/page"


def words(net: str, address: str, script: str, *options: str) -> list[str]:
    """Return the command line of a VM with an address on a wire."""
    image = str(image_of("minimal"))
    return [
        str(NABLA_RUN),
        "--ephemeral",
        "--net",
        net,
        "--ip",
        address,
        *options,
        image,
        "--",
        "/bin/sh",
        "-c",
        script,
    ]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_two_machines_on_a_wire(kind: socket.SocketKind) -> None:
    """One VM serves, the other fetches; only a pair of sockets connects them."""
    left, right = socket.socketpair(socket.AF_UNIX, kind)
    with left, right:
        serve = words(f"fd={left.fileno()}", "10.9.0.1/24", SERVE, "--timeout", "60")
        fetch = words(f"fd={right.fileno()}", "10.9.0.2/24", FETCH.format("10.9.0.1"), "--timeout", "60")
        null = subprocess.DEVNULL
        with subprocess.Popen(serve, stdin=null, pass_fds=(left.fileno(),)) as server:
            try:
                result = subprocess.run(
                    fetch, stdin=null, capture_output=True, text=True, pass_fds=(right.fileno(),), check=False
                )
                assert (result.returncode, result.stdout, result.stderr) == (0, f"{5 << 20}\n", "")
            finally:
                server.terminate()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: socket.socket(type=socket.SOCK_DGRAM),
            "is not a Unix socket (use a tap device or a connected Unix",
        ),
        (lambda: socket.socket(socket.AF_UNIX), "is not connected"),
        (lambda: open("/dev/null", "rb"), "is neither a tap device nor a socket"),  # noqa: SIM115 - the test closes it
        (lambda: open("/etc/passwd", "rb"), "is neither a tap device nor a socket"),  # noqa: SIM115
        (lambda: os.fdopen(os.pipe()[0], "rb"), "is neither a tap device nor a socket"),
    ],
)
def test_descriptors_without_frames(make: object, message: str) -> None:
    assert callable(make)
    with make() as thing:
        number = thing.fileno()
        argv = words(f"fd={number}", "10.9.0.1/24", "true")
        result = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, pass_fds=(number,), check=False
        )
    assert result.returncode == OWN_ERROR
    assert result.stderr.startswith("nabla-run: --net: ")
    assert f"descriptor {number} {message}" in result.stderr.replace("the socket on ", "")


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_empty_datagrams_are_ignored(kind: socket.SocketKind) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, kind)
    with left, right:
        argv = words(f"fd={right.fileno()}", "10.9.0.2/24", "read line; cat /sys/class/net/eth0/carrier")
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(right.fileno(),)
        ) as machine:
            wire = Wire(left, kind)
            for _ in range(300):
                wire.send(b"")
            assert wire.answers()
            output, _ = machine.communicate(b"\n", timeout=60)
    assert output == b"1\n"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_the_end_of_the_peer_is_a_cable_unplugged(kind: socket.SocketKind) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, kind)
    script = "echo up; until [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done; echo unplugged"
    with left, right:
        argv = words(f"fd={right.fileno()}", "10.9.0.2/24", script, "--timeout", "60")
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=(right.fileno(),)
        ) as machine:
            right.close()
            assert machine.stdout is not None
            assert machine.stdout.readline() == b"up\n"
            left.close()
            assert machine.stdout.read() == b"unplugged\n"


def test_closed_descriptor() -> None:
    result = run_words(words("fd=77", "10.9.0.1/24", "true"))
    assert (result.returncode, result.stdout) == (OWN_ERROR, "")
    assert (
        result.stderr
        == "nabla-run: --net: descriptor 77: Bad file descriptor (start nabla-run with this descriptor open)\n"
    )


def on_tap_host(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a host with tap0; None if /dev/net/tun cannot be opened."""
    fence = [program("unshare"), "--user", "--map-root-user", "--net", sys.executable, str(HELPER)]
    return run_words([*fence, *command])


def tap_is_ours() -> bool:
    """Return whether this user may open the host's /dev/net/tun."""
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


def beside(machine: Sequence[str], script: str) -> list[str]:
    """Return the command line that runs a VM in the background and a script beside it."""
    return ["/bin/sh", "-c", f'"$@" & machine=$!; {script}; kill $machine; wait', "sh", *machine]


FETCH_HERE = (
    "import sys, time, urllib.request\n"
    "for _ in range(300):\n"
    "    try:\n"
    "        print(len(urllib.request.urlopen('http://10.77.0.2/', timeout=10).read())); break\n"
    "    except OSError: time.sleep(0.1)\n"
)


@pytest.mark.parametrize("net", ["tap=tap0", "fd={FD}"])
def test_tap(net: str) -> None:
    """The host fetches a page from the guest; the guest's MTU is that of the tap."""
    script = f"cat /sys/class/net/eth0/mtu; ip route; {SERVE}"
    machine = words(net, "10.77.0.2/24,10.77.0.1", script, "--run-as", "0", "--dns", "10.77.0.1", "--timeout", "60")
    prefix = ["--fd"] if "FD" in net else []
    run = beside(machine, f'{sys.executable} -c "{FETCH_HERE}"')
    if not tap_is_ours():
        refused = run_words(words("tap=lo", "10.77.0.2/24", "true"))
        assert (refused.returncode, refused.stdout) == (OWN_ERROR, "")
        assert "cannot open /dev/net/tun: " in refused.stderr
        return
    result = on_tap_host(*prefix, *run)
    assert result.stderr == "", result
    assert sorted(result.stdout.splitlines()) == sorted(
        ["9000", "default via 10.77.0.1 dev eth0 ", "10.77.0.0/24 dev eth0 scope link  src 10.77.0.2 ", str(5 << 20)]
    )


def test_tap_that_cannot_be_had() -> None:
    missing = run_words(words("tap=nabla-none", "10.77.0.2/24", "true"))
    assert missing.returncode == OWN_ERROR
    assert "this host has no network interface nabla-none (create it: ip tuntap add" in missing.stderr
    if tap_is_ours():
        other = on_tap_host(*words("tap=lo", "10.77.0.2/24", "true", "--run-as", "0"))
        assert other.returncode == OWN_ERROR
        assert "cannot attach to network interface lo: Invalid argument (it is not a tap interface)" in other.stderr
        taken = on_tap_host("--fd", *words("tap=tap0", "10.77.0.2/24", "echo {FD}", "--run-as", "0"))
        assert taken.returncode == OWN_ERROR
        assert "cannot attach to network interface tap0: Resource busy (another program" in taken.stderr
