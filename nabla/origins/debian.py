# SPDX-License-Identifier: Apache-2.0
"""Files of Debian's archive, fetched by the host's apt from the host's own mirror into private folders.

`obtain_source`: a file of a source package (its *.orig* tarball, upstream's signature). `obtain_deb`: a binary package,
or a tarball that no suite names any more, by its path in the pool; that needs no package lists: the recipe's sha256
stands for their chain of trust.
"""

from __future__ import annotations

from pathlib import Path

from nabla import apt
from nabla.errors import FetchError
from nabla.origins import Delivery, Request
from nabla.recipe import DebianOrigin, DebOrigin
from nabla.transfer import watch_folder

_APT_HELPER = Path("/usr/lib/apt/apt-helper")


def obtain_source(origin: DebianOrigin, request: Request) -> Delivery:
    """Download the one file wanted of a source package, and its signature. Raises `FetchError`.

    The others are of no use here, and a mirror may have lost one of them.
    """
    packages = apt.source_packages(origin.suite, [origin.package], request.name)
    chosen = next((package for package in packages if package.version == origin.version), None)
    # A point release replaces the package and keeps upstream's tarball.
    chosen = chosen or next((package for package in packages if _holds(package, origin)), None)
    if chosen is None:
        has = ", ".join(package.version for package in packages) or "none"
        raise FetchError(
            f"Debian's {origin.suite} has no source package {origin.package} {origin.version}", f"it has {has}"
        )
    files = chosen.files
    signature = origin.signature.file if origin.signature else None
    for name in filter(None, (origin.file, signature)):
        if name not in files:
            present = ", ".join(sorted(files))
            raise FetchError(f"Debian's {origin.package} {chosen.version} holds no {name}, but {present}")
    with watch_folder(request.name, request.folder, origin.size):
        _download(files[origin.file].path, request.folder / origin.file, request, origin.sha256)
        if signature:
            _download(files[signature].path, request.folder / signature, request)
    return Delivery(request.folder / origin.file, request.folder / signature if signature else None)


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
    """Download a file by its path in the archive; apt refuses another content than that of `sha256`."""
    if not _APT_HELPER.exists():
        raise FetchError("apt-helper is missing, a part of apt: this host has no Debian package tools")
    expected = [f"SHA256:{sha256}"] if sha256 else []
    request.run([_APT_HELPER, "download-file", apt.mirror() + path, target, *expected])
