# SPDX-License-Identifier: Apache-2.0
"""The kernel's end of a shared directory against a file server that answers anything, or nothing.

The kernel runs without nabla-run. Whatever the server does, requests fail, and the VM continues and ends as usual.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nabla.core.paths import VMLINUX

from .nine import DIALECT, PLAIN, TYPES, text

STREAM = 15
QID = bytes([0x80]) + struct.pack("<IQ", 0, 1)
FILE_QID = bytes(1) + struct.pack("<IQ", 0, 2)


def attributes(mode: int, qid: bytes, size: int = 4096) -> bytes:
    """Return the answer to getattr."""
    return struct.pack("<Q", 0x7FF) + qid + struct.pack("<III", mode, 0, 0) + struct.pack("<15Q", 1, 0, size, *[0] * 12)


def good(kind: int, content: bytes) -> bytes:
    """Return the answer of an honest server with a root and one file."""
    if kind == TYPES["version"]:
        return content  # with the dialect that serve() has chosen
    if kind == TYPES["attach"]:
        return QID
    if kind == TYPES["walk"]:
        count = int(struct.unpack_from("<H", content, 8)[0])
        return struct.pack("<H", count) + FILE_QID * count
    if kind in (TYPES["getattr"], TYPES["look"]):
        fid = content[:4] if kind == TYPES["getattr"] else content[2:6]
        root = fid == bytes(4) and (kind == TYPES["getattr"] or content[10:] == text(""))
        return attributes(0o40755, QID) if root else attributes(0o100644, FILE_QID)
    if kind in (TYPES["lopen"], TYPES["lcreate"], TYPES["reopen"]):
        return FILE_QID + struct.pack("<I", 0)
    if kind == TYPES["make"]:
        return bytes(4) + attributes(0o100644, FILE_QID, 0)
    if kind == TYPES["read"]:
        at_start = content[4:12] == bytes(8)
        return struct.pack("<I", 4) + b"data" if at_start else bytes(4)
    if kind == TYPES["readdir"]:
        return struct.pack("<I", 0)
    return b""


Answer = Callable[[int, int, bytes], bytes | None]
DIALECTS = pytest.mark.parametrize("dialect", [PLAIN, DIALECT])


def message(kind: int, tag: int, content: bytes, size: int | None = None) -> bytes:
    """Return a message; `size` if its header lies."""
    return struct.pack("<IBH", len(content) + 7 if size is None else size, kind & 0xFF, tag & 0xFFFF) + content


def honest(kind: int, tag: int, content: bytes) -> bytes:
    """Return an honest server's message."""
    if kind == TYPES["look"] and content[10:] == text("new"):
        return message(TYPES["lerror"], tag, struct.pack("<I", errno.ENOENT))
    return b"" if kind == TYPES["forget"] else message(kind + 1, tag, good(kind, content))


def serve(connection: socket.socket, answer: Answer, dialect: str) -> None:
    """Answer requests until the other end closes, or there is no answer: then this end closes."""
    stream = connection.makefile("rb")
    with suppress(OSError), connection:
        while len(header := stream.read(7)) == 7:
            size, kind, tag = struct.unpack("<IBH", header)
            content = stream.read(size - 7)
            if kind == TYPES["version"]:
                content = content[:4] + text(dialect)
            reply = answer(kind, tag, content)
            if reply is None:
                return
            connection.sendall(reply)


@contextmanager
def machine(image: Path, script: str) -> Iterator[tuple[socket.socket, subprocess.Popen[str]]]:
    """Boot a VM that mounts stream 1 at /mnt and runs a script; yields the server's end."""
    ours, theirs = socket.socketpair()
    disk = os.open(image, os.O_RDONLY)

    def arrange() -> None:
        os.dup2(disk, 3)
        os.dup2(theirs.fileno(), STREAM)
        os.closerange(4, STREAM)
        os.closerange(STREAM + 1, 256)

    settings = ["arg=/bin/sh", "arg=-c", f"arg={script}", "workdir=/", "tty=0", "discard=1"]
    words = ["mem=64M", "ubd0=fd:3,cow", "root=/dev/ubda", "rootfstype=ext4", "rw", f"stream1=fd:{STREAM},share1"]
    process = subprocess.Popen(
        [VMLINUX, *words, "init=/sbin/nabla-init", "loglevel=5", "--", *settings],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=arrange,
        close_fds=False,
    )
    theirs.close()
    os.close(disk)
    try:
        yield ours, process
    finally:
        ours.close()
        process.kill()
        process.wait()


MOUNT = (
    "mkdir -p /tmp/m; mount -t 9p -o trans=host,version=9p2000.L,access=any,msize=65536 share1 /tmp/m && echo mounted"
)
USE = "cat /tmp/m/file; ls /tmp/m; echo x >/tmp/m/new; mv /tmp/m/a /tmp/m/b; rm /tmp/m/c; stat /tmp/m; umount /tmp/m"
SCRIPT = f"{{ {MOUNT}; {USE}; }} 2>&1; echo the end"


def run(image: Path, answer: Answer, dialect: str, script: str = SCRIPT) -> str:
    """Run the script against a server; assert that the VM ended in order, and return its output."""
    with machine(image, script) as (ours, process):
        server = threading.Thread(target=serve, args=(ours, answer, dialect))
        server.start()
        output, _ = process.communicate(timeout=120)
        server.join(60)
    assert process.returncode == 0, output
    assert "the end\n" in output, output
    for word in ("BUG:", "WARNING:", "Oops", "panic"):
        assert word not in output, output
    return output


@DIALECTS
def test_an_honest_server(image: Path, dialect: str) -> None:
    """The reference for the others: the share is mounted and read, with the negotiated messages."""
    kinds: set[int] = set()

    def answer(kind: int, tag: int, content: bytes) -> bytes:
        kinds.add(kind)
        return honest(kind, tag, content)

    output = run(image, answer, dialect)
    assert "mounted" in output and "data" in output, output
    own = {TYPES[name] for name in ("look", "forget", "reopen", "make")}
    assert kinds & own == (own if dialect == DIALECT else set()), kinds


@pytest.mark.parametrize("refusal", ["unknown", "", errno.EINVAL])
def test_a_server_that_refuses_the_dialect(image: Path, refusal: str | int) -> None:
    """The kernel then offers the protocol itself."""
    with machine(image, SCRIPT) as (ours, process):
        stream = ours.makefile("rb")
        size, kind, tag = struct.unpack("<IBH", stream.read(7))
        offer = stream.read(size - 7)
        assert kind == TYPES["version"] and offer[4:] == text(DIALECT)
        if isinstance(refusal, int):
            ours.sendall(message(TYPES["lerror"], tag, struct.pack("<I", refusal)))
        else:
            ours.sendall(message(kind + 1, tag, offer[:4] + text(refusal)))
        server = threading.Thread(target=serve, args=(ours, honest, PLAIN))
        server.start()
        output, _ = process.communicate(timeout=120)
        server.join(60)
    assert process.returncode == 0 and "mounted" in output and "data" in output, output


LIES: dict[str, Answer] = {
    "closes": lambda kind, tag, content: None,
    "size 0": lambda kind, tag, content: message(kind + 1, tag, b"", 0),
    "size 6": lambda kind, tag, content: message(kind + 1, tag, b"", 6),
    "4 GB": lambda kind, tag, content: message(kind + 1, tag, b"", 0xFFFFFFFF),
    "larger than the room": lambda kind, tag, content: message(kind + 1, tag, bytes(60000)),
    "another tag": lambda kind, tag, content: message(kind + 1, tag + 1, good(kind, content)),
    "twice": lambda kind, tag, content: message(kind + 1, tag, good(kind, content)) * 2,
    "nothing in it": lambda kind, tag, content: message(kind + 1, tag, b""),
    "another kind": lambda kind, tag, content: message(TYPES["readdir"] + 1, tag, good(kind, content)),
    "an error without number": lambda kind, tag, content: message(TYPES["lerror"], tag, b""),
    "an error that is none": lambda kind, tag, content: message(TYPES["lerror"], tag, struct.pack("<I", 0)),
    "a huge error": lambda kind, tag, content: message(TYPES["lerror"], tag, b"\xff" * 4),
    "many messages": lambda kind, tag, content: message(kind + 1, 77, b"") * 5000,
}


@DIALECTS
@pytest.mark.parametrize("late", [False, True], ids=["at once", "when mounted"])
@pytest.mark.parametrize("name", LIES)
def test_lies(image: Path, name: str, late: bool, dialect: str) -> None:
    """From the first answer on, and only after the mount has succeeded."""
    seen = {"requests": 0}

    def answer(kind: int, tag: int, content: bytes) -> bytes | None:
        seen["requests"] += 1
        if late and seen["requests"] < 6:
            return honest(kind, tag, content)
        return LIES[name](kind, tag, content)

    run(image, answer, dialect)
    assert seen["requests"] > 0


@DIALECTS
def test_numbers_that_lie(image: Path, dialect: str) -> None:
    """Counts beyond the message, unterminated names, impossible sizes and modes."""

    def answer(kind: int, tag: int, content: bytes) -> bytes:
        if kind == TYPES["forget"]:
            return b""
        body = good(kind, content)
        if kind == TYPES["read"]:
            body = struct.pack("<I", 0xFFFFFFFF) + b"data"
        if kind == TYPES["readdir"]:
            body = struct.pack("<I", 300) + (QID + struct.pack("<QBH", 1, 4, 0xFFFF) + b"name")[:300].ljust(300, b"/")
        if kind == TYPES["walk"] and content[8:10] != bytes(2):
            body = struct.pack("<H", 0xFFFF) + FILE_QID
        if kind == TYPES["look"]:
            body = attributes(0o170000, FILE_QID, -1 & (1 << 64) - 1)
        if kind == TYPES["make"]:
            body = bytes([255]) * 4 + attributes(0o120777, QID, 1 << 63)
        if kind == TYPES["reopen"]:
            body = FILE_QID + struct.pack("<I", 0xFFFFFFFF)
        return message(kind + 1, tag, body)

    run(image, answer, dialect)


@DIALECTS
def test_random_answers(image: Path, dialect: str) -> None:
    """Honest answers with some bytes changed; twenty servers."""
    for seed in range(20):
        draw = random.Random(seed)

        def answer(kind: int, tag: int, content: bytes, draw: random.Random = draw) -> bytes:
            if kind == TYPES["forget"]:
                return b""
            reply = bytearray(honest(kind, tag, content))
            for _ in range(draw.choice([0, 0, 0, 1, 2, 8])):
                reply[draw.randrange(len(reply))] = draw.choice([0, 1, 0x7F, 0xFF, draw.randrange(256)])
            # What its header announces must come, or the VM waits for it.
            size = struct.unpack_from("<I", reply)[0]
            return bytes(reply.ljust(min(size, 1 << 17), b"\0"))

        run(image, answer, dialect)


def test_directories_that_are_stale_for_ever(image: Path) -> None:
    """A server that answers ESTALE for each name, however often it is asked, causes an error, not a loop."""

    def answer(kind: int, tag: int, content: bytes) -> bytes:
        if kind == TYPES["look"] and content[6:10] != b"\xff" * 4:
            return message(TYPES["lerror"], tag, struct.pack("<I", errno.ESTALE))
        return honest(kind, tag, content)

    output = run(image, answer, DIALECT)
    assert "mounted" in output and "Stale file handle" in output, output


def test_answers_to_what_has_none(image: Path) -> None:
    """The connection ends."""

    def answer(kind: int, tag: int, content: bytes) -> bytes:
        return message(kind + 1, tag, b"") if kind == TYPES["forget"] else honest(kind, tag, content)

    output = run(image, answer, DIALECT, f"{MOUNT}; stat /tmp/m/file; sleep 1; stat /tmp/m/file; echo the end")
    assert "mounted" in output and "I/O error" in output, output


def test_a_server_that_does_not_read(image: Path) -> None:
    """Programs keep closing files, and the server reads nothing: programs wait, and can be killed."""
    script = f"{MOUNT}; (while :; do cat /tmp/m/file; done) & sleep 1; kill -9 $!; wait; echo killed; echo the end"
    seen = {"requests": 0}

    def answer(kind: int, tag: int, content: bytes) -> bytes:
        seen["requests"] += kind == TYPES["reopen"]
        return b"" if seen["requests"] > 40 and kind != TYPES["flush"] else honest(kind, tag, content)

    output = run(image, answer, DIALECT, script)
    assert "killed" in output and seen["requests"] > 40, output


@DIALECTS
def test_a_server_that_is_silent(image: Path, dialect: str) -> None:
    """Programs wait for it, and can be killed; then it answers again."""
    script = f"{MOUNT}; (cat /tmp/m/file; echo no) & sleep 1; kill -9 $!; wait; echo killed; echo the end"
    held: list[bytes] = []

    def answer(kind: int, tag: int, content: bytes) -> bytes:
        if kind == TYPES["read"]:
            held.append(message(kind + 1, tag, good(kind, content)))
            return b""
        if kind == TYPES["flush"]:
            return b"".join(held) + message(kind + 1, tag, b"")
        return honest(kind, tag, content)

    output = run(image, answer, dialect, script)
    assert "mounted" in output and "killed" in output and "no\n" not in output, output


@DIALECTS
def test_an_answer_to_another_question(image: Path, dialect: str) -> None:
    """The connection ends, also if the content would fit."""
    wrong = {TYPES["look"]: TYPES["getattr"] + 1, TYPES["getattr"]: TYPES["look"] + 1}
    seen: list[int] = []

    def answer(kind: int, tag: int, content: bytes) -> bytes:
        if kind not in wrong or (kind == TYPES["getattr"] and content[:4] == bytes(4)):
            return honest(kind, tag, content)
        seen.append(kind)
        return message(wrong[kind], tag, good(kind, content))

    output = run(image, answer, dialect, f"{MOUNT}; for n in 1 2 3; do stat /tmp/m/file; done 2>&1; echo the end")
    assert "mounted" in output and output.count("I/O error") == 3 and len(seen) == 1, output


INTERRUPTED = {
    "look": ("stat /tmp/m/file", [6]),
    "reopen": ("cat /tmp/m/file", [4]),
    "make": ("(echo x >/tmp/m/new)", [4, 8]),
}


@pytest.mark.parametrize("name", INTERRUPTED)
def test_fids_of_interrupted_requests(image: Path, name: str) -> None:
    """The server may have created them before it read the cancellation: the kernel sends P9_TFORGET."""
    command, offsets = INTERRUPTED[name]
    script = f"{MOUNT}; {command} & sleep 1; kill -9 $!; wait; echo killed; stat /tmp/m; echo the end"
    new_fids: list[int] = []
    forgotten: list[int] = []

    def answer(kind: int, tag: int, content: bytes) -> bytes:
        if kind == TYPES[name] and not new_fids and content[6:10] != b"\xff" * 4:
            new_fids.extend(struct.unpack_from("<I", content, offset)[0] for offset in offsets)
            return b""
        if kind == TYPES["forget"]:
            forgotten.extend(struct.unpack(f"<{len(content) // 4}I", content))
        return honest(kind, tag, content)

    output = run(image, answer, DIALECT, script)
    assert "killed" in output, output
    assert new_fids and set(new_fids) <= set(forgotten), (new_fids, forgotten)
