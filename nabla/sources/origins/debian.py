# SPDX-License-Identifier: Apache-2.0
"""Files of Debian's archive, fetched by the host's apt from the host's mirror into private folders.

`obtain_source`: a file of a source package (the *.orig* tarball, upstream's signature). `obtain_deb`: a binary package,
or a tarball that no suite lists any longer, by its path in the pool. This needs no package lists: the recipe's sha256
replaces their chain of trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nabla.core import log
from nabla.core.errors import CommandError, FetchError
from nabla.core.progress import watch_folder
from nabla.sources import apt
from nabla.sources.origins import Delivery, Request
from nabla.sources.recipe import DebianOrigin, DebOrigin

_APT_HELPER = Path("/usr/lib/apt/apt-helper")


def obtain_source(origin: DebianOrigin, request: Request) -> Delivery:
    """Download one file of a source package, and its signature. Raises `FetchError`.

    The other files are not needed, and may be missing on the mirror.
    """
    packages = apt.source_packages(origin.suite, [origin.package], request.name)
    chosen = next((package for package in packages if package.version == origin.version), None)
    # A point release replaces the package and keeps upstream's tarball.
    chosen = chosen or next((package for package in packages if _holds(package, origin)), None)
    signature = origin.signature.file if origin.signature else None
    with watch_folder(request.name, request.folder, origin.size):
        _download_one(origin, origin.file, chosen, packages, request, origin.sha256)
        if signature:
            _download_one(origin, signature, chosen, packages, request)
    return Delivery(request.folder / origin.file, request.folder / signature if signature else None)


def _download_one(
    origin: DebianOrigin,
    name: str,
    chosen: apt.SourcePackage | None,
    packages: Sequence[apt.SourcePackage],
    request: Request,
    sha256: str | None = None,
) -> None:
    """Download one file of `chosen`, or a file that the pool still has although no list names it.

    The pool has the files of all suites, and mirrors keep them longer. The recipe's sha256 verifies the file.
    """
    target = request.folder / name
    if chosen is not None and name in chosen.files:
        _download(chosen.files[name].path, target, request, sha256)
        return
    try:
        _download(apt.pool_path(origin.package, name), target, request, sha256)
    except CommandError as error:
        if chosen is not None:
            present = ", ".join(sorted(chosen.files))
            raise FetchError(
                f"Debian's {origin.package} {chosen.version} contains no {name}, but {present}",
                "the pool does not have it, either",
            ) from error
        has = ", ".join(package.version for package in packages) or "none"
        bump = f"\nupdate: doit bump:{request.name} {packages[0].upstream}" if packages else ""
        raise FetchError(
            f"Debian's {origin.suite} has no source package {origin.package} {origin.version}",
            f"it has {has}; the pool no longer has {name}{bump}",
        ) from error
    log.info(f"{request.name}: {origin.suite} no longer lists {name}; it was in the pool")


def _holds(package: apt.SourcePackage, origin: DebianOrigin) -> bool:
    file = package.files.get(origin.file)
    return file is not None and file.sha256 == origin.sha256


def obtain_deb(origin: DebOrigin, request: Request) -> Delivery:
    """Download one file of the pool. Raises `FetchError`."""
    target = request.folder / origin.file
    with watch_folder(request.name, request.folder, origin.size):
        _download(origin.pool, target, request, origin.sha256)
    return Delivery(target)


def _download(path: str, target: Path, request: Request, sha256: str | None = None) -> None:
    """Download a file by its path in the archive; apt verifies `sha256`."""
    if not _APT_HELPER.exists():
        raise FetchError("apt-helper is missing: this host has no Debian package tools")
    expected = [f"SHA256:{sha256}"] if sha256 else []
    request.run([_APT_HELPER, "download-file", apt.mirror() + path, target, *expected])
