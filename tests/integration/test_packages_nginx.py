# SPDX-License-Identifier: Apache-2.0
"""Nabla's package of nginx with its packaged configuration."""

from __future__ import annotations

import pytest

from .conftest import image_of
from .vm import Vm

UP = "until curl -sfo /dev/null http://127.0.0.1/; do sleep 0.02; done"


@pytest.fixture(scope="module")
def vm() -> Vm:
    """The image with the larger packages."""
    return Vm(image_of("packages"), ephemeral=True)


def test_configuration_is_sound(vm: Vm) -> None:
    assert "test is successful" in vm.check("nginx -t 2>&1")


def test_serves_logs_and_ends(vm: Vm) -> None:
    """A page, plain and compressed; logs that can be moved away; SIGHUP changes nothing; SIGTERM ends it in order."""
    script = f"""
        nginx & {UP}
        curl -s http://127.0.0.1/ | cmp - /var/lib/nginx/html/index.html && echo plain
        curl -s -H 'Accept-Encoding: gzip' http://127.0.0.1/ | gunzip >/tmp/page
        cmp /tmp/page /var/lib/nginx/html/index.html && echo packed
        curl -s -o /dev/null -w '%{{http_code}}\\n' http://127.0.0.1/missing
        mv /var/log/nginx/access.log /var/log/nginx/old.log
        kill -USR1 $(cat /run/nginx.pid); sleep 0.2
        kill -HUP $(cat /run/nginx.pid); sleep 0.2
        curl -s -A after http://127.0.0.1/ >/dev/null
        grep -c GET /var/log/nginx/old.log
        grep -c after /var/log/nginx/access.log
        grep -c 'cannot reconfigure without master process' /var/log/nginx/error.log
        kill $(cat /run/nginx.pid); wait; echo ended $?; ls /run/nginx.pid 2>/dev/null
    """
    lines = vm.check(script + "\ntrue").split()
    assert lines[:3] == ["plain", "packed", "404"]
    assert int(lines[3]) >= 4
    assert lines[4:] == ["1", "1", "ended", "0"]


def test_many_requests(vm: Vm) -> None:
    """Its load generator beside it: no request fails."""
    script = f"nginx & {UP}; wrk -t 2 -c 50 -d 2s http://127.0.0.1/"
    output = vm.check(script)
    assert "requests in" in output
    assert "Socket errors" not in output
    assert "Non-2xx" not in output
