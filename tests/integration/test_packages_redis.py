# SPDX-License-Identifier: Apache-2.0
"""Nabla's package of redis: snapshots in the background, a log of changes, a replica."""

from __future__ import annotations

import pytest

from .conftest import image_of
from .vm import Vm

# While the server reads its data the answer is an error.
SERVE = "redis-server /etc/redis.conf & until redis-cli ping 2>&1 | grep -q PONG; do sleep 0.02; done"


@pytest.fixture(scope="module")
def vm() -> Vm:
    """The image with the larger packages."""
    return Vm(image_of("packages"), ephemeral=True)


def test_keeps_what_it_is_told_to(vm: Vm) -> None:
    """SAVE and BGSAVE write; saved data survive a restart."""
    script = f"""
        {SERVE}
        redis-cli set key value
        redis-cli save
        redis-cli set later value2
        redis-cli bgsave
        until redis-cli info persistence | grep -q rdb_bgsave_in_progress:0; do sleep 0.02; done
        redis-cli info persistence | tr -d '\\r' | grep rdb_last_bgsave_status
        redis-cli eval 'return redis.call("get", KEYS[1]) .. "!"' 1 key
        redis-cli shutdown nosave; wait; echo ended $?
        {SERVE}
        redis-cli get key; redis-cli get later
        redis-cli config get save | tail -n 1
        redis-cli shutdown nosave; wait; echo ended
    """
    lines = vm.check(script).split("\n")
    assert lines[:5] == ["OK", "OK", "OK", "Background saving started", "rdb_last_bgsave_status:ok"], lines
    assert lines[5:11] == ["value!", "ended 0", "value", "value2", "3600 1 300 100 60 10000", "ended"], lines


def test_log_of_changes(vm: Vm) -> None:
    """With appendonly each change is on the disk; the log is rewritten in the background."""
    script = f"""
        echo 'appendonly yes' >/etc/redis.d/append.conf
        {SERVE}
        for n in 1 2 3; do redis-cli incr counter; done
        kill -9 %1; wait
        {SERVE}
        redis-cli incr counter; redis-cli bgrewriteaof >/dev/null
        until redis-cli info persistence | grep -q aof_rewrite_in_progress:0; do sleep 0.02; done
        redis-cli info persistence | tr -d '\\r' | grep aof_last_bgrewrite_status
        redis-cli shutdown nosave; wait
        {SERVE}
        redis-cli incr counter; redis-cli shutdown nosave
    """
    assert vm.check(script).split() == ["1", "2", "3", "4", "aof_last_bgrewrite_status:ok", "5"]


def test_replica(vm: Vm) -> None:
    """A second server copies the first one and follows it."""
    script = f"""
        {SERVE}
        redis-cli debug populate 5000 key 50 >/dev/null
        mkdir /tmp/b; redis-server --port 6380 --dir /tmp/b --replicaof 127.0.0.1 6379 >/tmp/b/log &
        until redis-cli -p 6380 info replication 2>/dev/null | grep -q master_link_status:up; do sleep 0.02; done
        redis-cli set late news >/dev/null; redis-cli wait 1 0
        redis-cli -p 6380 dbsize; redis-cli -p 6380 get late
        redis-cli -p 6380 shutdown nosave; redis-cli shutdown nosave; wait
    """
    assert vm.check(script).split() == ["1", "5001", "news"]
