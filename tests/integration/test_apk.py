# SPDX-License-Identifier: Apache-2.0
"""apk in the guest: it lists the installed packages, finds them unchanged, and adds packages from this repository."""

from __future__ import annotations

import io
import tarfile

from nabla.core.artifacts import INDEX, PACKAGE_KEY
from nabla.core.paths import APK
from nabla.images import install
from nabla.packages import catalog

from .vm import Vm

OURS = {"curl", "libcrypto3", "musl", "nginx", "python3", "redis", "sqlite-libs", "zlib"}


def repository(*names: str) -> bytes:
    """Return a tar archive with the index, the public key, and these packages with their dependencies."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(INDEX, "repository/Packages.adb")
        tar.add(APK / "keys" / f"{PACKAGE_KEY}.pub", f"keys/{PACKAGE_KEY}.pub")
        for recipe in install.recipes_for(names, ()):
            for part in catalog.read_build_record(recipe).parts:
                tar.add(part.apk, f"repository/{part.apk.name}")
    return stream.getvalue()


def test_info(alpine: Vm) -> None:
    installed = set(alpine.check("apk --no-network info -q").split())
    assert installed >= OURS
    assert alpine.check("apk --no-network info --who-owns /usr/bin/python3.13").split()[-1].startswith("python3-3.13")
    assert "so:libz.so.1=1.3.1" in alpine.check("apk --no-network info --provides zlib")
    assert "usr/bin/sqlite3" in alpine.check("apk --no-network info --contents sqlite")


def test_audit_finds_our_files_unchanged(alpine: Vm) -> None:
    lines = alpine.check("apk audit --system 2>/dev/null").splitlines()
    assert [line for line in lines if line.startswith("U ")] == []


def test_scripts_of_packages(alpine: Vm) -> None:
    """Scripts before and after, a trigger, and the files that they leave; a failed one is reported."""
    script = """
        cd /tmp && mkdir -p files/etc/made files/usr/share/thing && echo data >files/usr/share/thing/data
        for kind in pre-install post-install pre-deinstall; do
            printf '#!/bin/sh\\necho "$1 %s" | tee -a /root/said >&2\\n' $kind >$kind
        done
        printf '#!/bin/sh\\nls "$@" >>/root/said\\n' >trigger
        printf '#!/bin/sh\\nexit 3\\n' >bad
        apk mkpkg --info name:thing --info version:1.0-r0 --files files --output thing-1.0-r0.apk \\
            --script pre-install:pre-install --script post-install:post-install --script pre-deinstall:pre-deinstall \\
            --script trigger:trigger --trigger /usr/share/thing || exit
        apk mkpkg --info name:bad --info version:1.0-r0 --files files/etc --output bad-1.0-r0.apk \\
            --script post-install:bad || exit
        apk="apk --no-network --repositories-file /dev/null --allow-untrusted"
        $apk -q add ./thing-1.0-r0.apk 2>/dev/null && $apk -q del thing 2>/dev/null; cat /root/said
        $apk add ./bad-1.0-r0.apk 2>&1 | grep -o 'exited with error.*'
    """
    assert alpine.check(script).splitlines() == [
        "1.0-r0 pre-install",
        "1.0-r0 post-install",
        "data",
        "1.0-r0 pre-deinstall",
        "exited with error 3",
    ]


def test_add_and_remove(alpine: Vm) -> None:
    script = """
        cd /tmp && tar x || exit
        apk="apk --no-network --no-cache --repositories-file /dev/null -X /tmp/repository/Packages.adb"
        $apk --keys-dir /tmp/none add lua5.4 2>&1 | grep -o 'UNTRUSTED signature'
        command -v lua5.4
        $apk --keys-dir /tmp/keys -q add lua5.4 || exit
        lua5.4 -e 'print(_VERSION, 6 * 7)'
        apk info -e -v lua5.4 readline
        $apk --keys-dir /tmp/keys -q del lua5.4 || exit
        [ -e /usr/bin/lua5.4 ] || echo gone
    """
    result = alpine.run("/bin/sh", "-c", script, stdin=repository("lua5.4"))
    assert result.status == 0, result.describe()
    lines = result.lines()
    assert lines[0] == "UNTRUSTED signature"
    assert lines[1].split() == ["Lua", "5.4", "42"]
    assert lines[2].startswith("lua5.4-5.4.7") and lines[3].startswith("readline-8.2")
    assert lines[-1] == "gone"
