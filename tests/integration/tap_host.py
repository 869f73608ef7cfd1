# SPDX-License-Identifier: Apache-2.0
"""tap_host.py COMMAND…: a host with a tap interface tap0, 10.77.0.1/24, MTU 9000; runs a command there.

Start it in a separate network namespace, as a user with all capabilities there. If --fd precedes the command, {FD} in
it is replaced with the number of the tap's descriptor.
"""

import fcntl
import os
import socket
import struct
import sys

TUNSETIFF, TUNSETPERSIST, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x400454CB, 0x0002, 0x1000
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS, SIOCSIFMTU = 0x8916, 0x891C, 0x8914, 0x8922
IFF_UP, MTU = 1, 9000
NAME = b"tap0"


def change(request: int, value: bytes) -> None:
    """Set one property of the interface."""
    with socket.socket(type=socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, request, struct.pack("16s24s", NAME, value))


def address(text: str) -> bytes:
    """Return the sockaddr_in of an address."""
    return struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(text))


def main() -> int:
    """Make the interface, run the command."""
    words = sys.argv[1:]
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", NAME, IFF_TAP | IFF_NO_PI))
    fcntl.ioctl(tap, TUNSETPERSIST, 1)
    change(SIOCSIFADDR, address("10.77.0.1"))
    change(SIOCSIFNETMASK, address("255.255.255.0"))
    change(SIOCSIFMTU, struct.pack("=i", MTU))
    change(SIOCSIFFLAGS, struct.pack("=h", IFF_UP))
    if words[0] == "--fd":
        os.set_inheritable(tap, True)
        words = [word.replace("{FD}", str(tap)) for word in words[1:]]
    os.execv(words[0], words)


main()
