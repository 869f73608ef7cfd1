# SPDX-License-Identifier: Apache-2.0
"""Nabla's package of curl, with TLS and HTTP/2 from nabla's libraries, and the measuring programs."""

from __future__ import annotations

import json

import pytest

from nabla.core.paths import TESTS
from nabla.packages.catalog import read_build_record

from .conftest import image_of
from .vm import Vm

CERTIFICATE = (TESTS / "guest" / "localhost.pem").read_text(encoding="utf-8")
SECURE = f"""
cat >/tmp/localhost.pem <<'END'
{CERTIFICATE}END
cat >/etc/nginx/http.d/secure.conf <<'END'
server {{
    listen 443 ssl;
    http2 on;
    server_name localhost;
    ssl_certificate /tmp/localhost.pem;
    ssl_certificate_key /tmp/localhost.pem;
    root /var/lib/nginx/html;
}}
END
nginx & until curl -sfo /dev/null http://127.0.0.1/; do sleep 0.02; done
"""


@pytest.fixture(scope="module")
def vm() -> Vm:
    """The image with the larger packages."""
    return Vm(image_of("packages"), ephemeral=True)


def test_is_ours(vm: Vm) -> None:
    version = read_build_record("curl").parts[0].version.split("-")[0]
    first, *_, features = vm.check("curl --version").splitlines()
    assert first.startswith(f"curl {version} (x86_64-nabla-linux-musl)")
    assert all(library in first for library in ("OpenSSL/3.5", "zlib/", "brotli/", "zstd/", "nghttp2/"))
    assert {"HTTP2", "SSL", "UnixSockets", "AsynchDNS"} <= set(features.split())


def test_tls_and_http2(vm: Vm) -> None:
    """The certificate is verified: unknown issuers and other names are refused."""
    script = f"""{SECURE}
        say='%{{http_version}} %{{http_code}} %{{ssl_verify_result}}\\n'
        curl -s -o /tmp/page -w "$say" --cacert /tmp/localhost.pem https://localhost/
        cmp /tmp/page /var/lib/nginx/html/index.html && echo same
        curl -s --http1.1 -o /dev/null -w "$say" --cacert /tmp/localhost.pem https://localhost/
        curl -s -o /dev/null https://localhost/; echo $?
        curl -s -o /dev/null --cacert /tmp/localhost.pem --resolve other:443:127.0.0.1 https://other/; echo $?
        curl -s -Z --cacert /tmp/localhost.pem 'https://localhost/index.html?[1-100]' | grep -c '<title>'
    """
    assert vm.check(script).splitlines() == ["2 200 0", "same", "1.1 200 0", "60", "60", "100"]


def test_throughput_within_the_machine(vm: Vm) -> None:
    """iperf3's server and client over the loopback count about the same number of bytes."""
    # A client that finds no server yet prints an error, as JSON too.
    client = "iperf3 -c 127.0.0.1 -t 1 -J >/tmp/result"
    script = f"iperf3 -s -1 >/dev/null & until {client}; do sleep 0.02; done; cat /tmp/result"
    result = json.loads(vm.check(script))["end"]
    sent, received = result["sum_sent"]["bytes"], result["sum_received"]["bytes"]
    assert received > 1 << 20
    assert abs(received - sent) < sent / 10
