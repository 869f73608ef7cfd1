# SPDX-License-Identifier: Apache-2.0
"""nabla-run against hostile input: random and mutated arguments. test_fuzz_launcher_files.py damages images and
kernels, test_fuzz_launcher_signals.py closes streams and sends signals.

Every case requires one clear line for an error, the right status, no crash, nothing left behind, and the terminal
restored. The launcher is compiled with the address and undefined behavior sanitizers (and used as built where timing
matters). All random choices have fixed seeds; a failure prints the arguments.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from .hostile import Victim, is_one_line
from .launcher import OWN_ERROR

SWITCHES = (
    "--read-only",
    "--ephemeral",
    "--verbose",
    "--jail",
    "--json",
    "--trace-policy",
    "--dry-run",
    "--follow-symlinks",
)
VALUES: dict[str, tuple[str, ...]] = {
    "--memory": (
        "64M",
        "24M",
        "15M",
        "0",
        "1G",
        "18446744073709551615",
        "17592186044415M",
        "9" * 30 + "G",
        "1K",
        "64m",
    ),
    "--disk": (
        "OTHER,ro",
        "OTHER",
        "IMAGE,ro",
        "IMAGE,cow",
        "IMAGE",
        ",ro",
        "IMAGE,ro,cow",
        "/dev/null",
        "/",
        ",",
        ",,,,ro",
    ),
    "--kernel": ("KERNEL", "/", "/dev/null", "IMAGE", "", "KERNEL/x", "/proc/self/exe", "/etc/passwd"),
    "--init": ("/sbin/nabla-init", "sh", "/a b", "/" + "x" * 5000, '/"'),
    "--append": (
        "panic=1",
        "a b  c",
        "--",
        "mem=1G",
        'a"b',
        "x" * 5000,
        " ",
        "\t\n",
        "policy=trace",
        "=",
        "ubd",
        "eth0",
    ),
    "--env": ("A=1", "=", "A", "A=" + "x" * 5000, "A==", "A=\n\x1b[2J"),
    "--workdir": ("/", "tmp", "/" * 3000, ""),
    "--user": ("root", "0:0", ":", "4294967295", "4294967294", "a:b", "-x", "99999999999999999999", "x" * 65),
    "--hostname": ("h", "x" * 64, "x" * 65, "a b", "é"),
    "--net": (
        "none",
        "user",
        "tap=",
        "tap=tap99",
        "tap=" + "x" * 99,
        "fd=0",
        "fd=99",
        "fd=-1",
        "fd=",
        "fd=4294967297",
        "x",
    ),
    "--publish": ("8080:80", "0.0.0.0:8080:80/udp", "0:0", "65536:1", "1:65536", "1.2.3:4:5", ":::::", "80", "1:2/tcp"),
    "--dns": ("9.9.9.9", "256.1.1.1", "1.1.1", "::1", "09.9.9.9", "1.1.1.1 "),
    "--ip": ("10.0.0.2/24,10.0.0.1", "10.0.0.2/33", "10.0.0.2", "10.0.0.2/", "10.0.0.2/24,", "10.0.0.2/0", "/24"),
    "--run-as": ("65534", "0", "1000:1000", "4294967295", "1:", ":1", "root", "1:4294967295"),
    "--timeout": ("1", "0.5", "0", "0.", ".5", "1e9", "1000000000", "0.0000000001", "9" * 40, "1." + "9" * 100),
    "--cpu-time": ("60", "none", "0.25", "0", "-1", "1e3", "9" * 40, "1000000001", "None"),
    "--nice": ("10", "0", "19", "20", "-1", "+1", "4294967296", ""),
    "--max-output": ("1M", "none", "0", "18446744073709551615", "9" * 30 + "G", "1T", "-1", "none "),
    "--max-cow": ("1G", "none", "0", "18446744073709551615K", "1KB", "", "0x10"),
    "--stats-fd": ("2", "0", "99", "-1", "4294967298", "2147483648", "1x"),
}
NOISE = (
    "",
    "-",
    "--",
    "---",
    "-h",
    "--help",
    "--version",
    "--manual",
    "=",
    "--=",
    "--memory=",
    "%s%n%n%d",
    "é",
    "\x1b[2J",
    "x" * 5000,
)


def make_words(chosen: random.Random, names: dict[str, str]) -> list[bytes]:
    """Return a mostly valid command line."""
    words = ["--net=user"] if chosen.random() < 0.5 else []
    for _ in range(chosen.randrange(6)):
        if chosen.random() < 0.3:
            words.append(chosen.choice(SWITCHES))
            continue
        option = chosen.choice([*VALUES])
        # The first one is good.
        value = VALUES[option][0] if chosen.random() < 0.8 else chosen.choice(VALUES[option])
        value = re.sub("IMAGE|KERNEL|OTHER", lambda match: names[match[0]], value)
        words += [f"{option}={value}"] if chosen.random() < 0.4 else [option, value]
    words += [names["IMAGE"]] if chosen.random() < 0.9 else []
    words += ["--", "true"] if chosen.random() < 0.3 else []
    return [word.encode() for word in words]


def mutate(chosen: random.Random, words: list[bytes]) -> list[bytes]:
    """Damage a command line."""
    words = list(words)
    for _ in range(chosen.randrange(4)):
        at = chosen.randrange(len(words) + 1)
        kind = chosen.randrange(6)
        if kind == 0:
            words.insert(at, chosen.choice(NOISE).encode())
        elif kind == 1 and words:
            del words[at % len(words)]
        elif kind == 2 and words:
            words.insert(at, chosen.choice(words))
        elif words:
            word = bytearray(words[at % len(words)])
            if word and kind == 3:
                word[chosen.randrange(len(word))] = chosen.randrange(1, 256)
            elif kind == 4:
                del word[chosen.randrange(len(word) + 1) :]
            else:
                word[chosen.randrange(len(word) + 1) :] = bytes(chosen.choices(range(1, 256), k=chosen.randrange(40)))
            words[at % len(words)] = bytes(word)
    return words


def test_options(victim: Victim, tmp_path: Path) -> None:
    """Nothing is started: --dry-run stands in front, so that whatever follows is read, too."""
    chosen = random.Random(20260601)
    names = {"IMAGE": str(victim.image), "KERNEL": str(victim.kernel), "OTHER": str(tmp_path / "other")}
    (tmp_path / "other").write_bytes(bytes(4096))
    seen = {0: 0, OWN_ERROR: 0}
    for number in range(300):
        words = make_words(chosen, names)
        seen[victim.judge("--dry-run", *(mutate(chosen, words) if number % 3 else words))] += 1
    assert min(seen.values()) > 50, seen  # some arguments are valid and some are not


def test_options_of_machines_that_run(victim: Victim) -> None:
    """Valid options in any combination start a VM or are refused; the exit status is the command's."""
    chosen = random.Random(7)
    good = [
        "--read-only",
        "--ephemeral",
        "--verbose",
        "--json",
        "--memory=32M",
        "--memory=200M",
        "--env=A=b",
        "--workdir=/tmp",
    ]
    good += [
        "--user=0",
        "--user=1000:1000",
        "--hostname=h",
        "--append=a b",
        "--timeout=30",
        "--stats-fd=1",
        "--jail",
        "--ip=1.2.3.4/5",
    ]
    good += [
        f"--disk={victim.image},ro",
        f"--disk={victim.image},cow",
        "--run-as=0",
        "--run-as=12345",
        "--net=none",
        "--dns=1.1.1.1",
    ]
    good += ["--cpu-time=30", "--nice=3", "--max-output=1M", "--max-cow=500M", "--follow-symlinks"]
    seen = {7: 0, OWN_ERROR: 0}
    for _ in range(60):
        words = [*chosen.sample(good, chosen.randrange(7)), "--kernel", str(victim.kernel), str(victim.image)]
        result = victim.run(*words, "--", "sh", "-c", "exit 7")
        assert result.returncode in seen, (words, result)
        assert result.returncode == 7 or is_one_line(result.stderr), (words, result)
        seen[result.returncode] += 1
    assert min(seen.values()) > 5, seen
