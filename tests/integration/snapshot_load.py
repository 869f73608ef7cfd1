# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: saves the VM under load, and checks that no VM loses anything or goes backward."""

import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path

FOLDER = Path("/root/load")
SIZE = 1 << 20
CHILDREN = 4

stop = threading.Event()
bad: list[str] = []
beats = {"clock": 0, "disk": 0, "busy": 0, "alarm": 0}


def watch_clock() -> None:
    last, boot = time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    while not stop.is_set():
        now, now_boot = time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if now < last or now_boot < boot:
            bad.append(f"a clock went back: {last} {now} {boot} {now_boot}")
        last, boot = now, now_boot
        beats["clock"] += 1
        time.sleep(0.0005)


def use_disk() -> None:
    while not stop.is_set():
        n = beats["disk"]
        data = bytes([n & 255]) * (4096 * (1 + n % 7))
        path = FOLDER / str(n % 5)
        with path.open("wb") as stream:
            stream.write(data)
            stream.flush()
            if n % 9 == 0:
                os.fsync(stream.fileno())
        if path.read_bytes() != data:
            bad.append(f"file {n} is damaged")
        beats["disk"] += 1


def be_busy() -> None:
    memory = bytearray(300_000)
    while not stop.is_set():
        n = beats["busy"]
        memory[n % len(memory)] = n & 255
        if memory[n % len(memory)] != n & 255:
            bad.append("memory is damaged")
        beats["busy"] += 1
        if n % 500 == 0:
            time.sleep(0)


def on_alarm(*_: object) -> None:
    beats["alarm"] += 1


class Family:
    """Children that use the same addresses for different contents, and check them on request."""

    def __init__(self) -> None:
        self.memory = bytearray(SIZE)
        self.children: list[tuple[int, int, int]] = []
        for number in range(1, CHILDREN + 1):
            asks, ask = os.pipe()
            answer, answers = os.pipe()
            pid = os.fork()
            if not pid:
                self.child(number, asks, answers)
            self.children.append((pid, ask, answer))
        self.memory[:] = b"\x77" * SIZE

    def child(self, number: int, asks: int, answers: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        expected = bytes([number]) * SIZE
        self.memory[:] = expected
        for n in range(1 << 30):
            if not os.read(asks, 1):
                break
            self.memory[n * 4099 % SIZE] = number
            os.write(answers, b"y" if self.memory == expected else b"n")
        os._exit(0)

    def ask(self) -> None:
        for _, ask, answer in self.children:
            os.write(ask, b"?")
            if os.read(answer, 1) != b"y":
                bad.append("a child's memory is damaged")
        if self.memory != b"\x77" * SIZE:
            bad.append("the parent's memory is damaged")

    def end(self) -> None:
        for pid, *_ in self.children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def go_on(family: Family) -> None:
    """Wait until everything has made progress."""
    before = dict(beats)
    while not all(beats[name] > before[name] + 3 for name in beats):
        family.ask()
        time.sleep(0.001)


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    threads = [threading.Thread(target=each) for each in (watch_clock, use_disk, be_busy)]
    for thread in threads:
        thread.start()
    family = Family()
    go_on(family)
    Path("/proc/nabla/snapshot").write_text("save\n")
    state = Path("/proc/nabla/snapshot").read_text().split()[1]
    go_on(family)
    stop.set()
    for thread in threads:
        thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    family.end()
    print(state, "; ".join(bad) or "good", secrets.token_hex(8))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
