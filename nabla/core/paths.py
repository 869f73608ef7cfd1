# SPDX-License-Identifier: Apache-2.0
"""The paths of inputs and outputs. Importing this module touches no file."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Inputs, all committed.
RECIPES = ROOT / "recipes"
KEYS = RECIPES / "keys"
PATCHES = ROOT / "patches"
KERNEL_CONFIG = ROOT / "kernel-config"
TOOLCHAIN = ROOT / "toolchain"
ROOTFS = ROOT / "rootfs"
LAUNCHER_SRC = ROOT / "launcher"
OCI_SRC = ROOT / "oci"
PYTHON_PACKAGE = ROOT / "python" / "nabla_linux"
TESTS = ROOT / "tests"

# Outputs, never committed; `doit clean` may remove any of them.
OUT = ROOT / "out"
LOGS = OUT / "logs"
WORK = OUT / "work"
STATE = OUT / "state"
IMAGES = OUT / "images"
BIN = OUT / "bin"
KERNEL = OUT / "kernel"
MUSL = OUT / "musl"
BUSYBOX = OUT / "busybox"
INIT = OUT / "init"
GUEST_TESTS = OUT / "guest-tests"
APK = OUT / "apk"
BUILT = OUT / "packages"
VENV = OUT / "venv"

# Artifacts.
VMLINUX = KERNEL / "vmlinux"
NABLA_RUN = BIN / "nabla-run"
NABLA_OCI = BIN / "nabla-oci"
NABLA = BIN / "nabla"
NABLA_INIT = INIT / "nabla-init"
BUSYBOX_BIN = BUSYBOX / "bin" / "busybox"


def cache_dir() -> Path:
    """Return the user's cache: `$NABLA_CACHE`, else `$XDG_CACHE_HOME/nabla`, else `~/.cache/nabla`.

    All checkouts of a user share it, and `doit clean` does not remove it. It need not exist.
    """
    explicit = os.environ.get("NABLA_CACHE")
    if explicit:
        return Path(explicit).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME")
    base = Path(xdg) if xdg and os.path.isabs(xdg) else Path.home() / ".cache"
    return base / "nabla"


def relative(path: Path) -> str:
    """Return a path relative to the checkout, or else absolute, for messages and records."""
    try:
        return str(path.relative_to(ROOT))
    except ValueError:
        return str(path)
