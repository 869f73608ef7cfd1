# SPDX-License-Identifier: Apache-2.0
"""nabla-run's options: each one, errors in them, and the output of --help, --manual and --dry-run."""

from __future__ import annotations

import random
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from nabla.core.paths import NABLA_RUN, ROOT

from .launcher import NOBODY, OWN_ERROR, launch, refused

OPTIONS = (
    "memory", "disk", "mount", "name", "pin", "read-only", "ephemeral", "kernel", "init", "append", "verbose",
    "follow-symlinks",
    "env", "workdir", "user", "service", "hostname", "snapshot", "snapshot-then-exit", "restore", "cold",
    "net", "publish", "dns", "ip", "allow", "deny",
    "run-as", "jail", "trace-policy", "timeout", "cpu-time", "nice", "max-output", "max-cow",
    "json", "stats-fd", "dry-run", "manual", "version", "help",
)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no image given"),
        (["--"], "no image given"),
        (["--", "ls"], "no image given"),
        ([""], "image name is empty"),
        (["x", "y"], "unexpected argument 'y' (the command follows --)"),
        (["x", "--", ""], "command name is empty"),
        (["-x"], "unknown option -x"),
        (["--memoryy", "64M", "x"], "unknown option --memoryy"),
        (["--mem", "64M", "x"], "unknown option --mem"),
        (["--service", "../x", "x"], "'../x' is not a service name"),
        (["--service", "", "x"], "'' is not a service name"),
        (["--=", "x"], "unknown option --"),
        (["--The machine", "x"], "unknown option --The machine"),
        (["--memory"], "--memory needs a value: SIZE"),
        (["--memory", "", "x"], "'' is not a size"),
        (["--memory", " 64M", "x"], "is not a size"),
        (["--memory", "-64M", "x"], "is not a size"),
        (["--memory", "64MB", "x"], "is not a size"),
        (["--memory", "0x40M", "x"], "is not a size"),
        (["--memory", "64T", "x"], "is not a size"),
        (["--memory", "23M", "x"], "the minimum is 24 MiB"),
        (["--memory", "99999999999999999999G", "x"], "more than this host has"),
        (["--memory=17179869185G", "x"], "more than this host has"),  # 2**64 + 2**30 bytes
        (["--read-only=yes", "x"], "--read-only takes no value"),
        (["--read-only", "--ephemeral", "x"], "exclude each other"),
        (["--disk", "", "x"], "has no path"),
        (["--disk", ",ro", "x"], "has no path"),
        (["--disk", "a,ro,cow", "x"], "exclude each other"),
        (["--disk", "a,ro,ro", "x"], "repeats a flag"),
        ([*(["--disk", "a"] * 8), "x"], "at most 8 disks"),
        (["--kernel", "", "x"], "the path is empty"),
        (["--init", "sh", "x"], "does not begin with /"),
        (["--init", "/a b", "x"], "contains blanks or quotes"),
        (["--env", "=x", "x"], "is not an assignment"),
        (["--env", "A", "x"], "is not an assignment"),
        (["--workdir", "tmp", "x"], "does not begin with /"),
        (["--hostname", "", "x"], "is not a host name"),
        (["--hostname", "a b", "x"], "is not a host name"),
        (["--hostname", "a" * 65, "x"], "is not a host name"),
        (["--user", "", "x"], "is not a user of the guest"),
        (["--user", "-a", "x"], "is not a user of the guest"),
        (["--user", "a b", "x"], "is not a user of the guest"),
        (["--user", "a:", "x"], "is not a user of the guest"),
        (["--user", "1:2:3", "x"], "is not a user of the guest"),
        (["--user", "4294967295", "x"], "is not a user of the guest"),
        (["--run-as", "root", "x"], "is not a user of the host"),
        (["--run-as", "4294967295", "x"], "is not a user of the host"),
        (["--run-as", "1:", "x"], "is not a user of the host"),
        (["--timeout", "0", "x"], "is not a time"),
        (["--timeout", "0.0", "x"], "is not a time"),
        (["--timeout", "1.", "x"], "is not a time"),
        (["--timeout", ".5", "x"], "is not a time"),
        (["--timeout", "-1", "x"], "is not a time"),
        (["--timeout", "1e3", "x"], "is not a time"),
        (["--timeout", "inf", "x"], "is not a time"),
        (["--timeout", "99999999999", "x"], "is not a time"),
        (["--stats-fd", "77", "x"], "descriptor 77 is not open"),
        (["--stats-fd", "one", "x"], "is not a descriptor"),
        (["--net", "bridge", "x"], "is not a kind of network"),
        (["--net", "tap=", "x"], "is not a network interface name"),
        (["--net", "tap=a/b", "x"], "is not a network interface name"),
        (["--net", "tap=" + "a" * 16, "x"], "is not a network interface name"),
        (["--net", "fd=", "x"], "is not a descriptor"),
        (["--net", "fd=2", "x"], "is the console's"),
        (["--net", "fd=99999999999", "x"], "is not a descriptor"),
        (["--publish", "80", "x"], "is not a pair of ports"),
        (["--publish", "0:80", "x"], "is not a pair of ports"),
        (["--publish", "80:65536", "x"], "is not a pair of ports"),
        (["--publish", "80:80/sctp", "x"], "is not a pair of ports"),
        (["--publish", "localhost:80:80", "x"], "is not an IPv4 address"),
        (["--publish", ":80:80", "x"], "is not an IPv4 address"),
        (["--publish", "80:80", "--publish", "80:81", "x"], "published twice"),
        (["--publish", "1.2.3.4:80:80/tcp", "--publish", "5.6.7.8:80:81", "x"], "published twice"),
        (["--publish", "80:80", "--net", "none", "x"], "requires --net user"),
        (["--publish", "80:80", "--net", "tap=t", "x"], "requires --net user"),
        (["--net", "user", "--dns", "a.b.c.d", "x"], "is not an IPv4 address"),
        (["--net", "user", *(["--dns", "1.1.1.1"] * 4), "x"], "name servers are supported"),
        (["--dns", "1.1.1.1", "x"], "has no network"),
        (["--ip", "10.0.0.2/24", "x"], "has no network"),
        (["--net", "user", "--ip", "10.0.0.2/24", "x"], "needs a gateway"),
        (["--ip", "10.0.0.2", "x"], "is not an IPv4 address"),
        (["--ip", "10.0.0.2/33", "x"], "is not an IPv4 address"),
        (["--ip", "10.0.0.2/24,10.0.0", "x"], "gateway '10.0.0' is not"),
        (["--trace-policy", "--net", "user", "--ephemeral", "x"], "--trace-policy"),
    ],
)
def test_wrong_options(words: list[str], message: str) -> None:
    refused(message, *words)


@pytest.mark.parametrize(
    "word",
    ["ubd1=fd:3", "eth0=fd:0", "status=fd:0", "policy=trace", "mem=1G", "init=/x", "rdinit=/x", "root=x", "ro", "rw"],
)
def test_nobody_weakens_the_border_by_appending(word: str) -> None:
    refused("is reserved for nabla-run", "--append", f"panic=1 {word}", "x")
    refused("is reserved for nabla-run", "--append", f"\t{word}\n", "x")
    refused("quotes are not supported", "--append", f'"a {word}"', "x")
    refused("'--' is not a kernel parameter", "--append", f"a -- {word}", "x")


def test_no_words_at_all() -> None:
    """Not even argv[0], as execve allows."""
    result = subprocess.run([], executable=NABLA_RUN, capture_output=True, text=True, check=False)
    assert result.returncode == OWN_ERROR
    assert "no image given" in result.stderr


def test_messages_do_not_steer_the_terminal() -> None:
    refused("unknown option --?[31mred?", "--\033[31mred\n")


def test_help_and_version() -> None:
    shown = launch("--help")
    assert shown.returncode == 0
    assert re.findall(r"^  --([\w-]+)", shown.stdout, re.MULTILINE) == [*OPTIONS]
    assert max(map(len, shown.stdout.splitlines())) <= 140
    assert launch("-h").stdout == shown.stdout
    assert launch("--version").stdout.startswith("nabla-run 0.")


def test_manual_is_the_page_in_docs() -> None:
    shown = launch("--manual")
    assert shown.returncode == 0
    page = ROOT / "docs" / "nabla-run.md"
    hint = "hint: out/bin/nabla-run --manual >docs/nabla-run.md"
    assert shown.stdout == page.read_text(), hint
    assert re.findall(r"^### `--([\w-]+)", shown.stdout, re.MULTILINE) == [*OPTIONS]


# The effect of valid options


def message(*words: str | Path) -> dict[str, str]:
    """The lines of --dry-run."""
    result = launch("--dry-run", *words)
    assert result.returncode == 0, result.stderr
    return dict(line.split(": ", 1) for line in result.stdout.splitlines())


def command(*words: str | Path) -> list[str]:
    return shlex.split(message(*words)["command"])


def test_dry_run_quotes_for_a_shell(image: Path) -> None:
    options = ["--memory=64M", "--env", "A=it's", "--workdir", "/tmp", "--hostname", "h", "--user", "nobody:10"]
    arguments = command(*options, image, "--", "a b", "--kernel", "")
    assert arguments[0].endswith("vmlinux")
    assert {"mem=65536K", "ubd0=fd:3", "status=fd:12", "init=/sbin/nabla-init"} <= set(arguments)
    settings = arguments[arguments.index("--") + 1 :]
    wanted = ["arg=a b", "arg=--kernel", "arg=", "env=A=it's", "workdir=/tmp", "hostname=h", "user=nobody:10", "tty=0"]
    assert settings == wanted


def test_dry_run_tells_everything(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "with a blank"
    other.write_bytes(bytes(1024))
    lines = message("--disk", f"{other},ro", "--ephemeral", "--timeout", "1.5", "--jail", image)
    assert lines["kernel"].endswith("vmlinux")
    assert lines["descriptor 0"] == "standard input"
    assert lines["descriptor 3, disk, copy on write"] == str(image)
    assert lines["descriptor 4, disk, read-only"] == f"'{other}'"
    assert lines["descriptor 12"] == "status page"
    assert lines["namespaces"] == "mount, pid, net, ipc, uts"
    assert lines["timeout"] == "1.5 seconds"
    assert lines["limit RLIMIT_NPROC"] == "1"
    assert lines["limit RLIMIT_CORE"] == "0"
    assert lines["limit RLIMIT_NOFILE"] == "13"
    needed = (256 << 20) + image.stat().st_size + (66 << 30)
    assert needed < int(lines["limit RLIMIT_AS"]) < needed + (8 << 20)


def test_dry_run_of_networks(image: Path) -> None:
    assert "eth0" not in " ".join(command(image))
    lines = message("--publish", "8080:80", "--dns", "1.1.1.1", "--ephemeral", image)
    assert "passt" in lines["network helper"]
    assert "8080" in lines["network helper"]
    assert "eth0=fd:11,stream" in shlex.split(lines["command"])
    assert lines["descriptor 11"] == "network, socket to the network helper"


def test_limit_of_file_size(image: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(image.stat().st_size + 512))

    def limit(*words: str | Path) -> str:
        """With streams that are not files."""
        lines = launch("--dry-run", *words).stdout.splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("limit RLIMIT_FSIZE"))

    assert limit(image) == str(image.stat().st_size)
    assert limit("--disk", big, image) == str(big.stat().st_size)
    assert limit("--disk", f"{big},cow", "--ephemeral", image) == "0"
    assert limit("--disk", f"{big},ro", "--read-only", image) == "0"
    with (tmp_path / "log").open("w") as log:
        subprocess.run([NABLA_RUN, "--dry-run", image], stdout=log, check=True)
    assert "limit RLIMIT_FSIZE: unlimited" in (tmp_path / "log").read_text()


def test_who_the_machine_is(image: Path, as_root: bool) -> None:
    if as_root:
        assert message(image)["user"] == f"{NOBODY}:{NOBODY}"
        assert message("--run-as", "1000", image)["user"] == "1000:1000"
        assert message("--run-as", "1000:50", image)["user"] == "1000:50"
        assert message("--run-as", "0", image)["user"] == "0:0"
        refused("not allowed for root", "--trace-policy", "--ephemeral", image)
    else:
        refused("only root can select another user", "--run-as", "0", image)


def test_modes_of_the_image(image: Path) -> None:
    assert {"rw", "ubd0=fd:3"} <= set(command(image))
    assert {"ro", "ubd0=fd:3,ro"} <= set(command("--read-only", image))
    assert {"rw", "ubd0=fd:3,cow"} <= set(command("--ephemeral", image))
    assert {"a=1", "b"} <= set(command("--append", " a=1  b ", image))
    assert "loglevel=7" in command("--verbose", image)
    assert "init=/bin/sh" in command("--init", "/bin/sh", image)
    assert "policy=trace" not in command(image)


def test_random_options() -> None:
    """Any invalid arguments: its own status, one line, no crash."""
    chosen = random.Random(20260601)
    pieces = ["--", "-", "--env", "--memory", "--append=", "=", "\n", "%s%n", "é", "a" * 5000, "/dev", "--dry-run"]
    pieces += [f"--{name}" for name in OPTIONS]
    for _ in range(400):
        words = [chosen.choice(pieces) + chosen.choice(["", "", "=", "x", "=1"]) for _ in range(chosen.randrange(6))]
        result = launch(*words)
        assert result.returncode in (0, OWN_ERROR), words
        assert result.returncode == 0 or result.stderr.startswith("nabla-run: "), words
        assert result.returncode == 0 or result.stderr.count("\n") == 1, words
