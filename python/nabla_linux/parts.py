# SPDX-License-Identifier: Apache-2.0
"""What a wheel carries, in the folder `parts` of the package, and the folder of files that are made from it."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from pathlib import Path

from .errors import SandboxError, StartError

FOLDER = Path(__file__).resolve().parent / "parts"
NAME = "python.ext3"
PIECE = 1 << 16


def cache_folder() -> Path:
    """Return a folder that belongs to this user alone: `$XDG_CACHE_HOME/nabla-linux`. Raises `SandboxError`."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nabla-linux"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise SandboxError(f"{folder}: other users have access to it; remove it")
    return folder


def nabla_run(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the launcher: the given one, else $NABLA_RUN, the package's own, the one on PATH. Raises `StartError`."""
    explicit = given or os.environ.get("NABLA_RUN")
    if explicit:
        return Path(explicit)
    own = FOLDER / "nabla-run"
    program = str(own) if own.exists() else shutil.which("nabla-run")
    if not program:
        raise StartError("nabla-run is neither in the package nor on PATH; set NABLA_RUN to its path")
    return Path(program)


def image() -> Path:
    """Return the image of the package; the first call unpacks it. Raises `StartError` if there is none."""
    packed = FOLDER / f"{NAME}.gz"
    if not packed.exists():
        raise StartError("the package carries no image; give the path of one")
    target = cache_folder() / f"{(FOLDER / f'{NAME}.sha256').read_text()[:32]}.ext3"
    if not target.exists():
        _unpack(packed, target)
    return target


def _unpack(packed: Path, target: Path) -> None:
    """Write the image with holes; others that do the same at the same time get the same file."""
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as new:
        try:
            with gzip.open(packed) as stream:
                while piece := stream.read(PIECE):
                    if piece.count(0) == len(piece):
                        new.seek(len(piece), os.SEEK_CUR)
                    else:
                        new.write(piece)
            new.truncate()
            new.flush()
            os.fchmod(new.fileno(), 0o400)
            os.rename(new.name, target)
        except BaseException:
            os.unlink(new.name)
            raise
