# SPDX-License-Identifier: Apache-2.0
"""Files of Debian's archive, fetched by the host's apt from the host's own mirror into private folders.

`obtain_source`: a file of a source package (its *.orig* tarball, upstream's signature). `obtain_deb`: a binary package
by its path in the pool, which needs no package lists: the recipe's sha256 stands for their chain of trust.
"""

from __future__ import annotations

from pathlib import Path

from nabla import apt, store
from nabla.errors import FetchError
from nabla.origins import Delivery, Request
from nabla.paths import cache_dir
from nabla.recipe import DebianOrigin, DebOrigin
from nabla.transfer import watch_folder

_APT_HELPER = Path("/usr/lib/apt/apt-helper")


def obtain_source(origin: DebianOrigin, request: Request) -> Delivery:
    """Download a source package without unpacking it and deliver the one file wanted. Raises `FetchError`."""
    archive = apt.Apt(cache_dir() / "apt" / f"{origin.suite}-src", origin.suite, kind="deb-src")
    with store.lock(archive.directory / "lock", f"{request.name}: waiting for another apt"):
        archive.update()
        with watch_folder(request.name, request.folder, origin.size):
            archive.download_source(origin.package, origin.version, request.folder)
    file = request.folder / origin.file
    if not file.is_file():
        present = ", ".join(sorted(path.name for path in request.folder.iterdir()))
        raise FetchError(f"Debian's {origin.package} {origin.version} holds no {origin.file}, but {present}")
    signature = origin.signature.file if origin.signature else None
    return Delivery(file, request.folder / signature if signature else None)


def obtain_deb(origin: DebOrigin, request: Request) -> Delivery:
    """Download one binary package. Raises `FetchError`."""
    if not _APT_HELPER.exists():
        raise FetchError("apt-helper is missing, a part of apt: this host has no Debian package tools")
    target = request.folder / origin.file
    with watch_folder(request.name, request.folder, origin.size):
        request.run([_APT_HELPER, "download-file", apt.mirror() + origin.pool, target, f"SHA256:{origin.sha256}"])
    return Delivery(target)
