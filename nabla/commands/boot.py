# SPDX-License-Identifier: Apache-2.0
"""Start the virtual machine: `doit boot`, `doit boot:minimal`, `doit boot --memory 1G -- COMMAND…`.

`doit boot --net user --publish 8080:80` gives it a network; `-o '--user nobody --timeout 60'` hands any other options
on to nabla-run, as a shell would split them.

What is done inside is kept in out/run/<name>.ext3, a copy of the built image; the image itself never changes. A rebuilt
image makes a new copy, the old one stays beside it for one generation. `--ephemeral` keeps nothing. Without a terminal
and without a command the guest describes itself, likewise without keeping anything.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from nabla.core import digest, files, log, process
from nabla.core.artifacts import image_path
from nabla.core.errors import CommandError
from nabla.core.paths import NABLA_RUN, OUT, VMLINUX, relative

RUN = OUT / "run"
DEFAULT = "base"
LAUNCHER_FAILED = 125
_CHUNK = 1 << 20

# Plain shell that every image of ours can run; programs that it lacks are left out.
_DESCRIBE = """
echo "system:  $(uname -srmo) on $(hostname)"
echo "memory:  $(grep -E '^(MemTotal|MemAvailable)' /proc/meminfo | tr -s ' ' | tr '\\n' ' ')"
echo "command line: $(cat /proc/cmdline)"
echo "mounts:"
while read -r device where type rest; do echo "  $where $type ($device)"; done </proc/mounts
echo "programs:"
for program in 'busybox --help' 'curl --version' 'apk --version' 'python3 --version'; do
    command -v "${program%% *}" >/dev/null && echo "  $($program 2>&1 | head -n 1)"
done
read -r up idle </proc/uptime
echo "up for $up s"
"""

PARAMS = [
    {"name": "memory", "short": "m", "long": "memory", "type": str, "default": "256M", "help": "memory of the guest"},
    {"name": "ephemeral", "long": "ephemeral", "type": bool, "default": False, "help": "keep no changes"},
    {"name": "net", "long": "net", "type": str, "default": "", "help": "network of the guest: user, tap=INTERFACE"},
    {"name": "publish", "long": "publish", "type": list, "default": [], "help": "[ADDRESS:]PORT:GUEST-PORT[/udp]"},
    {"name": "option", "short": "o", "long": "option", "type": list, "default": [], "help": "options of nabla-run"},
]


def boot(
    name: str,
    memory: str,
    ephemeral: bool,
    words: list[str],
    net: str = "",
    publish: Sequence[str] = (),
    option: Sequence[str] = (),
) -> None:
    """Run the launcher on the caller's terminal until the guest ends.

    Each of `option` holds options of nabla-run as they would stand on a shell's command line. Raises `CommandError`
    when the machine could not run, or the command that was asked for failed.
    """
    alone = not (sys.stdin.isatty() and sys.stdout.isatty()) and not words
    image = image_path(name)
    if alone:
        words = ["/bin/sh", "-c", _DESCRIBE]
    if not (alone or ephemeral):
        image = own_copy(image, RUN)
    sys.stdout.flush()
    status = process.interactive(command(image, memory, alone or ephemeral, words, net, publish, option))
    # What the last command of somebody's session left is not a failure of ours.
    if status == LAUNCHER_FAILED or (words and status != 0):
        raise CommandError(f"the virtual machine ended with status {status}", "the lines above say why")


def command(
    image: Path,
    memory: str,
    ephemeral: bool,
    words: Sequence[str],
    net: str = "",
    publish: Sequence[str] = (),
    option: Sequence[str] = (),
) -> list[str | Path]:
    """Return the words that start nabla-run on an image. Raises `CommandError` when `option` is no shell line."""
    line: list[str | Path] = [NABLA_RUN, "--memory", memory, "--kernel", VMLINUX]
    if net:
        line += ["--net", net]
    for ports in publish:
        line += ["--publish", ports]
    for text in option:
        line += _split(text)
    if ephemeral:
        line.append("--ephemeral")
    return [*line, image, *(["--", *words] if words else [])]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise CommandError(f"--option {text!r}: {error}", "quote it as for a shell: -o '--user nobody'") from None


def own_copy(image: Path, folder: Path) -> Path:
    """Return the copy of an image that a user may write to, made when absent or when the image is another one now."""
    copy, record = folder / image.name, folder / f"{image.name}.made-from"
    now = digest.sha256_file(image)
    if copy.exists() and record.exists() and record.read_text().strip() == now:
        return copy
    files.make_folder(folder)
    if copy.exists():
        old = copy.with_name(f"{image.stem}.old{image.suffix}")
        copy.rename(old)
        log.info(f"{image.name} was rebuilt; what you changed in the last one is in {relative(old)}")
    partial = copy.with_name(f".{copy.name}.partial")
    copy_sparse(image, partial)
    partial.rename(copy)
    record.write_text(now + "\n")
    return copy


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file without turning its holes into zeros on the disk. Raises `DiskFullError`, OSError."""
    try:
        with source.open("rb") as reader, target.open("wb") as writer:
            size = os.fstat(reader.fileno()).st_size
            end = 0
            while (begin := _next_data(reader.fileno(), end, size)) < size:
                end = os.lseek(reader.fileno(), begin, os.SEEK_HOLE)
                for at in range(begin, end, _CHUNK):
                    data = os.pread(reader.fileno(), min(_CHUNK, end - at), at)
                    writer.seek(at)
                    writer.write(data)
            writer.truncate(size)
    except OSError as error:
        target.unlink(missing_ok=True)
        files.raise_full(error, target)


def _next_data(descriptor: int, at: int, size: int) -> int:
    """Return where the next data begins at or behind `at`; the file's size when there is none."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError:  # ENXIO: only a hole is left
        return size
