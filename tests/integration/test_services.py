# SPDX-License-Identifier: Apache-2.0
"""Services of an image: started beside the command or alone, with logs, stopped in order at power-off."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from .vm import Vm

# It logs its signals, and ends slowly.
COUNTER = """#!/bin/sh
trap 'echo stopping; sleep 0.7; echo stopped; sync; exit 0' TERM
echo started
while :; do sleep 0.05; done
"""

# Until it has, as it says once.
STARTED = 'until [ "$(grep -c started /var/log/counter.log)" = 1 ]; do sleep 0.02; done'


@pytest.fixture
def serving(minimal: Vm, tmp_path: Path) -> Vm:
    """A private image with three services, none of which starts automatically."""
    shutil.copy(minimal.image, tmp_path / "image")
    vm = minimal.but(image=tmp_path / "image", ephemeral=False)
    vm.check(
        "mkdir -p /etc/nabla/services /etc/nabla/start /var/log\ncd /etc/nabla/services\n"
        f"cat >counter <<'END'\n{COUNTER}END\n"
        "printf '#!/bin/sh\\necho out; echo err >&2; exit 3\\n' >failing\n"
        "printf '#!/bin/sh\\nexit 0\\n' >brief\nchmod 755 *\nprintf nonsense >broken"
    )
    return vm


def test_beside_a_command(serving: Vm) -> None:
    """Start, log, and an orderly stop after the command; the next boot appends to the log."""
    vm = serving.but(options=("--service", "counter"))
    assert vm.run("/bin/sh", "-c", f"{STARTED}; cat /var/log/counter.log; exit 7").output == "started\n"
    assert serving.check("cat /var/log/counter.log") == "started\nstopping\nstopped\n"
    assert vm.run("/bin/sh", "-c", f"{STARTED.replace('1', '2')}; exit 7").status == 7
    assert serving.check("grep -c started /var/log/counter.log") == "2\n"


def test_with_every_boot(serving: Vm) -> None:
    serving.check("ln -s ../services/counter /etc/nabla/start/counter")
    assert serving.check(f"{STARTED}; cat /var/log/counter.log") == "started\n"


def test_power_button(serving: Vm) -> None:
    """SIGTERM to nabla-run with only a service: it stops in order, and its output is on the disk."""
    serving.check(
        "cd /etc/nabla/services; sed 's|^echo started|&; echo up >/dev/host/stdout|' counter >loud; chmod 755 loud"
    )
    vm = serving.but(options=("--service", "loud"))
    with subprocess.Popen(vm.argv(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        assert machine.stdout is not None
        assert machine.stdout.readline() == b"up\n"
        machine.send_signal(signal.SIGTERM)
        assert machine.wait(timeout=20) == 128 + signal.SIGTERM
    assert serving.check("cat /var/log/loud.log") == "started\nstopping\nstopped\n"


def test_power_button_of_a_command(serving: Vm) -> None:
    """A command may also handle SIGTERM."""
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    with subprocess.Popen(
        serving.argv("/bin/sh", "-c", script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as machine:
        assert machine.stdout is not None
        assert machine.stdout.readline() == b"up\n"
        machine.send_signal(signal.SIGTERM)
        assert machine.stdout.read() == b"bye\n"
        assert machine.wait(timeout=20) == 128 + signal.SIGTERM


def test_only_services(serving: Vm) -> None:
    """The VM ends after all services, with the status of the first that failed."""
    assert serving.but(options=("--service", "brief")).run().status == 0
    result = serving.but(options=("--service", "brief", "--service", "failing")).run()
    assert result.status == 3
    assert "nabla-init: service failing: failed; its log is in /var/log/" in result.output + result.errors
    assert serving.check("cat /var/log/failing.log") == "out\nerr\n"


@pytest.mark.parametrize(
    ("name", "reason", "status"),
    [("missing", "no such file in /etc/nabla/services/", 127), ("broken", "Permission denied", 125)],
)
def test_no_such_service(serving: Vm, name: str, reason: str, status: int) -> None:
    """One line of error; the command still runs, and without a command the status reports the failure."""
    vm = serving.but(options=("--service", name))
    result = vm.run("/bin/echo", "here")
    assert result.status == 0
    assert "here\n" in result.output
    assert f"nabla-init: service {name}: {reason}" in result.output + result.errors
    assert vm.run().status == status
