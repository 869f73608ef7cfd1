# SPDX-License-Identifier: Apache-2.0
"""Lists of pages and headers of snapshots that nobody saved, in whole VMs.

The kernel reads both before the VM is confined. Whatever the list says, the VM answers as if there were none, and the
host provides at most as many pages as a list may have, all of them in the VM's memory. Whatever the header says, apart
from registers, which make a hostile guest, the VM answers or is refused in one line.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nabla.core.paths import IMAGES, NABLA_RUN
from tests.integration import confined, saved

from .engine import FAILED, Finding, Fuzzer

IMAGE = IMAGES / "minimal.ext3"
VMS = 40  # of a round
TRACED = 8  # one of so many VMs runs under strace
MEMORY = 64 << 20
PAGES = MEMORY // saved.PAGE
MOST = 2048  # pages of a list, UM_HOT_PAGES
SLACK_KIB = 4096
LIMIT = 120
OPTIONS = ("--memory", "64M", "--ephemeral", "--json")
SCRIPT = "nabla-snapshot; ls /bin | wc -l; echo x >/tmp/x; cat /tmp/x"
POPULATED = re.compile(r"madvise\((0x[0-9a-f]+), (\d+), (?:MADV_POPULATE_WRITE|0x17)")


@dataclass(frozen=True)
class End:
    """How a VM ended: its status, its output, nabla-run's messages, its peak memory in KiB (0: it did not start)."""

    status: int
    output: str
    errors: list[str]
    peak: int


def start(file: Path, *prefix: str | Path) -> End:
    """Start a VM from a snapshot. Raises `subprocess.TimeoutExpired`."""
    words: list[str | Path] = [*prefix, NABLA_RUN, *OPTIONS, "--restore", file, IMAGE]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=LIMIT, cwd=file.parent
    )
    errors = done.stderr.decode(errors="replace").splitlines()
    report = json.loads(errors.pop()) if errors and errors[-1].startswith("{") else {}
    return End(done.returncode, done.stdout.decode(errors="replace"), errors, int(report.get("peak_memory_kib") or 0))


def first_page() -> int:
    """Return the first page of the kernel's data: a list may not name earlier ones."""
    return (confined.symbols()["_sdata"] - confined.BASE) // saved.PAGE


def draw_range(draw: random.Random) -> tuple[int, int]:
    """Return a page and a count, most often near a bound."""
    first = first_page()
    pages = [0, 1, first - 1, first, PAGES - 2, PAGES - 1, PAGES, 1 << 20, (1 << 32) - 1, draw.randrange(first, PAGES)]
    page = draw.choice([*pages, draw.randrange(first, PAGES), draw.randrange(1 << 32)])
    counts = [0, 1, 1, 2, 16, MOST - 1, MOST, MOST + 1, PAGES - page, PAGES - page + 1, (1 << 32) - page, (1 << 32) - 1]
    return page, draw.choice(counts) % (1 << 32)


def draw_good(draw: random.Random) -> list[tuple[int, int]]:
    """Return ranges within memory, at times one page more than there may be."""
    ranges: list[tuple[int, int]] = []
    left = draw.choice([1, 40, MOST, MOST, MOST + 1])
    for _ in range(draw.randrange(1, saved.HOT_RANGES + 1)):
        count = min(draw.choice([0, 1, 1, 2, 8, left if draw.randrange(9) == 0 else 3]), left)
        ranges.append((draw.choice([first_page(), PAGES - count, draw.randrange(first_page(), PAGES - count)]), count))
        left -= count
    return ranges


def draw_list(draw: random.Random, sound: bytes) -> bytes:
    """Return a page with a list: a new one, or a sound one with other words."""
    kind = draw.randrange(4)
    if kind < 2:
        return saved.hot_list(*draw_good(draw))
    if kind == 2:
        number = draw.choice([0, 1, 1, 2, 3, 10, saved.HOT_RANGES])
        claim = draw.choice([number] * 4 + [saved.HOT_RANGES, saved.HOT_RANGES + 1, 0x80000000, 0xFFFFFFFF])
        return saved.hot_list(*[draw_range(draw) for _ in range(number)], count=claim)
    page = bytearray(sound)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.choice([0, 4, 8, 12, *[draw.randrange(4, 256) * 4] * 4])
        word = draw.choice([draw.choice(draw_range(draw)), draw.randrange(1 << 32)])
        page[at : at + 4] = struct.pack("<I", word)
    return bytes(page)


def draw_header(draw: random.Random, sound: bytes) -> bytes:
    """Return a header with other words, but the same registers."""
    page = bytearray(sound)
    width = 8
    for _ in range(draw.choice([1, 1, 2, 4])):
        at = draw.randrange(saved.HEADER // width) * width
        (old,) = struct.unpack_from("<Q", page, at)
        numbers = [
            0,
            1,
            old + 1,
            old - 1,
            old * 2,
            old ^ 1 << draw.randrange(64),
            MEMORY,
            1 << 63,
            -1,
            draw.getrandbits(64),
        ]
        struct.pack_into("<Q", page, at, draw.choice(numbers) % (1 << 64))
    page[saved.RESUME_AT : saved.DISKS_AT] = sound[saved.RESUME_AT : saved.DISKS_AT]
    return bytes(page)


def is_list(page: bytes) -> bool:
    """Return whether a list is one that the kernel has to follow; written from its description."""
    magic, number, _ = struct.unpack_from("<QII", page)
    if magic != saved.HOT_MAGIC or number > saved.HOT_RANGES:
        return False
    ranges = list(struct.iter_unpack("<II", page[16 : 16 + 8 * number]))
    inside = all(first_page() <= page and page + count <= PAGES for page, count in ranges)
    return inside and sum(count for _, count in ranges) <= MOST


def populated(trace: str) -> list[tuple[int, int]]:
    """Return the pages, and how many each time, that the host was asked for before the filter was installed."""
    before, _ = trace.split("seccomp(SECCOMP_SET_MODE_FILTER", 1)
    calls = [(int(at, 16) - confined.BASE, int(length)) for at, length in POPULATED.findall(before)]
    return [(at // saved.PAGE, length // saved.PAGE) for at, length in calls]


def check_trace(page: bytes, folder: Path) -> str | None:
    """Say what is wrong with the calls of a VM that strace has recorded in a folder."""
    (trace,) = (text for path in folder.iterdir() if "restore=fd:" in (text := path.read_text(errors="replace")))
    number = struct.unpack_from("<I", page, 8)[0] if is_list(page) else 0
    asked = list(struct.iter_unpack("<II", page[16 : 16 + 8 * number]))
    return None if populated(trace) == asked else f"populated {populated(trace)[:9]}, but the list has {asked[:9]}"


def check_list(sound: End, end: End) -> str | None:
    """Say what is wrong with the end of a VM whose list of pages is damaged."""
    if (end.status, end.output, end.errors) != (sound.status, sound.output, sound.errors):
        return f"status {end.status}, {end.output!r}, {end.errors}"
    most = sound.peak + MOST * saved.PAGE // 1024 + SLACK_KIB
    return None if end.peak <= most else f"{end.peak} KiB of memory, at most {most} are possible"


def check_header(sound: End, end: End) -> str | None:
    """Say what is wrong with the end of a VM whose header is damaged."""
    refused = end.status == FAILED and not end.output and len(end.errors) == 1
    if refused and end.errors[0].startswith(("nabla-run: ", "vmlinux: ")):
        return None
    same = (end.status, end.output, end.errors) == (sound.status, sound.output, sound.errors)
    return None if same else f"status {end.status}, {end.output!r}, {end.errors}"


def overwrite(file: Path, at: int, page: bytes) -> None:
    """Replace a page of a file."""
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(page)


def _one(draw: random.Random, file: Path, sound: End, pages: dict[int, bytes], trace: bool) -> str | None:
    """Damage a snapshot, start a VM from it, and undo the damage."""
    listed = draw.randrange(3) > 0
    at, invent, check = (saved.HOT_AT, draw_list, check_list) if listed else (0, draw_header, check_header)
    page = invent(draw, pages[at])
    overwrite(file, at, page)
    try:
        if not (trace and listed):
            return check(sound, start(file))
        with tempfile.TemporaryDirectory() as folder:
            strace = confined.tracer(shutil.which("strace") or "strace")
            end = start(
                file, *strace, "-f", "-ff", "-e", "trace=execve,execveat,madvise,seccomp", "-o", f"{folder}/log"
            )
            return check_list(sound, end) or check_trace(page, Path(folder))
    except subprocess.TimeoutExpired:
        return "it does not end"
    finally:
        overwrite(file, at, pages[at])


def lists(seed: int) -> Finding | None:
    """Some VMs, one after the other, from one snapshot with damaged lists and headers."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "one.snap")
        options = ("--memory", "64M", "--ephemeral", "--snapshot", file, "--snapshot-then-exit")
        subprocess.run(
            [NABLA_RUN, *options, IMAGE, "--", "/bin/sh", "-c", SCRIPT], stdin=subprocess.DEVNULL, check=True
        )
        # A sound list for it, of pages that it really has.
        overwrite(file, saved.HOT_AT, saved.hot_list(*[(first_page() + 3 * n, 1 + n % 2) for n in range(200)]))
        data = file.read_bytes()
        pages = {at: data[at : at + saved.PAGE] for at in (0, saved.HOT_AT)}
        sound = start(file)
        if sound.status or not sound.output.startswith("restored\n") or sound.errors:
            return Finding("lists", seed, f"the sound one: {sound}")
        for number in range(VMS):
            wrong = _one(draw, file, sound, pages, number % TRACED == 0)
            if wrong:
                return Finding("lists", seed, f"VM {number}: {wrong}")
    return None


FUZZERS = (Fuzzer("lists", "lists and headers", VMS, lists),)
