# SPDX-License-Identifier: Apache-2.0
"""Build the whole release from the archive of all sources, in an empty cache without a network, and compare every byte.

release, fetch -> check:sources -> out/check/sources.json

The build takes as long as the first one on a new machine. The result cache stores the outcome under the digests of the
archive and of the release.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from nabla.core import digest, files, version
from nabla.core.errors import CommandError, NablaError
from nabla.core.paths import OUT, ROOT, cache_dir, relative
from nabla.engine import result_cache
from nabla.engine.action import Job
from nabla.release import assembly, contents, source_archive
from verify.release.layout import SUMS, keys_dir

RECORD = OUT / "check" / "sources.json"
TIMEOUT = 6 * 3600.0  # seconds
_SHOWN = 10


class ArchiveCheckError(NablaError):
    """The archive does not build the release."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A passed check. `archive`, `sums`: sha256 of the archive and of the release's list of sums; `files`: compared."""

    version: str
    archive: str
    sums: str
    files: int


def check(job: Job) -> None:
    """Step: build the release from the archive alone. Raises `ArchiveCheckError` if a byte differs."""
    if version.is_modified():
        raise ArchiveCheckError("the checkout is modified: the archive would state another commit", "commit it first")
    folder = job.scratch()
    archive = source_archive.write(folder)
    release = contents.folder().path
    outcome = Outcome(
        version=version.version(),
        archive=digest.sha256_file(archive),
        sums=digest.sha256_file(release / SUMS),
        files=len(assembly.digests(release)),
    )
    record = job.out(RECORD)
    key = result_cache.key("release from the archive of sources", outcome.archive, outcome.sums)

    def build() -> Outcome:
        top = _build(job, archive, folder)
        _compare(release, top / "checkout" / release.relative_to(ROOT))
        return outcome

    result_cache.outcome(key, "the release, built from the archive of sources", record, Outcome, build)
    job.note(f"{outcome.version}: all {outcome.files} files of the release have the same bytes")


def _build(job: Job, archive: Path, folder: Path) -> Path:
    """Run the archive's build.sh without the user's cache and without a network; return its folder."""
    job.run(["tar", "-xf", archive, "-C", folder])
    archive.unlink()
    (top,) = folder.glob("nabla-sources-*/")
    home = folder / "home"
    files.make_folder(home)
    # A user namespace suffices. The keys are the user's: with others, the signatures differ.
    words = ["bwrap", "--unshare-net", "--dev-bind", "/", "/", "--tmpfs", str(cache_dir())]
    words += ["--clearenv", "--setenv", "PATH", os.environ["PATH"], "--setenv", "HOME", str(home)]
    words += ["--setenv", "TMPDIR", str(home), "--setenv", "NABLA_KEYS", str(keys_dir())]
    try:
        job.run([*words, "--", str(top / "build.sh"), "release"], timeout=TIMEOUT)
    except CommandError as error:
        raise ArchiveCheckError(f"the archive does not build the release ({error.message})", error.hint) from error
    return top


def _compare(release: Path, rebuilt: Path) -> None:
    own, other = assembly.digests(release), assembly.digests(rebuilt)
    different = sorted(name for name in own.keys() | other.keys() if own.get(name) != other.get(name))
    if different:
        shown = ", ".join(different[:_SHOWN])
        raise ArchiveCheckError(
            f"{len(different)} of {len(own)} files differ in the release from the archive",
            f"the first: {shown}; both folders are kept: {relative(release)}, {relative(rebuilt)}",
        )
