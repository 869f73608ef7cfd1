# SPDX-License-Identifier: Apache-2.0
"""Where everything lies. Nobody else joins these path strings; importing this module touches no file."""

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
INIT_SRC = ROOT / "init"
TESTS = ROOT / "tests"

# Outputs, never committed; `doit clean` may remove any of them.
OUT = ROOT / "out"
LOGS = OUT / "logs"
WORK = OUT / "work"
STORE = OUT / "store"
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

# The artifacts that other parts name.
VMLINUX = KERNEL / "vmlinux"
NABLA_RUN = BIN / "nabla-run"
NABLA_INIT = INIT / "nabla-init"
BUSYBOX_BIN = BUSYBOX / "bin" / "busybox"


def cache_dir() -> Path:
    """Return the user's cache directory for downloads.

    `$NABLA_CACHE`, else `$XDG_CACHE_HOME/nabla`, else `~/.cache/nabla`.

    It is shared by all checkouts of a user and survives `doit clean`. The directory need not exist yet.
    """
    explicit = os.environ.get("NABLA_CACHE")
    if explicit:
        return Path(explicit).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME")
    base = Path(xdg) if xdg and os.path.isabs(xdg) else Path.home() / ".cache"
    return base / "nabla"


def relative(path: Path) -> str:
    """Return `path` as text relative to the checkout where it lies inside it, for messages and records."""
    try:
        return str(path.relative_to(ROOT))
    except ValueError:
        return str(path)
