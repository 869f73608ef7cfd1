# SPDX-License-Identifier: Apache-2.0
"""Network rules, --allow and --deny: what a guest reaches of a network that the tests make, whatever its root tries."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from .networked import (
    GATEWAY,
    OWN_ERROR,
    SERVER,
    Installation,
    gone,
    ordinary_installation,
    run_words,
    until,
)
from .world import ALLOWED, DENIED, ECHO, LOOPBACK_PORT, PORT, THIRD, World, new_world
from .world import SERVER as HOST_SERVER

ATTACK = Path(__file__).with_name("hostile_network.py")
REPORT = "nabla-run: network: denied "


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The network."""
    with new_world() as network:
        yield network


@pytest.fixture(scope="module")
def installation(world: World) -> Iterator[Installation]:
    """Launcher, kernel and images as an ordinary user has them in the network."""
    with ordinary_installation("minimal", "test") as installed:
        yield Installation(installed.launcher, installed.kernel, installed.images, (*world.prefix, *installed.prefix))


@pytest.fixture(autouse=True)
def _forget(world: World) -> None:
    world.seen()


def shell(installation: Installation, script: str, *options: str) -> tuple[str, list[str]]:
    """Run a script in a VM; return its output, and the destinations that were reported as denied."""
    result = installation.run("minimal", "/bin/sh", "-c", script, options=options)
    assert result.returncode == 0, result
    lines = result.stderr.splitlines()
    assert all(line.startswith(REPORT) for line in lines), result.stderr
    return result.stdout, [line.removeprefix(REPORT) for line in lines]


def fetch(*targets: str) -> str:
    """Return a script that prints the last line of each answer, or "nothing"."""
    return "".join(f"wget -q -T 5 -O - http://{target}/ 2>/dev/null || echo nothing; " for target in targets)


def outside(installation: Installation, target: str) -> str | None:
    """Fetch a page from a published port."""
    return run_words([*installation.prefix, "curl", "-s", "-m", "5", f"http://{target}/"]).stdout or None


def here(address: str, port: int = PORT) -> str:
    return f"here is {address} {port}\n"


def denied(*targets: str) -> list[str]:
    """Return the options that deny addresses."""
    return [word for target in targets for word in ("--deny", target)]


# What is allowed, and what is not


def test_nothing_but_what_is_allowed(installation: Installation, world: World) -> None:
    script = fetch(f"{ALLOWED}:{PORT}", f"{DENIED}:{PORT}", f"{ALLOWED}:{LOOPBACK_PORT}", f"{DENIED}:{PORT}")
    output, reported = shell(installation, script, "--allow", f"{ALLOWED}:{PORT}")
    assert output == here(ALLOWED) + 3 * "nothing\n"
    assert reported == [f"tcp {DENIED}:{PORT}", f"tcp {ALLOWED}:{LOOPBACK_PORT}"]
    assert world.seen() == {f"tcp {ALLOWED} {PORT}"}


def test_network_and_range_of_ports(installation: Installation, world: World) -> None:
    options = ["--allow", "198.51.100.0/31:7999-8000", "--allow", "203.0.113.0/24", "--allow", f"{DENIED}:7999"]
    output, _ = shell(installation, fetch(f"{ALLOWED}:{PORT}", f"{DENIED}:{PORT}", f"{HOST_SERVER}:{PORT}"), *options)
    assert output == here(ALLOWED) + "nothing\n" + here(HOST_SERVER)
    assert world.seen() == {f"tcp {ALLOWED} {PORT}", f"tcp {HOST_SERVER} {PORT}"}


def test_everything_but_what_is_denied(installation: Installation, world: World) -> None:
    """Also the host's loopback."""
    script = fetch(f"{ALLOWED}:{PORT}", f"{DENIED}:{PORT}", f"{GATEWAY}:{LOOPBACK_PORT}", f"{THIRD}:{PORT}")
    output, reported = shell(installation, script, "--deny", "198.51.100.2/31")
    assert output == here(ALLOWED) + 3 * "nothing\n"
    assert f"tcp {DENIED}:{PORT}" in reported
    assert f"tcp {THIRD}:{PORT}" in reported
    assert world.seen() == {f"tcp {ALLOWED} {PORT}"}


def test_denied_wins(installation: Installation, world: World) -> None:
    options = ["--allow", "198.51.100.0/24", "--deny", DENIED, "--allow", DENIED]
    output, reported = shell(installation, fetch(f"{DENIED}:{PORT}", f"{THIRD}:{PORT}"), *options)
    assert (output, reported) == ("nothing\n" + here(THIRD), [f"tcp {DENIED}:{PORT}"])
    assert world.seen() == {f"tcp {THIRD} {PORT}"}


def test_names_are_pinned(installation: Installation, world: World) -> None:
    """The guest finds allowed names in its /etc/hosts, and asks no server."""
    options = ["--allow", f"web.example:{PORT}", "--deny", "other.example"]
    script = "cat /etc/resolv.conf; grep -v localhost /etc/hosts; " + fetch(f"web.example:{PORT}", f"{DENIED}:{PORT}")
    output, reported = shell(installation, script, *options)
    assert output == f"\n{ALLOWED} web.example\n" + here(ALLOWED) + "nothing\n"
    assert reported == [f"tcp {DENIED}:{PORT}"]
    assert world.seen() == {f"tcp {ALLOWED} {PORT}"}


def test_name_server(installation: Installation, world: World) -> None:
    """The host's by default, if it is not denied; no other."""
    ask = f"cat /etc/resolv.conf; for server in '' {THIRD}; do nslookup x.example $server >/dev/null 2>&1; done; true"
    output, _ = shell(installation, ask, "--deny", THIRD)
    assert output.startswith(f"nameserver {SERVER}\n")
    assert world.seen() == {f"udp {HOST_SERVER} 53"}
    output, reported = shell(installation, ask, "--allow", ALLOWED)
    assert not output.startswith("nameserver")
    assert f"udp {THIRD}:53" in reported
    assert world.seen() == set()
    # denied by the address that the host has for it
    for options in (denied(THIRD, HOST_SERVER), ["--allow", "0.0.0.0/0", *denied("203.0.113.0/24:53", THIRD)]):
        output, reported = shell(installation, ask, *options)
        assert not output.startswith("nameserver")
        assert f"udp {THIRD}:53" in reported
        assert world.seen() == set()
    output, _ = shell(installation, ask, "--allow", f"{SERVER}:53")
    assert output.startswith(f"nameserver {SERVER}\n")
    assert world.seen() == {f"udp {HOST_SERVER} 53"}


def test_port_of_the_loopback(installation: Installation, world: World) -> None:
    script = fetch(f"{GATEWAY}:{LOOPBACK_PORT}", f"{GATEWAY}:{PORT}", f"{ALLOWED}:{PORT}")
    output, reported = shell(installation, script, "--allow", f"localhost:{LOOPBACK_PORT}")
    assert output == here("127.0.0.1", LOOPBACK_PORT) + 2 * "nothing\n"
    assert f"tcp {ALLOWED}:{PORT}" in reported
    assert world.seen() == {f"tcp 127.0.0.1 {LOOPBACK_PORT}"}
    options = ["--allow", f"127.0.0.1:{LOOPBACK_PORT}", "--deny", "127.0.0.0/8"]
    assert shell(installation, script, *options)[0] == 3 * "nothing\n"
    assert world.seen() == set()


def test_published_ports(installation: Installation, world: World) -> None:
    """Clients get answers, from the loopback and from other addresses, whether they are allowed or not."""
    script = "mkdir /tmp/www; echo page >/tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"
    options = ["--publish", "7070:80", "--publish", f"{THIRD}:7071:80", "--allow", ALLOWED]
    with installation.running("minimal", "/bin/sh", "-c", script, options=options):
        for target in ("127.0.0.1:7070", f"{THIRD}:7071"):
            assert until(partial(outside, installation, target), "a page") == "page\n"
    assert world.seen() <= {"tcp 127.0.0.1 7070", f"tcp {THIRD} 7071"}


# Hostile guests


@pytest.mark.parametrize(
    ("options", "reached"),
    [
        (["--allow", f"{ALLOWED}:{PORT}"], {f"tcp {ALLOWED} {PORT}"}),
        (["--allow", ALLOWED, "--publish", "7070:80", "--publish", "7070:80/udp"], None),
        (["--allow", "0.0.0.0/0", "--allow", "::/0", *denied("198.51.100.2/31", HOST_SERVER)], None),
        (denied(DENIED, THIRD, "203.0.113.0/24", "10.0.2.3", "2001:db8::/32"), None),
    ],
    ids=["port", "address", "all-but", "deny"],
)
def test_hostile_guest(installation: Installation, world: World, options: list[str], reached: set[str] | None) -> None:
    """Frames by hand, other sources, IPv6, mapped addresses, the gateway, the addresses of the fence, name servers."""
    words = installation.argv(
        "test", "/usr/bin/python3", "-c", ATTACK.read_text(), ALLOWED, options=options, memory="256M"
    )
    before = processes()
    result = run_words(words, timeout=120)
    until(lambda: processes() <= before or None, "the end of the helpers")
    assert (result.returncode, result.stdout) == (0, 5 * here(ALLOWED) + "over\n"), result
    seen = world.seen()
    if reached is not None:
        assert seen == reached
    assert f"tcp {ALLOWED} {PORT}" in seen
    # 224.0.0.1 is a group of the link, which the third case allows
    others = {one for one in seen if one.split()[1] not in {ALLOWED, "224.0.0.1"}}
    assert others == set()
    assert 1 <= len([line for line in result.stderr.splitlines() if line.startswith(REPORT)]) <= 64


def test_attacks_are_real(installation: Installation, world: World) -> None:
    """Without rules, they reach what the others deny."""
    words = installation.argv(
        "test", "/usr/bin/python3", "-c", ATTACK.read_text(), ALLOWED, options=["--net", "user"], memory="256M"
    )
    result = run_words(words, timeout=120)
    assert result.stdout.startswith(here(ALLOWED)), result
    expected = {f"{kind} {address} {PORT}" for kind in ("tcp", "udp") for address in (DENIED, THIRD, "127.0.0.1")}
    assert expected <= world.seen()


def test_reports_are_bounded(installation: Installation) -> None:
    script = f"""
        for tens in $(seq 10 19); do
            for port in $(seq ${{tens}}0 ${{tens}}9); do nc -w 1 {DENIED} $port </dev/null 2>/dev/null & done; wait
        done; true
    """
    _, reported = shell(installation, script, "--allow", ALLOWED)
    assert len(reported) == 64
    assert reported[-1].endswith("; further destinations are not reported")
    assert len(set(reported)) == 64


# Helpers and their ends


def processes() -> set[int]:
    """Return the process numbers of every passt and pasta."""
    pids = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if "(pass" in (entry / "stat").read_text() or "(past" in (entry / "stat").read_text():
                pids.add(int(entry.name))
    return pids


def helpers(launcher: int) -> dict[str, int]:
    """Return the process numbers of keeper, passt and pasta."""
    pids: dict[str, int] = {}

    def children(parent: int) -> list[int]:
        return [int(one) for one in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]

    for child in children(launcher):
        for grandchild in children(child):
            name = Path(f"/proc/{grandchild}/cmdline").read_text().split("\0")[0]
            pids |= {name: grandchild, "keeper": child}
    return pids


@pytest.mark.parametrize("victim", ["launcher", "keeper", "passt", "pasta"])
def test_no_helper_is_left(installation: Installation, victim: str) -> None:
    script = "echo up; while [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.1; done; echo down"
    with installation.running("minimal", "/bin/sh", "-c", script, options=["--allow", ALLOWED]) as machine:
        assert machine.stdout is not None
        assert machine.stdout.readline() == "up\n"
        pids = helpers(machine.pid)
        assert set(pids) == {"keeper", "passt", "pasta"}
        os.kill(machine.pid if victim == "launcher" else pids[victim], signal.SIGKILL)
        ends = [pid for name, pid in pids.items() if victim != "keeper" or name != "passt"]
        until(lambda: all(map(gone, ends)) or None, f"the end of {pids}")
        if victim in {"passt", "pasta"}:
            assert machine.stdout.readline() == "down\n"
            assert machine.wait(timeout=30) == 0
    until(lambda: all(map(gone, pids.values())) or None, f"the end of {pids}")


def test_root_is_nobody(installation: Installation, world: World) -> None:
    """As root, the helpers run as nobody. As an ordinary user, they are that user's."""
    root = Installation(installation.launcher, installation.kernel, installation.images, world.prefix)
    script = "echo up; read line"
    with ExitStack() as stack:
        words = root.argv("minimal", "/bin/sh", "-c", script, options=["--allow", ALLOWED])
        pipe = subprocess.PIPE
        machine = stack.enter_context(subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd="/"))
        stack.callback(machine.communicate, "\n")
        assert machine.stdout is not None
        assert machine.stdout.readline() == "up\n", machine.communicate()
        expected = 65534 if os.geteuid() == 0 else os.geteuid()
        for name, pid in helpers(machine.pid).items():
            status = Path(f"/proc/{pid}/status").read_text()
            assert re.search(rf"^Uid:\t{expected}\t{expected}\t", status, re.MULTILINE), (name, status)
            assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE) or name == "pasta", (name, status)


# Errors


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("", "'' is not a host or network"),
        ("1.2.3", "'1.2.3' is not a host or network"),
        ("0x7f.1", "'0x7f.1' is not a host or network"),
        ("a b", "'a b' is not a host or network"),
        ("example.org/24", "'example.org/24' is not a host or network"),
        ("[::1", "'[::1' is not a host or network"),
        ("[192.0.2.1]:80", "'[192.0.2.1]:80' is not a host or network"),
        ("*.example.org", "'*.example.org' has a wildcard (name each host, or a network)"),
        ("10.1.2.3/8", "10.1.2.3 has bits beyond its prefix length 8"),
        ("10.0.0.0/33", "'33' is not a prefix length"),
        ("192.0.2.1:0", "'0' is not a port"),
        ("192.0.2.1:65536", "'65536' is not a port"),
        ("192.0.2.1:5-3", "'5-3' is not a port"),
        ("127.0.0.1", "'127.0.0.1' needs a port, or at most 64 of them"),
        ("127.0.0.1:1-65535", "'127.0.0.1:1-65535' needs a port, or at most 64 of them"),
        ("127.0.0.53:53", "of the host's loopback, the guest can reach 127.0.0.1 only, not 127.0.0.53:53"),
        ("[::ffff:127.0.0.2]:53", "of the host's loopback, the guest can reach 127.0.0.1 only"),
        ("::1", "of the host's loopback, the guest can reach 127.0.0.1 only, not ::1"),
        ("evil.example", "evil.example has the address 127.0.0.1, of this host or link (if you mean it, write"),
        ("nosuch.example", "cannot look up nosuch.example: "),
    ],
)
def test_bad_rules(installation: Installation, rule: str, message: str) -> None:
    result = installation.run("minimal", "/bin/true", options=["--allow", rule])
    assert result.returncode == OWN_ERROR
    assert result.stderr.startswith(f"nabla-run: --allow: {message}")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith(")\n")


def test_combinations(installation: Installation) -> None:
    for options, message in (
        (["--net", "none", "--deny", "192.0.2.1"], "--deny requires --net user (use --net user)"),
        (
            ["--publish", f"{PORT}:80", "--allow", f"127.0.0.1:{PORT}"],
            f"--allow: port {PORT} of the host's loopback is published, too (publish another port)",
        ),
        (denied(*257 * ["192.0.2.1"]), "--deny: at most 256 rules are supported (name networks instead of addresses)"),
    ):
        result = installation.run("minimal", "/bin/true", options=options)
        assert (result.returncode, result.stderr) == (OWN_ERROR, f"nabla-run: {message}\n")


def test_dry_run(installation: Installation) -> None:
    options = ["--dry-run", "--allow", f"localhost:{LOOPBACK_PORT}", "--deny", "web.example"]
    result = installation.run("minimal", "/bin/true", options=options)
    lines = result.stdout.splitlines()
    assert f"network rule: allow localhost:{LOOPBACK_PORT}" in lines
    assert "network rule: deny web.example" in lines
    (gate,) = [line for line in lines if line.startswith("network gate: pasta ")]
    assert f"--tcp-ns {LOOPBACK_PORT} " in gate


def refused(installation: Installation, world: World, file: Path, *, instead_of: str) -> str:
    """Run on a host where a file is another one; return the error."""
    mount = ("unshare", "--mount", "sh", "-c", f'mount --bind {file} {instead_of} && exec "$@"', "sh")
    prefix = (*world.prefix, *mount, *installation.prefix[len(world.prefix) :])
    other = Installation(installation.launcher, installation.kernel, installation.images, prefix)
    result = other.run("minimal", "/bin/true", options=["--allow", ALLOWED])
    assert result.returncode == OWN_ERROR
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes what an ordinary user finds")
def test_host_that_lacks_something(installation: Installation, world: World, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    empty = tmp_path / "tun"
    empty.touch(mode=0o600)
    error = refused(installation, world, empty, instead_of="/dev/net/tun")
    assert "cannot start the network: pasta: " in error
    assert "(give this user access to /dev/net/tun, or leave out --allow and --deny)" in error
    broken = tmp_path / "nft"
    broken.write_text("#!/bin/sh\necho 'Error: Could not process rule: Operation not supported' >&2; exit 1\n")
    broken.chmod(0o755)
    error = refused(installation, world, broken, instead_of="/usr/sbin/nft")
    assert "--allow and --deny need nftables: nft: " in error
    assert "Could not process rule: Operation not supported" in error


def test_no_user_namespaces(installation: Installation) -> None:
    fence = [*installation.prefix, "bwrap", "--unshare-user", "--disable-userns", "--dev-bind", "/", "/"]
    inside = Installation(installation.launcher, installation.kernel, installation.images, tuple(fence))
    result = inside.run("minimal", "/bin/true", options=["--allow", ALLOWED])
    assert result.returncode == OWN_ERROR
    assert result.stderr.startswith("nabla-run: --allow and --deny need user namespaces: cannot create namespaces: ")
    assert result.stderr.count("\n") == 1


def test_udp_of_what_is_allowed(installation: Installation, world: World) -> None:
    script = f"echo hello | nc -u -w 2 {ALLOWED} {ECHO}; echo hello | nc -u -w 1 {DENIED} {ECHO}"
    output, reported = shell(installation, f"({script}); true", "--allow", f"{ALLOWED}:{ECHO}")
    assert (output, reported) == ("hello\n", [f"udp {DENIED}:{ECHO}"])
    assert world.seen() == {f"udp {ALLOWED} {ECHO}"}
