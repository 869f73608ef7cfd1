# SPDX-License-Identifier: Apache-2.0
"""Run the test suite of busybox, parse its output, and compare two runs.

The suite consists of shell scripts. They print one line for each test, `PASS: name`, `FAIL: name`, `SKIPPED: name` or
`UNTESTED: name`, among other output.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nabla.core import toml
from nabla.core.artifacts import Tree, image_path
from nabla.core.errors import NablaError, RecipeError
from nabla.core.paths import MUSL, NABLA_RUN, OUT, RECIPES, TESTS, relative
from nabla.core.process import run
from nabla.engine.action import Job
from nabla.sandbox import bwrap
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources import recipe
from nabla.sources.archives import fetched

STOCK = OUT / "check" / "busybox"
REPORT = OUT / "check" / "busybox-testsuite.md"
KNOWN = TESTS / "busybox" / "failures.toml"
FRAGMENT = RECIPES / "busybox" / "busybox.config"
IMAGE = image_path("minimal")
# Most of the time passes in waiting for names that do not resolve.
TIMEOUT = 900.0

_BUILD = """
tar xjf "/src/$TARBALL" --strip-components=1
make HOSTCC='ccache gcc-12' defconfig >/dev/null
sed -n 's/^# \\(CONFIG_[A-Za-z0-9_]*\\) is not set$/\\1/p; s/^\\(CONFIG_[A-Za-z0-9_]*\\)=.*/\\1/p' fragment >wanted
grep -vwFf wanted .config >default
cat default fragment >.config
yes '' | make HOSTCC='ccache gcc-12' oldconfig >/dev/null
cat >static-cc <<'END'
#!/bin/sh
case " $* " in *" -c "* | *" -r "* | *" -Wl,-r "* | *" -E "* | *" -S "*) ;; *) set -- -static-pie "$@" ;; esac
exec x86_64-linux-musl-gcc "$@"
END
chmod +x static-cc
make -j"$JOBS" CC=/build/static-cc HOSTCC='ccache gcc-12' busybox busybox.links
mkdir -p result/root/bin result/root/sbin result/root/usr/bin result/root/usr/sbin
mkdir result/root/dev result/root/proc result/root/tmp result/root/root result/root/etc
cp busybox result/root/bin/
while read -r link; do test -e "result/root$link" || ln -s /bin/busybox "result/root$link"; done <busybox.links
echo root:x:0:0:root:/root:/bin/sh >result/root/etc/passwd
echo root:x:0: >result/root/etc/group
cp -R testsuite .config result/
"""

# /bin/sh runs it in a root with busybox in /bin; standard input is a tar archive of the suite.
SCRIPT = """
mkdir /tmp/bb && cd /tmp/bb && tar xf - && ln -s /bin/busybox busybox && cd testsuite || exit 125
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root SHELL=/bin/sh SKIP_INTERNET_TESTS=1
./runtest -v </dev/null >/tmp/log 2>&1
cat /tmp/log
"""

_LINE = re.compile(r"^(PASS|FAIL|SKIPPED|UNTESTED): (.+)$", re.MULTILINE)
# Options of the guest's build that the stock build must not have.
_GUEST_ONLY = re.compile(r"INSTALL_APPLET|CONFIG_PIE")


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A known failure with its reason."""

    name: str
    why: str


class KnownFailures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """tests/busybox/failures.toml: failures in the guest only, and failures that stock busybox on the host has, too."""

    guest: tuple[Known, ...] = ()
    both: tuple[Known, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two runs of the suite: test name -> result."""

    guest: Mapping[str, str]
    host: Mapping[str, str]

    @property
    def guest_only(self) -> list[str]:
        """Tests that fail in the guest only."""
        return [name for name, result in self.guest.items() if result == "FAIL" and self.host.get(name) != "FAIL"]

    @property
    def shared(self) -> list[str]:
        """Tests that fail in both."""
        return [name for name, result in self.guest.items() if result == "FAIL" and self.host.get(name) == "FAIL"]

    @property
    def missing(self) -> list[str]:
        """Tests with a result in one of the runs only."""
        return sorted(self.guest.keys() ^ self.host.keys())


def parse(log: bytes) -> dict[str, str]:
    """Return test name -> result. The second and later tests with the same name get a number."""
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


def stock_fragment(fragment: str) -> str:
    """Return the configuration fragment for an unpatched, static busybox on the host."""
    lines = [line for line in fragment.splitlines() if line.startswith(("CONFIG_", "# CONFIG_"))]
    return "\n".join([*(line for line in lines if not _GUEST_ONLY.search(line)), ""])


def read_known(path: Path) -> KnownFailures:
    """Read the list of known failures; raises `RecipeError`."""
    return toml.read(path, RecipeError).convert(KnownFailures)


def unexplained(comparison: Comparison, known: KnownFailures) -> list[str]:
    """Return one line for each unlisted failure, and for each listed failure that did not occur."""
    lines = []
    for where, failed, listed in (
        ("in the guest only", comparison.guest_only, known.guest),
        ("in the guest and on the host", comparison.shared, known.both),
    ):
        names = {entry.name for entry in listed}
        lines += [f"fails {where}, not listed: {name}" for name in failed if name not in names]
        lines += [f"listed as failing {where}, but passes: {name}" for name in sorted(names - set(failed))]
    return lines


def report(comparison: Comparison, known: KnownFailures) -> str:
    """Return the report as Markdown."""
    guest, host = Counter(comparison.guest.values()), Counter(comparison.host.values())
    lines = [
        "# busybox's own test suite in the guest",
        "",
        "Written by `./doit.sh check:busybox`, which runs the suite of busybox 1.37.0 twice: in a VM with the minimal",
        "image, by nabla's busybox; and in a sandbox on the host, by upstream's busybox of the same version.",
        "Both run with ash, in a tmpfs and without a network.",
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


class CheckError(NablaError):
    """A test suite has failures that are not listed."""


def build_stock(job: Job) -> None:
    """Step: build an unpatched busybox for the host, in its own root, with the suite and its .config."""
    work = job.scratch()
    (work / "fragment").write_text(stock_fragment(FRAGMENT.read_text(encoding="utf-8")))
    tarball = fetched(recipe.load("busybox"))["busybox"]
    binds = (Bind(work, "/build", writable=True), Bind(tarball.parent, "/src"), Bind(MUSL, "/sysroot"))
    sandbox = Sandbox(binds, {"JOBS": str(bwrap.jobs()), "TARBALL": tarball.name})
    sandbox.run(_BUILD, title="upstream's busybox", log=job.log)
    (work / "result").rename(job.out(Tree(STOCK)))


def check_busybox(job: Job) -> None:
    """Step: run the suite in the guest and on the host and write the report; fail on an unlisted failure."""
    suite = archive(STOCK / "testsuite", STOCK / ".config")
    guest: list[str | Path] = [NABLA_RUN, "--ephemeral", "--memory", "1G", IMAGE, "--", "/bin/sh", "-c", SCRIPT]
    host = [*bwrap.base(STOCK / "root", user=0), "--die-with-parent", "--new-session", "--clearenv"]
    host += ["/bin/sh", "-c", SCRIPT]
    comparison = Comparison(_run(job, "guest", guest, suite), _run(job, "host", host, suite))
    known = read_known(KNOWN)
    job.out(REPORT).write_text(report(comparison, known), encoding="utf-8")
    problems = unexplained(comparison, known)
    for problem in problems:
        job.note(problem)
    if problems:
        hint = f"{len(problems)} differences from {relative(KNOWN)}, see {relative(job.log)}"
        raise CheckError(f"busybox's test suite: {problems[0]}", hint)


def _run(job: Job, where: str, argv: Sequence[str | Path], suite: bytes) -> dict[str, str]:
    log = job.log.with_name(f"check:busybox-{where}.log")
    log.unlink(missing_ok=True)
    run(argv, log=log, input=suite, timeout=TIMEOUT)
    results = parse(log.read_bytes())
    if len(results) < 500:
        raise CheckError(f"busybox's test suite ended early ({where}): {len(results)} results", f"see {relative(log)}")
    return results
