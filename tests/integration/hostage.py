# SPDX-License-Identifier: Apache-2.0
"""A named VM whose guest is the test: the kernel is replaced by a stand-in that passes bytes on to the control channel.

The broker is the launcher's own, with its confinement.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .launcher import Launcher
from .named import ASK_INFO, ASK_STATS, CONTROL_FD, HELLO, START, STARTED, Frames, Named, frame, named, start

ONE = struct.pack("<I", 1)
WELCOME = frame(HELLO, ONE)


@dataclass
class Victim:
    """A named VM whose guest is the test."""

    vm: Named
    guest: Frames

    def session(self, *words: str) -> Frames:
        """Begin a session, and read its request as the guest."""
        client = self.vm.connect()
        client.send(start(*(words or ("sh",)), flags=2))
        self.guest.expect(START)
        return client

    def running(self) -> Frames:
        """Begin a session, and start it as the guest."""
        client = self.session()
        self.guest.send(frame(STARTED, ONE))
        assert client.expect(STARTED) == ONE
        return client

    def lives(self) -> None:
        """Assert that nabla-run and its broker continue."""
        assert json.loads(self.vm.ask(ASK_INFO))["name"] == "vm"
        assert json.loads(self.vm.ask(ASK_STATS))["memory_kib"] > 0
        assert self.vm.process.poll() is None


@contextlib.contextmanager
def attack(launcher: Launcher, folder: Path, *options: str, hello: bool = True) -> Iterator[Victim]:
    """Start nabla-run with the stand-in."""
    with named(launcher.words(f"bridge={CONTROL_FD}", *options), folder) as vm:
        process = vm.process
        assert process.stdin and process.stdout
        incoming = process.stdout.fileno()
        pipe = process.stdin.fileno()

        def write(data: bytes) -> None:
            while data:
                data = data[os.write(pipe, data) :]

        victim = Victim(vm, Frames(lambda: os.read(incoming, 1 << 17), write))
        if hello:
            victim.guest.send(WELCOME)
        yield victim


@pytest.fixture
def victim(launcher: Launcher, tmp_path: Path) -> Iterator[Victim]:
    """A guest that has said hello."""
    with attack(launcher, tmp_path) as started:
        yield started
