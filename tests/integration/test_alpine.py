# SPDX-License-Identifier: Apache-2.0
"""Alpine's own binaries, unmodified, do real work on nabla's libc and kernel."""

from __future__ import annotations

import re

import pytest

from .vm import Vm

FOLDER = "/usr/lib/nabla-tests"


def test_it_is_alpine(alpine: Vm) -> None:
    assert "Alpine Linux" in alpine.check("cat /etc/os-release")
    assert alpine.check("cat /etc/alpine-release").startswith("3.23")


def test_curl_file(alpine: Vm) -> None:
    output = alpine.check(
        "seq 300000 >/tmp/numbers; curl -s file:///tmp/numbers | md5sum; md5sum </tmp/numbers; curl --version"
    )
    fetched, original, version, *_ = output.splitlines()
    assert fetched == original
    assert version.startswith("curl 8.")


def test_curl_http(testing: Vm) -> None:
    """Many small and one large transfer from a server in the guest."""
    script = f"""
        cd /tmp && mkdir www && seq 500000 >www/numbers && echo small >www/small || exit
        python3 {FOLDER}/serve.py http 8080 www >log 2>&1 &
        curl -sf --retry 40 --retry-delay 0 --retry-connrefused http://127.0.0.1:8080/small || exit
        curl -sf http://localhost:8080/numbers | cmp - www/numbers || exit
        curl -sf --parallel "http://127.0.0.1:8080/small?[1-200]" | sort | uniq -c
        curl -s -o /dev/null -w '%{{http_code}}\\n' http://127.0.0.1:8080/missing
    """
    assert testing.check(script).split() == ["small", "200", "small", "404"]


def test_curl_https(testing: Vm) -> None:
    """TLS between Alpine's curl and a server, both on Alpine's openssl."""
    script = f"""
        cd /tmp && mkdir www && seq 200000 >www/numbers || exit
        python3 {FOLDER}/serve.py https 8443 www >log 2>&1 &
        curl -sf --retry 40 --retry-delay 0 --retry-connrefused --cacert {FOLDER}/localhost.pem \\
            https://localhost:8443/numbers | cmp - www/numbers || exit
        curl -s https://localhost:8443/ ; echo "untrusted: $?"
        curl -sfk -o /dev/null -w '%{{ssl_verify_result}} %{{http_version}}\\n' https://localhost:8443/numbers
    """
    output = testing.check(script)
    assert "untrusted: 60" in output
    assert output.splitlines()[-1].split()[0] in ("18", "0")


def test_apk(alpine: Vm) -> None:
    assert "musl-" in alpine.check("apk --no-network list --installed")
    assert "curl-" in alpine.check("apk --no-network info -v")
    assert "description" in alpine.check("apk --no-network info --description curl")
    assert alpine.check("apk --no-network info --who-owns /usr/bin/curl").startswith("/usr/bin/curl is owned by curl-")
    # Nabla's libc and busybox replace Alpine's; nothing else may differ from apk's database.
    changed = {
        line.split(maxsplit=1)[1]
        for line in alpine.check("apk --no-network audit --system 2>/dev/null").splitlines()
        if line[:1] == "U"
    }
    assert changed <= {"bin/busybox", "lib/ld-musl-x86_64.so.1"}, changed


def test_file_system_tools(alpine: Vm) -> None:
    """An ext4 file system in a file: created, checked, read by programs of e2fsprogs."""
    output = alpine.check(
        """
        cd /tmp && dd if=/dev/zero of=disk bs=1M count=32 2>/dev/null || exit
        mkfs.ext4 -q -L inside disk && e2fsck -fn disk && dumpe2fs -h disk 2>/dev/null | grep -i volume
        """
    )
    assert re.search(r"^inside: \d+/\d+ files", output, re.MULTILINE)
    assert "Filesystem volume name:   inside" in output


def test_sudo(alpine: Vm) -> None:
    assert "Sudo version" in alpine.check("sudo -V")
    assert alpine.check("sudo -n -u nobody id -un") == "nobody\n"


@pytest.mark.parametrize("memory", ["64M", "256M"])
def test_login_shell(alpine: Vm, memory: str) -> None:
    """/etc/profile and related files of Alpine."""
    result = alpine.but(memory=memory).run("/bin/sh", "-l", "-c", 'echo "$PATH"')
    assert result.status == 0, result.describe()
    assert "/usr/bin" in result.output


def test_wget(testing: Vm) -> None:
    script = f"""
        cd /tmp && mkdir www && seq 1000 >www/numbers || exit
        python3 {FOLDER}/serve.py http 8080 www >log 2>&1 &
        curl -sf -o /dev/null --retry 40 --retry-delay 0 --retry-connrefused http://127.0.0.1:8080/
        wget -q -O - http://127.0.0.1:8080/numbers | cmp - www/numbers && echo same
    """
    assert testing.check(script) == "same\n"
