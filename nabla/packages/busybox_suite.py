# SPDX-License-Identifier: Apache-2.0
"""busybox's own test suite: run it, read what it says, set two runs side by side.

The suite is a folder of shell scripts. They print one line for each test, `PASS: name`, `FAIL: name`, `SKIPPED: name`
or `UNTESTED: name`, between output of their own.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nabla.core import toml
from nabla.core.errors import RecipeError

#: Run by /bin/sh in a root that has busybox in /bin; the suite comes as a tar archive on standard input.
SCRIPT = """
mkdir /tmp/bb && cd /tmp/bb && tar xf - && ln -s /bin/busybox busybox && cd testsuite || exit 125
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root SHELL=/bin/sh SKIP_INTERNET_TESTS=1
./runtest -v </dev/null >/tmp/log 2>&1
cat /tmp/log
"""

_LINE = re.compile(r"^(PASS|FAIL|SKIPPED|UNTESTED): (.+)$", re.MULTILINE)
_MINUS_MMU = re.compile(r"NOMMU|ASH|HUSH|EXEC_PATH|INSTALL_APPLET|CONFIG_PIE")


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A failure that is known, with its reason."""

    name: str
    why: str


class KnownFailures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """tests/busybox-failures.toml: failures of the guest alone, and those that stock busybox on the host shares."""

    guest: tuple[Known, ...] = ()
    both: tuple[Known, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two runs of the suite: test name -> result."""

    guest: Mapping[str, str]
    host: Mapping[str, str]

    @property
    def guest_only(self) -> list[str]:
        """Tests that fail in the guest and do not fail on the host."""
        return [name for name, result in self.guest.items() if result == "FAIL" and self.host.get(name) != "FAIL"]

    @property
    def shared(self) -> list[str]:
        """Tests that fail in both."""
        return [name for name, result in self.guest.items() if result == "FAIL" and self.host.get(name) == "FAIL"]

    @property
    def missing(self) -> list[str]:
        """Tests that the host ran and the guest never came to, or the other way round."""
        return sorted(self.guest.keys() ^ self.host.keys())


def parse(log: bytes) -> dict[str, str]:
    """Return test name -> result. Of several tests of one name, the second and later ones get a number."""
    results: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for result, raw in _LINE.findall(log.decode("utf-8", "replace").replace("\r\n", "\n")):
        name = raw.strip()
        seen[name] += 1
        results[name if seen[name] == 1 else f"{name} ({seen[name]})"] = result
    return results


def archive(testsuite: Path, config: Path) -> bytes:
    """Return a tar archive of the suite, with the configuration where its scripts look for it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(testsuite, "testsuite")
        tar.add(config, ".config")
    return buffer.getvalue()


def stock_fragment(ours: str) -> str:
    """Return our configuration fragment for a machine with an MMU: upstream's shell, and fork."""
    lines = [line for line in ours.splitlines() if line.startswith(("CONFIG_", "# CONFIG_"))]
    kept = [line for line in lines if not _MINUS_MMU.search(line)]
    return "\n".join([*kept, ""])


def read_known(path: Path) -> KnownFailures:
    """Read the list of known failures; raises `RecipeError`."""
    return toml.read(path, RecipeError).convert(KnownFailures)


def unexplained(comparison: Comparison, known: KnownFailures) -> list[str]:
    """Return one line for each failure that is not listed, and for each listed one that did not happen."""
    lines = []
    for what, found, listed in (
        ("in the guest alone", comparison.guest_only, known.guest),
        ("in the guest and on the host", comparison.shared, known.both),
    ):
        names = {entry.name for entry in listed}
        lines += [f"fails {what}, not listed: {name}" for name in found if name not in names]
        lines += [f"listed as failing {what}, but does not: {name}" for name in sorted(names - set(found))]
    return lines


def report(comparison: Comparison, known: KnownFailures) -> str:
    """Return the report as Markdown."""
    guest, host = Counter(comparison.guest.values()), Counter(comparison.host.values())
    lines = [
        "# busybox's own test suite in the guest",
        "",
        "Written by `./doit.sh check:busybox`, which runs the suite of busybox 1.37.0 twice: in a virtual machine with",
        "the minimal image, by our busybox, whose shell is hush; and on the host, in a sandbox, by the same version as",
        "upstream has it, with ash and fork. Both run in a tmpfs and without a network.",
        "",
        "| | passed | failed | skipped | not applicable |",
        "|---|---|---|---|---|",
    ]
    for where, counts in (("guest, ours", guest), ("host, stock", host)):
        cells = [str(counts[key]) for key in ("PASS", "FAIL", "SKIPPED", "UNTESTED")]
        lines.append(f"| {where} | {' | '.join(cells)} |")
    for title, names, listed in (
        ("## Failures that stock busybox on the host does not share", comparison.guest_only, known.guest),
        ("## Failures that it shares", comparison.shared, known.both),
    ):
        reasons = {entry.name: entry.why for entry in listed}
        lines += ["", title, ""]
        lines += [f"* `{name}`: {reasons.get(name, 'not explained yet')}" for name in names] or ["None."]
    if comparison.missing:
        lines += ["", "## Tests that ran in one place only", ""]
        for name in comparison.missing:
            where, runs = ("guest", comparison.guest) if name in comparison.guest else ("host", comparison.host)
            lines.append(f"* `{name}`: {where}, {runs[name]}")
    return "\n".join([*lines, ""])
