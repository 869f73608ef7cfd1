# SPDX-License-Identifier: Apache-2.0
"""User networking: the guest's view, connections to the host, the lifetime of passt, hosts that forbid it."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .networked import (
    GATEWAY,
    GUEST,
    OWN_ERROR,
    SERVER,
    Installation,
    free_port,
    gone,
    helpers_of,
    ordinary_installation,
    page,
    program,
    run_words,
    sha256,
    talk,
    until,
)

MIB = 1 << 20
NEEDS = "nabla-run: user networking needs passt and user namespaces: "
INSTEAD = "or use --net tap=INTERFACE or --net fd=NUMBER)\n"


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """Launcher, kernel and images in a folder that an ordinary user can access."""
    with ordinary_installation("minimal", "alpine", "test") as installed:
        yield installed


def shell(installation: Installation, script: str, *options: str, image: str = "minimal") -> str:
    """Run a script in a VM with user networking; it must succeed without an error message."""
    result = installation.run(image, "/bin/sh", "-c", script, options=["--net", "user", *options])
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


# The guest's view


@pytest.mark.parametrize("image", ["minimal", "alpine"])
def test_set_up(installation: Installation, image: str) -> None:
    script = "ip -o -4 addr show eth0; ip route; cat /etc/resolv.conf; cat /sys/class/net/eth0/mtu"
    seen = shell(installation, script, image=image)
    lines = [" ".join(line.split()) for line in seen.splitlines()]
    assert lines[0].startswith(f"2: eth0 inet {GUEST}/24 brd 10.0.2.255 ")
    assert lines[1:] == [
        f"default via {GATEWAY} dev eth0",
        f"10.0.2.0/24 dev eth0 scope link src {GUEST}",
        f"nameserver {SERVER}",
        "65520",
    ]


def test_name_servers(installation: Installation) -> None:
    """Also with a read-only root; the image's own file and /etc/hosts stay."""
    given = ["--dns", "10.1.1.1", "--dns", "10.2.2.2"]
    expected = "nameserver 10.1.1.1\nnameserver 10.2.2.2\n"
    assert shell(installation, "cat /etc/resolv.conf", *given) == expected
    script = "cat /etc/resolv.conf; touch /x 2>/dev/null || echo read-only"
    argv = installation.argv("alpine", "/bin/sh", "-c", script, options=["--read-only", "--net", "user", *given])
    argv.remove("--ephemeral")
    result = run_words(argv)
    assert result.stdout == f"{expected}read-only\n", result
    assert shell(installation, "umount /etc/resolv.conf; cat /etc/resolv.conf") == ""
    assert "localhost" in shell(installation, "cat /etc/hosts")


def test_other_addresses(installation: Installation) -> None:
    given = ["--ip", "192.168.77.5/28,192.168.77.1"]
    seen = shell(installation, "ip -o -4 addr show eth0; ip route; cat /etc/resolv.conf", *given)
    assert " inet 192.168.77.5/28 " in seen
    assert "default via 192.168.77.1 " in seen
    assert "nameserver 192.168.77.1\n" in seen
    port = free_port()
    script = "mkdir /tmp/www; echo $$ >/tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"
    with installation.running("minimal", "/bin/sh", "-c", script, options=[*given, "--publish", f"{port}:80"]):
        assert until(lambda: page(port), "a page")
    for further in ([], ["--dry-run"]):
        options = ["--net", "user", "--ip", "192.168.77.5/28", *further]
        result = installation.run("minimal", "/bin/true", options=options)
        assert result.returncode == OWN_ERROR
        assert "needs a gateway" in result.stderr


# From the guest to the host's loopback


class Quiet(http.server.BaseHTTPRequestHandler):
    """Serves pages that name their path; accepts PUT and returns the digest of the body."""

    def do_GET(self) -> None:
        """Serve a page."""
        self._answer(f"the host's page {self.path}\n".encode())

    def do_PUT(self) -> None:
        """Accept a body."""
        self._answer(sha256(self.rfile.read(int(self.headers["Content-Length"]))).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Suppress the log."""


@contextmanager
def host_server() -> Iterator[int]:
    """Serve on the host's loopback; yields the port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_gateway_is_the_host(installation: Installation) -> None:
    with host_server() as port:
        page = f"http://{GATEWAY}:{port}"
        assert shell(installation, f"wget -q -O - {page}/hello") == "the host's page /hello\n"
        script = f"for i in $(seq 100); do wget -q -O - {page}/$i; done"
        assert shell(installation, script) == "".join(f"the host's page /{i}\n" for i in range(1, 101))


def test_upload_by_curl(installation: Installation) -> None:
    """Alpine's own curl."""
    with host_server() as port:
        script = f"""
            dd if=/dev/urandom of=/tmp/data bs=1M count=48 2>/dev/null; sha256sum </tmp/data | cut -d ' ' -f 1
            curl -sS -T /tmp/data -H Expect: http://{GATEWAY}:{port}/
        """
        mine, theirs = shell(installation, script, "--memory", "256M", image="alpine").splitlines()
    assert mine == theirs


def test_nobody_at_the_gateway(installation: Installation) -> None:
    """Not every version of passt reports a refusal to the guest; none may do further harm."""
    with host_server() as port:
        script = f"""
            wget -q -T 3 -O - http://{GATEWAY}:{free_port()}/ 2>/dev/null; echo $?
            wget -q -T 20 -O - http://{GATEWAY}:{port}/next
        """
        assert shell(installation, script) == "1\nthe host's page /next\n"


# Several VMs


def test_several_machines(installation: Installation) -> None:
    """All VMs have the same addresses, and reach each other only through the host's ports."""

    def script(text: str) -> str:
        return f"mkdir /tmp/www; echo {text} >/tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"

    one, two = free_port(), free_port()
    with (
        installation.running("minimal", "/bin/sh", "-c", script("first"), options=["--publish", f"{one}:80"]),
        installation.running("minimal", "/bin/sh", "-c", script("second"), options=["--publish", f"{two}:80"]),
    ):
        assert until(lambda: page(one), "a page") == b"first\n"
        assert until(lambda: page(two), "a page") == b"second\n"
        fetch = "".join(f"wget -q -O - http://{GATEWAY}:{port}/; " for port in (one, two, one))
        assert shell(installation, fetch) == "first\nsecond\nfirst\n"


# The lifetime of passt


def wait_gone(pids: list[int]) -> None:
    until(lambda: all(map(gone, pids)) or None, f"the end of {pids}")


def test_helper_ends_with_the_machine(installation: Installation) -> None:
    with installation.peer() as (port, machine):
        (helper,) = helpers_of(machine.pid)
        assert talk(port, line="echo", send=b"x") == b"x"
        machine.terminate()
        machine.wait(timeout=20)
        assert gone(helper), "the launcher has ended before its helper"
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_helper_ends_whatever_ends_the_launcher(installation: Installation, number: signal.Signals) -> None:
    with installation.peer() as (_, machine):
        (helper,) = helpers_of(machine.pid)
        machine.send_signal(number)
        machine.wait(timeout=20)
        wait_gone([helper])


def test_helper_ends_with_a_machine_that_is_killed(installation: Installation) -> None:
    with installation.peer() as (_, machine):
        (helper,) = helpers_of(machine.pid)
        children = Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text().split()
        (vm,) = {int(child) for child in children} - {helper}
        os.kill(vm, signal.SIGKILL)
        assert machine.wait(timeout=20) == 128 + signal.SIGKILL
        assert gone(helper)


def test_launcher_fails_after_the_helper_started(installation: Installation, tmp_path: Path) -> None:
    """If the kernel does not run, passt and its port must not remain."""
    tmp_path.chmod(0o755)
    port = free_port()
    wrong = Path("/etc/passwd")
    result = installation.run("minimal", "/bin/true", options=["--publish", f"{port}:80", "--kernel", str(wrong)])
    assert result.returncode == OWN_ERROR
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_machine_goes_on_without_its_helper(installation: Installation) -> None:
    """Killing passt ends the network, not the VM."""
    script = "echo up; read line; cat /sys/class/net/eth0/carrier; ping -c 1 -W 1 10.0.2.2 >/dev/null; echo $? over"
    words = installation.argv("minimal", "/bin/sh", "-c", script, options=["--net", "user"])
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd="/") as machine:
        assert machine.stdout is not None
        assert machine.stdin is not None
        assert machine.stderr is not None
        assert machine.stdout.readline() == "up\n"
        (helper,) = helpers_of(machine.pid)
        os.kill(helper, signal.SIGKILL)
        assert machine.stderr.readline() == (
            "nabla-run: warning: the network helper has exited; the VM continues without a network\n"
        )
        machine.stdin.write("\n")
        machine.stdin.flush()
        out, err = machine.communicate(timeout=20)
        assert (out.split()[-2:], err, machine.returncode) == (["1", "over"], "", 0)


def test_helper_is_locked_up(installation: Installation) -> None:
    """passt has a filter, no privilege, its own namespaces, an empty root, and its own session."""
    with installation.peer() as (_, machine):
        (helper,) = helpers_of(machine.pid)
        status = Path(f"/proc/{helper}/status").read_text().split("\n")
        values = {name: value.strip() for name, _, value in (line.partition(":") for line in status)}
        assert (values["Seccomp"], values["NoNewPrivs"]) == ("2", "1")
        assert int(values["CapEff"], 16) == int(values["CapPrm"], 16) == 0
        assert "0" not in values["Uid"].split()
        assert os.getsid(helper) == helper
        if os.geteuid() == 0:  # other users cannot inspect a process that is not dumpable
            for kind in ("user", "mnt", "ipc", "uts"):
                assert os.readlink(f"/proc/{helper}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
            assert os.listdir(f"/proc/{helper}/root") == []


# Hosts without passt or namespaces


def test_no_helper_installed(installation: Installation) -> None:
    """A VM without a network still starts."""
    argv = installation.argv("minimal", "/bin/echo", "runs", options=["--net", "user"])
    argv = [program("env"), "PATH=/nowhere", program(argv[0]), *argv[1:]]
    result = run_words(argv)
    assert result.returncode == OWN_ERROR
    assert result.stderr == f"{NEEDS}the program passt was not found (install the package passt, {INSTEAD}"
    result = run_words(["none" if word == "user" else word for word in argv])
    assert (result.returncode, result.stdout) == (0, "runs\n"), result


def test_helper_that_fails(installation: Installation) -> None:
    """Its last message is printed; its remarks about a log are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        script = folder / "passt"
        script.write_text("#!/bin/sh\necho 'odd thing' >&2\necho 'Failed to send 9 bytes to syslog' >&2\nexit 1\n")
        script.chmod(0o755)
        argv = installation.argv("minimal", "/bin/true", options=["--net", "user"])
        result = run_words([program("env"), f"PATH={folder}:/bin:/usr/bin", program(argv[0]), *argv[1:]])
    assert result.returncode == OWN_ERROR
    assert result.stderr == "nabla-run: cannot start the network: passt: odd thing\n"


def test_no_user_namespaces(installation: Installation) -> None:
    """As on hosts and in containers that forbid them; a VM without a network still starts."""
    fence = [*installation.prefix, program("bwrap"), "--unshare-user", "--disable-userns", "--dev-bind", "/", "/"]
    inside = Installation(installation.launcher, installation.kernel, installation.images, tuple(fence))
    result = inside.run("minimal", "/bin/true", options=["--net", "user"])
    assert result.returncode == OWN_ERROR
    assert result.stderr.startswith(f"{NEEDS}passt: Couldn't create user namespace: ")
    assert result.stderr.endswith(f" (allow user namespaces on this host, {INSTEAD}")
    assert result.stderr.count("\n") == 1
    result = inside.run("minimal", "/bin/echo", "runs")
    assert (result.returncode, result.stdout) == (0, "runs\n"), result


def test_host_without_a_network(installation: Installation) -> None:
    """An empty network namespace, without loopback, has no default route."""
    fence = [*installation.prefix, program("unshare"), "--user", "--map-current-user", "--net"]
    inside = Installation(installation.launcher, installation.kernel, installation.images, tuple(fence))
    assert f"inet {GUEST}/24" in shell(inside, "ip -o addr show eth0")
