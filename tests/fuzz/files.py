# SPDX-License-Identifier: Apache-2.0
"""Damaged files for the build system and the checkers: each leads to a result or to their own error, soon.

Another exception, or an answer that takes longer than PATIENCE, is a finding.
"""

from __future__ import annotations

import io
import random
import signal
import subprocess
import tarfile
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType

from elftools.common.exceptions import ELFError

from nabla.core import toml
from nabla.core.errors import ConfigError, ImageError, RecipeError
from nabla.core.paths import NABLA_RUN, RECIPES, ROOTFS
from nabla.fs import nodes
from nabla.images import descriptions
from nabla.packages import elf
from nabla.packages.templates import survey
from nabla.sources import recipe
from verify import contents, entry, pie, syscalls

from .engine import Finding, Fuzzer

FILES = 200
PATIENCE = 60  # seconds of processor time
HEADERS = 4096


class _TooLong(BaseException):
    """Not an Exception: nothing under test may catch it."""


def _examine(name: str, seed: int, data: bytes, attempt: Callable[[Path], object], allowed: type[Exception]) -> str:
    """Return the problem with an answer; empty if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)

        def end(number: int, frame: FrameType | None) -> None:
            raise _TooLong

        before = signal.signal(signal.SIGVTALRM, end)
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
        try:
            attempt(path)
        except allowed:
            return ""
        except _TooLong:
            return f"mutant {seed} takes longer than {PATIENCE} s"
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return f"mutant {seed}: {type(error).__name__} in {frame.name}, {Path(frame.filename).name}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
    return ""


def damaged(good: bytes, draw: random.Random, start: int = 0) -> bytes:
    """Return a file with some changes, sometimes cut; `start`: where most of the structure lies, HEADERS long."""
    bad = bytearray(good)
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        near = draw.randrange(4)
        first = start if near else 0
        at = draw.randrange(first, min(len(bad), first + HEADERS if near else len(bad)))
        width = draw.choice([1, 1, 1, 2, 4, 8])
        value = draw.choice([bytes(width), b"\xff" * width, b"\x7f" * width, draw.randbytes(width)])
        bad[at : at + width] = value
    bad = bad[: len(good)]
    return bytes(bad[: draw.randrange(4, len(bad))] if draw.randrange(8) == 0 else bad)


@cache
def _programs() -> tuple[bytes, ...]:
    """Return the launcher, and its debug information, sections without content."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "debug")
        subprocess.run(["objcopy", "--only-keep-debug", NABLA_RUN, target], check=True)
        return (NABLA_RUN.read_bytes(), target.read_bytes())


def _check_elf(path: Path) -> None:
    data = path.read_bytes()
    for finding in (pie.examine_bytes("x", data), pie.examine(path)):
        assert finding.kind != "unknown" or finding.problems
    assert isinstance(syscalls.examine_bytes("x", data), syscalls.Finding)
    assert isinstance(entry.examine(path), entry.Finding)
    elf.dynamic(path)


def elves(seed: int) -> Finding | None:
    """Damaged programs for the checkers of ELF files."""
    for number in range(FILES):
        draw = random.Random(seed * FILES + number)
        good = draw.choice(_programs())
        sections = int.from_bytes(good[40:48], "little")
        bad = damaged(good, draw, draw.choice([0, 0, 0, min(sections, len(good) - 64)]))
        wrong = _examine("program", seed * FILES + number, bad, _check_elf, ELFError)
        if wrong:
            return Finding("elves", seed, wrong)
    return None


def _archive(draw: random.Random) -> tuple[str, bytes]:
    """Return a small archive of one of the kinds that are read, with names and links of all kinds."""
    kind = draw.choice(["tar", "tar.gz", "tar.xz", "tar.bz2", "zip"])
    buffer = io.BytesIO()
    names = ["configure", "COPYING", "dir/a", "dir/b", "dir/\udcff", "\u2028", "debian/control", "x" * 150]
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
            for name in names:
                info = zipfile.ZipInfo(name.replace("\udcff", "y"))
                info.external_attr = draw.choice([0o100644, 0o120777, 0o100755]) << 16
                archive.writestr(info, draw.randbytes(200))
        return "a.zip", buffer.getvalue()
    compression = kind.partition(".")[2]
    form = draw.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}", format=form) as tar:  # type: ignore[call-overload]
        for name in names:
            member = tarfile.TarInfo(f"top/{name}" if form != tarfile.USTAR_FORMAT else f"top/{name[:90]}")
            member.type = draw.choice([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE])
            member.linkname = f"top/{draw.choice(names[:3])}" if member.type != tarfile.REGTYPE else ""
            member.mtime = draw.choice([0, 1, 1_700_000_000, 1.5 if form == tarfile.PAX_FORMAT else 3])
            member.size = 300 if member.type == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(draw.randbytes(300)))
    return f"a.{kind}", buffer.getvalue()


def _read_archive(path: Path) -> None:
    for read in (lambda: nodes.read_archive(path, None), lambda: survey.read(path), lambda: contents.read(path)):
        try:
            read()
        except (ImageError, RecipeError, contents.ContentsError):
            continue


def archives(seed: int) -> Finding | None:
    """Damaged archives for images, for new recipes and for the checkers."""
    for number in range(FILES):
        draw = random.Random(seed * FILES + number)
        name, good = _archive(draw)
        wrong = _examine(name, seed * FILES + number, damaged(good, draw), _read_archive, ImageError)
        if wrong:
            return Finding("archives", seed, wrong)
    return None


def _damaged_text(good: bytes, draw: random.Random) -> bytes:
    """Return a TOML text with lines, values and characters that do not belong there."""
    lines = good.split(b"\n")
    pieces = [b"\xe2\x80\xa8", b"\x85", b"\r", b"\x0b", b'"""', b"'''", b"[", b"]]", b"=", b"\\u", b"\xff", b"\0", b"#"]
    pieces += [b"1979-05-27T07:32:00Z", b"inf", b"{a=1}", b"-1", b"true", b'"\\uD800"', b"9" * 400, b"[" * 400]
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(len(lines))
        kind = draw.randrange(5)
        if kind == 0:
            lines[at] = draw.choice(lines)
        elif kind == 1:
            del lines[at]
            lines = lines or [b""]
        elif kind == 2 and b"=" in lines[at]:
            lines[at] = lines[at].split(b"=")[0] + b"= " + draw.choice(pieces)
        else:
            column = draw.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:column] + draw.choice(pieces) + lines[at][column:]
    return draw.choice([b"\n", b"\n", b"\r\n"]).join(lines)


def _read_toml(path: Path) -> None:
    for read in (lambda: recipe.load_file(path), lambda: descriptions.load_file(path)):
        try:
            read()
        except (RecipeError, ImageError) as error:
            assert "\n" not in error.message
    toml.read(path, ConfigError)


def descriptions_(seed: int) -> Finding | None:
    """Damaged recipes and image descriptions."""
    good = sorted([*RECIPES.glob("*/recipe.toml"), *ROOTFS.glob("*.toml")])
    for number in range(FILES):
        draw = random.Random(seed * FILES + number)
        bad = _damaged_text(draw.choice(good).read_bytes(), draw)
        wrong = _examine("recipe.toml", seed * FILES + number, bad, _read_toml, ConfigError)
        if wrong:
            return Finding("descriptions", seed, wrong)
    return None


FUZZERS = (
    Fuzzer("elves", "ELF files for the checkers", FILES, elves),
    Fuzzer("archives", "archives", FILES, archives),
    Fuzzer("descriptions", "recipes and image descriptions", FILES, descriptions_),
)
