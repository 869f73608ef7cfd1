# SPDX-License-Identifier: Apache-2.0
"""The layout of a release, which nabla/release writes and verify/release checks (docs/release.md)."""

from __future__ import annotations

import os
import re
from pathlib import Path

SUMS = "SHA256SUMS"
SIGNATURE = f"{SUMS}.sig"
STATEMENT = "provenance/nabla.intoto.json"
IMAGE_SUMS = "images/SHA256SUMS"
SIGNERS = "keys/allowed_signers"
VMLINUX = "kernel/vmlinux"
PROGRAMS = ("bin/nabla-run", "bin/nabla", "bin/nabla-oci", VMLINUX)
REPOSITORY = "apk/x86_64"
INDEX = f"{REPOSITORY}/Packages.adb"
PACKAGE_KEY = "keys/nabla.rsa.pub"
SPDX = "sbom/nabla.spdx.json"
CYCLONEDX = "sbom/nabla.cdx.json"
OPENVEX = "vex/nabla.openvex.json"
VEX_CYCLONEDX = "vex/nabla.cdx.json"
OCI_LAYOUT = "oci/layout"
OCI_ARCHIVE = "oci/nabla-linux.oci.tar"
REPORT = "report/index.html"

# The user's keys.
SIGNING_KEY = "nabla.ed25519"
SIGNER = "nabla"  # the identity of the key in a file of allowed signers
NAMESPACE = "file"  # OpenSSH's namespace for signatures of files

# Below the checkout: roots of sandboxes with the real apk and e2fsprogs, created by `doit apk:tools rootfs:tools`.
APK_TOOLS = "out/work/apk-tools"
IMAGE_TOOLS = "out/work/image-tools"

_SUM = re.compile(r"([0-9a-f]{64}) \*([^\n\\]+)")


def read_sum(line: str) -> tuple[str, str] | None:
    """Return the path and sha256 in a line of a file of sums, or None if it is malformed."""
    match = _SUM.fullmatch(line)
    return (match[2], match[1]) if match else None


def keys_dir() -> Path:
    """Return the folder of the user's signing keys: `$NABLA_KEYS`, else nabla/keys in the user's configuration."""
    explicit = os.environ.get("NABLA_KEYS")
    if explicit:
        return Path(explicit).expanduser().absolute()
    xdg = os.environ.get("XDG_CONFIG_HOME")
    home = Path(xdg) if xdg and os.path.isabs(xdg) else Path.home() / ".config"
    return home / "nabla" / "keys"
