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
    """A page, plain and compressed; logs that can be moved away; SIGTERM ends it in order."""
    script = f"""
        nginx & {UP}
        curl -s http://127.0.0.1/ | cmp - /var/lib/nginx/html/index.html && echo plain
        curl -s -H 'Accept-Encoding: gzip' http://127.0.0.1/ | gunzip >/tmp/page
        cmp /tmp/page /var/lib/nginx/html/index.html && echo packed
        curl -s -o /dev/null -w '%{{http_code}}\\n' http://127.0.0.1/missing
        mv /var/log/nginx/access.log /var/log/nginx/old.log
        kill -USR1 $(cat /run/nginx.pid); until test -e /var/log/nginx/access.log; do sleep 0.02; done
        until curl -s -A after http://127.0.0.1/ >/dev/null && grep -q after /var/log/nginx/access.log; do
            sleep 0.02
        done
        grep -c GET /var/log/nginx/old.log
        kill $(cat /run/nginx.pid); wait; echo ended $?; ls /run/nginx.pid 2>/dev/null
    """
    lines = vm.check(script + "\ntrue").split()
    assert lines[:3] == ["plain", "packed", "404"]
    assert int(lines[3]) >= 4
    assert lines[4:] == ["ended", "0"]


def test_workers_and_reload(vm: Vm) -> None:
    """Four workers of another user; SIGHUP replaces all of them, a killed one is replaced, and no request fails."""
    script = f"""
        sed -i 's/worker_processes auto/worker_processes 4/' /etc/nginx/nginx.conf
        nginx & {UP}
        master=$(cat /run/nginx.pid)
        workers() {{ pgrep -P $master | sort; }}
        ended() {{ ! pgrep -f 'shutting [d]own' >/dev/null; }}
        settled() {{ until test $(workers | wc -l) = 4 && ended; do sleep 0.02; done; }}
        settled; workers >/tmp/before; stat -c %U /proc/$(head -n 1 /tmp/before)
        echo 'server {{ listen 8080; return 200 "new\\n"; }}' >/etc/nginx/http.d/new.conf
        kill -HUP $master; until curl -sf http://127.0.0.1:8080/; do sleep 0.02; done; settled
        workers >/tmp/after; grep -cxFf /tmp/before /tmp/after
        first=$(head -n 1 /tmp/after); kill -9 $first
        until test $(workers | grep -vxc $first) = 4; do sleep 0.02; done
        curl -s http://127.0.0.1:8080/; kill $master; wait; echo ended $?
    """
    assert vm.check(script).split() == ["nobody", "new", "0", "new", "ended", "0"]


def test_many_requests(vm: Vm) -> None:
    """Its load generator beside it: no request fails."""
    script = f"nginx & {UP}; wrk -t 2 -c 50 -d 2s http://127.0.0.1/"
    output = vm.check(script)
    assert "requests in" in output
    assert "Socket errors" not in output
    assert "Non-2xx" not in output
