# SPDX-License-Identifier: Apache-2.0
"""Wheels of the Python package index, fetched by pip: index, proxy, certificates come from the user's pip settings."""

from __future__ import annotations

import re
import sys

from nabla.errors import FetchError
from nabla.origins import Delivery, Request
from nabla.recipe import PypiOrigin
from nabla.transfer import watch_folder


def obtain(origin: PypiOrigin, request: Request) -> Delivery:
    """Download exactly the wheel named, for whatever Python and platform it is. Raises `FetchError`."""
    wanted = request.folder / "requirements.txt"
    # With its hash given, pip takes no other file of that version.
    wanted.write_text(f"{origin.package}=={origin.version} --hash=sha256:{origin.sha256}\n")
    files = request.folder / "files"
    files.mkdir()
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    argv += ["--disable-pip-version-check", "--progress-bar=off", *platform_options(origin.file)]
    # pip collects in the temporary folder: on the cache's disk there is room, and the bar sees it.
    with watch_folder(request.name, request.folder, origin.size):
        request.run([*argv, "--dest", files, "--requirement", wanted], env={"TMPDIR": str(request.folder)})
    file = files / origin.file
    if not file.is_file():
        raise FetchError(f"pip delivered {', '.join(path.name for path in files.iterdir())} instead of {origin.file}")
    return Delivery(file)


def platform_options(wheel: str) -> list[str]:
    """Return the pip options that make it accept a wheel for another Python or C library than its own."""
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
