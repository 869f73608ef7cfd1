# SPDX-License-Identifier: Apache-2.0
"""Start a VM: `doit boot`, `doit boot:minimal`, `doit boot --memory 1G -- COMMAND…`.

`doit boot --net user --publish 8080:80` adds a network; `-o '--user nobody --timeout 60'` passes other options to
nabla-run, split as by a shell.

The VM writes to out/run/<name>.ext3, a copy of the built image; the image itself never changes. A rebuilt image is
copied again, and the previous copy is renamed and kept once. `--ephemeral` discards all changes. Without a terminal and
without a command, the guest prints a description of itself and discards all changes, too.
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

# A shell script for every image; it skips missing programs.
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

    Each item of `option` contains options of nabla-run in the syntax of a shell. Raises `CommandError` if the VM cannot
    run, or if the command fails.
    """
    unattended = not (sys.stdin.isatty() and sys.stdout.isatty()) and not words
    image = image_path(name)
    if unattended:
        words = ["/bin/sh", "-c", _DESCRIBE]
    if not (unattended or ephemeral):
        image = writable_copy(image, RUN)
    sys.stdout.flush()
    status = process.interactive(command(image, memory, unattended or ephemeral, words, net, publish, option))
    # The status of the last command of an interactive session is not an error.
    if status == LAUNCHER_FAILED or (words and status != 0):
        raise CommandError(f"the virtual machine ended with status {status}", "the lines above show the reason")


def command(
    image: Path,
    memory: str,
    ephemeral: bool,
    words: Sequence[str],
    net: str = "",
    publish: Sequence[str] = (),
    option: Sequence[str] = (),
) -> list[str | Path]:
    """Return the command that runs nabla-run on an image. Raises `CommandError` if `option` is malformed."""
    argv: list[str | Path] = [NABLA_RUN, "--memory", memory, "--kernel", VMLINUX]
    if net:
        argv += ["--net", net]
    for ports in publish:
        argv += ["--publish", ports]
    for text in option:
        argv += _split(text)
    if ephemeral:
        argv.append("--ephemeral")
    return [*argv, image, *(["--", *words] if words else [])]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise CommandError(f"--option {text!r}: {error}", "quote it as for a shell: -o '--user nobody'") from None


def writable_copy(image: Path, folder: Path) -> Path:
    """Return the writable copy of an image; copies the image if it is new."""
    copy, record = folder / image.name, folder / f"{image.name}.made-from"
    sha256 = digest.sha256_file(image)
    if copy.exists() and record.exists() and record.read_text().strip() == sha256:
        return copy
    files.make_folder(folder)
    if copy.exists():
        old = copy.with_name(f"{image.stem}.old{image.suffix}")
        copy.rename(old)
        log.info(f"{image.name} was rebuilt; your changes to the previous one are in {relative(old)}")
    partial = copy.with_name(f".{copy.name}.partial")
    copy_sparse(image, partial)
    partial.rename(copy)
    record.write_text(sha256 + "\n")
    return copy


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file and preserve its holes. Raises `DiskFullError`, OSError."""
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
    """Return the start of the next data at or after `at`; the size of the file if there is none."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError:  # ENXIO: only a hole is left
        return size
