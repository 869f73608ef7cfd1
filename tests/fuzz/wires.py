# SPDX-License-Identifier: Apache-2.0
"""Odd frames on both kinds of network descriptors: after any of them, the VM still answers requests."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
import tempfile
import time

from nabla.core.paths import IMAGES, NABLA_RUN

from .engine import Finding, Fuzzer, verdict

IMAGE = IMAGES / "minimal.ext3"
FRAMES = 400
MAC, OUR_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
OURS, THEIRS = bytes([10, 9, 0, 1]), bytes([10, 9, 0, 2])
KINDS = (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM)
LARGEST = 65520 + 18
PATIENCE = 60.0


def who_has() -> bytes:
    """Return the question that the VM must answer: an ARP request for its address."""
    asked = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + OUR_MAC + OURS + bytes(6) + THEIRS
    return b"\xff" * 6 + OUR_MAC + b"\x08\x06" + asked + bytes(18)


def is_answer(frame: bytes) -> bool:
    """Return whether this frame is the answer to `who_has`."""
    return frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02" and frame[28:32] == THEIRS


def odd_frame(draw: random.Random) -> bytes:
    """Return bytes that are not a frame, barely a frame, or a frame with wrong headers."""
    kind = draw.randrange(8)
    if kind == 0:
        return draw.randbytes(draw.choice([0, 0, 1, 5, 13, 14, 15, 59]))
    if kind == 1:
        return draw.randbytes(draw.choice([1514, 1518, 9000, LARGEST - 1, LARGEST]))
    if kind == 2:
        protocol = draw.choice([0x8100, 0x88A8, 0x86DD, 0x0806, 0x8847])
        return MAC + OUR_MAC + protocol.to_bytes(2, "big") + draw.randbytes(draw.randrange(200))
    payload = draw.randbytes(draw.randrange(600))
    protocol = draw.choice([1, 2, 6, 17, 41, 47, 132, 255])
    total = draw.choice([20 + len(payload), 0, 19, 65535, draw.randrange(65536)])
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | draw.choice([5, 5, 5, 0, 4, 15]),
        draw.randrange(256),
        total,
        draw.randrange(65536),
        draw.choice([0, 0x4000, 0x2000, draw.randrange(65536)]),
        draw.randrange(256),
        protocol,
        0,
        draw.choice([OURS, THEIRS, b"\x7f\0\0\1", b"\xff" * 4, bytes(4)]),
        draw.choice([THEIRS, THEIRS, b"\xff" * 4, b"\xe0\0\0\1"]),
    )
    # The checksum is correct most of the time; otherwise the guest would not read the contents.
    words = struct.unpack("!10H", header)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    if draw.randrange(8):
        header = header[:10] + total.to_bytes(2, "big") + header[12:]
    return draw.choice([MAC, MAC, b"\xff" * 6]) + OUR_MAC + b"\x08\x00" + header + payload


class Wire:
    """Our end of the wire to a VM."""

    def __init__(self, end: socket.socket, kind: socket.SocketKind) -> None:
        self.end = end
        self.stream = kind == socket.SOCK_STREAM
        self.rest = b""
        end.settimeout(PATIENCE)

    def send(self, frame: bytes) -> None:
        """Send a frame; data that the host refuses to send is not a frame."""
        data = len(frame).to_bytes(4, "big") + frame if self.stream else frame
        try:
            self.end.sendall(data)
        except OSError as error:
            if error.errno != 90 and not isinstance(error, TimeoutError):  # EMSGSIZE
                raise

    def receive(self, patience: float) -> bytes | None:
        """Return the next frame, or None if there is none in time."""
        self.end.settimeout(patience)
        try:
            if not self.stream:
                return self.end.recv(1 << 17)
            while len(self.rest) < 4 or len(self.rest) < 4 + int.from_bytes(self.rest[:4], "big"):
                more = self.end.recv(1 << 17)
                if not more:
                    return None
                self.rest += more
        except TimeoutError:
            return None
        length = 4 + int.from_bytes(self.rest[:4], "big")
        frame, self.rest = self.rest[4:length], self.rest[length:]
        return frame

    def answers(self) -> bool:
        """Ask until there is an answer."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.send(who_has())
            while (frame := self.receive(0.5)) is not None:
                if is_answer(frame):
                    return True
        return False


def wires(seed: int) -> Finding | None:
    """One VM, one kind of descriptor, some hundred odd frames, and a question."""
    draw = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    left, right = socket.socketpair(socket.AF_UNIX, kind)
    with left, right, tempfile.TemporaryFile() as written:
        argv = [str(NABLA_RUN), "--ephemeral", "--memory", "64M", "--verbose", "--append", "loglevel=5"]
        argv += ["--net", f"fd={right.fileno()}", "--ip", "10.9.0.2/24,10.9.0.1", "--timeout", "170"]
        argv += [str(IMAGE), "--", "/bin/cat"]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=written, stderr=subprocess.STDOUT, pass_fds=(right.fileno(),)
        ) as vm:
            right.close()
            wire = Wire(left, kind)
            alive = False
            with contextlib.suppress(OSError):
                alive = wire.answers()
                for _ in range(FRAMES):
                    wire.send(odd_frame(draw))
                alive = alive and wire.answers()
            assert vm.stdin is not None
            vm.stdin.close()
            status = vm.wait()
        written.seek(0)
        output = written.read().decode(errors="replace")
    finding = verdict("wires", seed, status, output)
    if finding is None and not alive:
        return Finding("wires", seed, f"no answer on a descriptor of {kind.name}")
    return finding


FUZZERS = (Fuzzer("wires", "frames", FRAMES, wires),)
