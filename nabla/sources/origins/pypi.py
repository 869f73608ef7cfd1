# SPDX-License-Identifier: Apache-2.0
"""Wheels of the Python package index, fetched by pip with the user's index, proxy and certificates."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from nabla.core.errors import FetchError
from nabla.core.process import run
from nabla.core.progress import watch_folder
from nabla.sources.origins import Delivery, Request
from nabla.sources.recipe import PypiOrigin


def obtain(origin: PypiOrigin, request: Request) -> Delivery:
    """Download one wheel, of any Python version and platform. Raises `FetchError`."""
    wanted = request.folder / "requirements.txt"
    # With a hash, pip accepts no other file of that version.
    wanted.write_text(f"{origin.package}=={origin.version} --hash=sha256:{origin.sha256}\n")
    file = _download(["--require-hashes", "--requirement", wanted], origin, request)
    if file.name != origin.file:
        raise FetchError(f"pip delivered {file.name} instead of {origin.file}")
    return Delivery(file)


def _download(wanted: Sequence[str | Path], origin: PypiOrigin, request: Request) -> Path:
    files = request.folder / "files"
    files.mkdir()
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    argv += ["--disable-pip-version-check", "--progress-bar=off", *platform_options(origin.file)]
    # pip downloads to the temporary folder: the cache's disk has room, and the progress bar watches this folder.
    with watch_folder(request.name, request.folder, origin.size):
        request.run([*argv, "--dest", files, *wanted], env={"TMPDIR": str(request.folder)})
    return next(files.iterdir())


def versions(origin: PypiOrigin) -> list[str]:
    """Return the versions with a wheel for the same Python and platform, newest first. Raises `CommandError`."""
    argv = [sys.executable, "-m", "pip", "index", "versions", "--json", "--disable-pip-version-check"]
    listed: list[str] = json.loads(run([*argv, *platform_options(origin.file), origin.package]).stdout)["versions"]
    return listed


def newer_wheel(origin: PypiOrigin, version: str, request: Request) -> Path:
    """Download the wheel of another version for the same Python and platform. Raises `FetchError`.

    pip compares it with the index only; the caller pins it.
    """
    return _download([f"{origin.package}=={version}"], origin, request)


def platform_options(wheel: str) -> list[str]:
    """Return the options that make pip accept a wheel for another Python version or C library."""
    parts = re.fullmatch(
        r"(?P<name>.+?)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<os>[^-]+)\.whl", wheel
    )
    if parts is None:
        raise FetchError(f"{wheel} is not the file name of a wheel")
    options = ["--only-binary=:all:"]
    python = re.fullmatch(r"(?P<kind>cp|py)(?P<digits>\d+)", parts["python"].split(".")[-1])
    if python is None:
        raise FetchError(f"{wheel}: unknown Python tag {parts['python']}")
    options += ["--implementation", python["kind"], "--abi", parts["abi"]]
    if len(python["digits"]) > 1:
        options += ["--python-version", python["digits"]]
    for name in parts["os"].split("."):
        options += ["--platform", name]
    return options
