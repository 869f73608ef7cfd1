# SPDX-License-Identifier: Apache-2.0
"""Nabla's package of redis: persistence without fork."""

from __future__ import annotations

import pytest

from .conftest import image_of
from .vm import Vm

SERVE = "redis-server /etc/redis.conf & until redis-cli ping >/dev/null 2>&1; do sleep 0.02; done"


@pytest.fixture(scope="module")
def vm() -> Vm:
    """The image with the larger packages."""
    return Vm(image_of("packages"), ephemeral=True)


def test_keeps_what_it_is_told_to(vm: Vm) -> None:
    """SAVE and BGSAVE write, and saved data survive a restart."""
    script = f"""
        {SERVE}
        redis-cli set key value
        redis-cli bgsave >/dev/null; until redis-cli info persistence | grep -q bgsave_in_progress:0; do sleep 0.02; done
        redis-cli info persistence | grep -c last_bgsave_status:ok
        redis-cli save
        redis-cli eval 'return redis.call("get", KEYS[1]) .. "!"' 1 key
        redis-cli shutdown nosave; wait; echo ended $?
        {SERVE}
        redis-cli get key
        redis-cli config get save | tail -n 1
        redis-cli shutdown nosave; wait; echo ended
    """
    lines = vm.check(script).split("\n")
    assert lines[:8] == ["OK", "1", "OK", "value!", "ended 0", "value", "", "ended"], lines


def test_log_of_changes(vm: Vm) -> None:
    """With appendonly each change is on the disk, without fork."""
    script = f"""
        echo 'appendonly yes' >/etc/redis.d/append.conf
        {SERVE}
        for n in 1 2 3; do redis-cli incr counter; done
        kill -9 %1; wait
        {SERVE}
        redis-cli incr counter; redis-cli shutdown nosave
    """
    assert vm.check(script).split() == ["1", "2", "3", "4"]
