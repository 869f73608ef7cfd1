# SPDX-License-Identifier: Apache-2.0
"""Packages that are built only when they are named: two of them, installed and run in the guest."""

from __future__ import annotations

import io
import tarfile

import pytest

from nabla.core.artifacts import PACKAGE_KEY
from nabla.core.paths import APK
from nabla.packages import catalog

from .vm import Vm

# As nabla/packages/tasks.py has them.
BUILT = ("dash", "tree")


def packages(*names: str) -> bytes:
    """Return a tar archive with the public key and all packages of these recipes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(APK / "keys" / f"{PACKAGE_KEY}.pub", f"keys/{PACKAGE_KEY}.pub")
        for name in names:
            for part in catalog.read_build_record(name).parts:
                tar.add(part.apk, part.apk.name)
    return stream.getvalue()


def installed(alpine: Vm, name: str, script: str) -> list[str]:
    """Add a package in a VM, by its file, and return the lines that a script writes there."""
    add = (
        f"cd /tmp && tar x && apk --no-network --repositories-file /dev/null --keys-dir /tmp/keys -q add ./{name}-*.apk"
    )
    result = alpine.run("/bin/sh", "-ec", f"{add}\n{script}", stdin=packages(name))
    assert result.status == 0, result.describe()
    return result.lines()


@pytest.mark.parametrize("name", BUILT)
def test_is_optional(name: str) -> None:
    assert catalog.load(name).optional
    assert name not in catalog.names()


def test_tree(alpine: Vm) -> None:
    lines = installed(
        alpine, "tree", "mkdir -p /root/a/b && touch /root/a/b/c && tree --noreport --charset=ascii /root/a"
    )
    assert lines == ["/root/a", "`-- b", "    `-- c"]


def test_dash(alpine: Vm) -> None:
    script = """
        cat >/tmp/script <<'END'
set -eu
exec 2>/dev/null
f() { printf '%s\\n' "$(echo "$1" | tr a-z A-Z)"; }
f word
(exit 3) || echo "status $?"
sleep 100 & kill $!; wait $! || echo "killed $?"
trap 'echo trapped' EXIT
END
        exec dash /tmp/script
    """
    assert installed(alpine, "dash", script) == ["WORD", "status 3", "killed 143", "trapped"]
