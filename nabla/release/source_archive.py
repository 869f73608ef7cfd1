# SPDX-License-Identifier: Apache-2.0
"""Write one archive with everything that a release is built from: `doit sources`.

    nabla-sources-<version>/build.sh       builds offline: `./build.sh [TASK…]`, by default the release
    nabla-sources-<version>/SHA256SUMS     sums of all other files
    nabla-sources-<version>/checkout/      the files of the commit: code, recipes, patches, locks
    nabla-sources-<version>/cache/sha256/  sources of all recipes, packages of the build roots; a name is its sha256
    nabla-sources-<version>/cache/wheels/  the Python packages of requirements.txt

The archive is a cache beside a checkout, so the build is the ordinary one. Its bytes depend on the commit, on the
origin of each source, and on the version of Python.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nabla.core import digest, files, log, version
from nabla.core.errors import NablaError
from nabla.core.paths import OUT, ROOT, cache_dir, relative
from nabla.core.process import run
from nabla.release import assembly
from nabla.sandbox import lockfile
from nabla.sources import fetch, recipe
from nabla.sources.store import cache
from verify.epoch import SOURCE_DATE_EPOCH
from verify.release.layout import SUMS

_PINS = (lockfile.BASE, lockfile.PACKAGING, lockfile.VARY)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_CACHES = ("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".import_linter_cache")
_PROGRAM = "build.sh"
_BUILD = """#!/bin/sh
# Builds offline from the files beside it: ./build.sh [TASK…], by default the release (docs/sources.md).
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
export NABLA_CACHE="$here/cache" NABLA_STORE=off {variables}
if [ $# = 0 ]; then set -- release; fi
exec "$here/checkout/doit.sh" --offline "$@"
"""


class SourceArchiveError(NablaError):
    """An input is missing or damaged."""


@dataclass(frozen=True)
class Member:
    """A file of the archive: its path below the top folder, its content, and whether it is executable or a link."""

    name: str
    path: Path | None = None
    data: bytes = b""
    program: bool = False
    link: str = ""

    @property
    def sha256(self) -> str:
        """The digest of its content."""
        return digest.sha256_bytes(self.data) if self.path is None else digest.sha256_file(self.path)


def write(folder: Path = OUT / "sources", only: Collection[str] | None = None) -> Path:
    """Write the archive; return its path. Raises `NablaError` if an input is missing or damaged.

    `only`: names of recipes; by default the sources of all are in the archive.
    """
    name = f"nabla-sources-{version.version()}"
    members = sorted((*_pinned(only), *_wheels(), *_checkout(), _program()), key=lambda each: each.name)
    sums = {each.name: each.sha256 for each in members if not each.link}
    members.append(Member(SUMS, data=assembly.sums(sums).encode()))
    files.make_folder(folder)
    target = folder / f"{name}.tar"
    partial = target.with_name(f".{target.name}.partial")
    try:
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
            for member in members:
                _add(archive, name, member)
        partial.rename(target)
    except OSError as error:
        files.raise_full(error, target)
    finally:
        partial.unlink(missing_ok=True)
    log.info(f"{relative(target)}: {len(members)} files, {target.stat().st_size / 1e6:.0f} MB")
    return target


def _pinned(only: Collection[str] | None) -> Iterator[Member]:
    """Yield the sources of the recipes and the packages of the build roots, each once."""
    wanted: dict[str, tuple[str, int | None]] = {}
    for name in recipe.names():
        for source in recipe.load(name).source if only is None or name in only else ():
            if source.local is None:
                origin = fetch.obtain(source).origin
                wanted[origin.sha256] = (f"the source {source.name}", origin.size)
    for pins in _PINS:
        for file in lockfile.read_lock(pins.lock).files:
            wanted[file.sha256] = (f"{file.name} {file.version}", file.size)
    for sha256, (title, size) in wanted.items():
        path = cache().path(sha256)
        if not path.exists() or cache().get(sha256, path.stat().st_size if size is None else size) is None:
            raise SourceArchiveError(f"{title} is not in the cache", "run `./doit.sh fetch` with a network")
        yield Member(f"cache/sha256/{sha256[:2]}/{sha256}", path)


def _wheels() -> Iterator[Member]:
    """Yield the Python packages, for the virtual environment."""
    present = {digest.sha256_file(path): path for path in (cache_dir() / "wheels").glob("*.whl")}
    for entry in _requirements((ROOT / "requirements.txt").read_text(encoding="utf-8")):
        fitting = [present[sha256] for sha256 in _HASH.findall(entry) if sha256 in present]
        if not fitting:
            name = entry.split("==")[0]
            raise SourceArchiveError(
                f"the Python package {name} is not in the cache", "rm -r out/venv && ./doit.sh list"
            )
        yield from (Member(f"cache/wheels/{path.name}", path) for path in fitting)


def _requirements(text: str) -> list[str]:
    """Return the entries of a file of requirements, with their hashes."""
    return re.findall(r"^[A-Za-z0-9][^\\\n]*(?:\\\n[^\\\n]*)*", text, re.MULTILINE)


def _checkout() -> Iterator[Member]:
    """Yield the files of this checkout that belong to the repository."""
    if version.is_modified():
        log.info("the checkout is modified: the archive has its changed files, and no untracked ones")
    for path in _committed():
        name = f"checkout/{path.relative_to(ROOT)}"
        if path.is_symlink():
            yield Member(name, link=os.readlink(path))
        elif path.is_file():
            yield Member(name, path, program=os.access(path, os.X_OK))


def _committed(root: Path = ROOT) -> list[Path]:
    """Return the files of the repository. Untracked files can be private, so they are left out."""
    if not version.has_history(root):
        # In an unpacked archive, the outputs of commands are left out.
        return [path for path in root.rglob("*") if not _is_written(path.relative_to(root).parts)]
    listed = run(["git", "-c", f"safe.directory={root}", "-C", root, "ls-files", "-z", "--cached"]).stdout
    return [root / name for name in listed.split("\0") if name]


def _is_written(parts: Sequence[str]) -> bool:
    return parts[0] == OUT.name or any(each in _CACHES or each.startswith(".doit.db") for each in parts)


def _program() -> Member:
    values: Mapping[str, str | None] = {"NABLA_VERSION": version.version(), "NABLA_COMMIT": version.commit()}
    variables = " ".join(f"{name}={value}" for name, value in values.items() if value)
    return Member(_PROGRAM, data=_BUILD.format(variables=variables).encode(), program=True)


def _add(archive: tarfile.TarFile, top: str, member: Member) -> None:
    info = tarfile.TarInfo(f"{top}/{member.name}")
    info.mtime, info.mode = SOURCE_DATE_EPOCH, 0o755 if member.program else 0o644
    if member.link:
        info.type, info.linkname = tarfile.SYMTYPE, member.link
        archive.addfile(info)
        return
    with io.BytesIO(member.data) if member.path is None else member.path.open("rb") as stream:
        info.size = len(member.data) if member.path is None else member.path.stat().st_size
        archive.addfile(info, stream)
