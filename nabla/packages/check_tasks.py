# SPDX-License-Identifier: Apache-2.0
"""Checks that take minutes: other projects' own test suites, run inside the machine.

musl -> check:stock-busybox -> out/check/busybox
kernel, launcher, rootfs:minimal, check:stock-busybox -> check:busybox -> out/check/busybox-testsuite.md
kernel, launcher, rootfs:packages -> check:<recipe with tests> -> out/check/<recipe>.json
Areas with other checks say so by `check_steps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nabla.core import process
from nabla.core.artifacts import Tree, package_record
from nabla.core.errors import NablaError
from nabla.core.paths import IMAGES, MUSL, NABLA_RUN, OUT, RECIPES, TESTS, VMLINUX, relative
from nabla.engine import discovery, task
from nabla.engine.task import Job, TaskDict
from nabla.packages import busybox_suite, catalog, upstream_tests
from nabla.sandbox import bwrap
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources import fetch, recipe

STOCK = OUT / "check" / "busybox"
REPORT = OUT / "check" / "busybox-testsuite.md"
KNOWN = TESTS / "busybox-failures.toml"
FRAGMENT = RECIPES / "busybox" / "busybox.config"
IMAGE = IMAGES / "minimal.ext3"
PACKAGES_IMAGE = IMAGES / "packages.ext3"
# Waiting for names that do not resolve takes most of it.
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


class CheckError(NablaError):
    """A test suite tells of failures that nobody knew."""


def task_check() -> Iterator[TaskDict]:
    """Run other projects' test suites inside the machine."""
    yield task.group("check", "run other projects' own test suites inside the machine (minutes)")
    yield task.step(
        "check:stock-busybox",
        build_stock,
        doc="build busybox as upstream has it, to compare with",
        inputs=[FRAGMENT, Tree(MUSL)],
        outputs=[Tree(STOCK)],
        after=["toolchain:unpack", "musl:install"],
        code=[busybox_suite],
    )
    yield task.step(
        "check:busybox",
        check_busybox,
        doc="run busybox's test suite in the guest and on the host",
        inputs=[Tree(STOCK), IMAGE, VMLINUX, NABLA_RUN, KNOWN],
        outputs=[REPORT],
        after=["check:stock-busybox", "rootfs:minimal", "kernel:build", "launcher:install"],
        code=[busybox_suite],
    )
    for name in catalog.names():
        loaded = recipe.load(name)
        if loaded.package is not None and loaded.package.check:
            yield task.step(
                f"check:{name}",
                check_package,
                doc=f"run the tests of {name} in the guest, as its recipe says",
                inputs=[package_record(name), PACKAGES_IMAGE, VMLINUX, NABLA_RUN],
                outputs=[OUT / "check" / f"{name}.json"],
                after=["rootfs:packages", "kernel:build", "launcher:install"],
                config=loaded.package.check,
                code=[upstream_tests],
                args=[name],
            )
    yield from discovery.steps("check_steps")


def build_stock(job: Job) -> None:
    """Build unpatched busybox for a machine with an MMU, in a root of its own, beside the suite and its .config."""
    work = job.scratch()
    (work / "fragment").write_text(busybox_suite.stock_fragment(FRAGMENT.read_text(encoding="utf-8")))
    tarball = fetch.fetch(recipe.load("busybox").source[0])
    binds = (Bind(work, "/build", writable=True), Bind(tarball.parent, "/src"), Bind(MUSL, "/sysroot"))
    place = Sandbox(binds, {"JOBS": str(bwrap.jobs()), "TARBALL": tarball.name})
    place.run(_BUILD, title="busybox as upstream has it", log=job.log)
    (work / "result").rename(job.out(Tree(STOCK)))


def check_package(job: Job, name: str) -> None:
    """Run a package's own tests in the image that holds them."""
    result = job.out(OUT / "check" / f"{name}.json")
    found = upstream_tests.check(name, PACKAGES_IMAGE, result, job.log.with_name(f"check:{name}-guest.log"))
    for line in found.output:
        job.note(line)


def check_busybox(job: Job) -> None:
    """Run the suite in both places and write the report; fail when a failure has no explanation."""
    suite = busybox_suite.archive(STOCK / "testsuite", STOCK / ".config")
    guest: list[str | Path] = [
        NABLA_RUN,
        "--ephemeral",
        "--memory",
        "1G",
        IMAGE,
        "--",
        "/bin/sh",
        "-c",
        busybox_suite.SCRIPT,
    ]
    host = [*bwrap.base(STOCK / "root", user=0), "--die-with-parent", "--new-session", "--clearenv"]
    host += ["/bin/sh", "-c", busybox_suite.SCRIPT]
    comparison = busybox_suite.Comparison(_run(job, "guest", guest, suite), _run(job, "host", host, suite))
    known = busybox_suite.read_known(KNOWN)
    job.out(REPORT).write_text(busybox_suite.report(comparison, known), encoding="utf-8")
    problems = busybox_suite.unexplained(comparison, known)
    for problem in problems:
        job.note(problem)
    if problems:
        hint = f"{len(problems)} differences from {relative(KNOWN)}, see {relative(job.log)}"
        raise CheckError(f"busybox's test suite: {problems[0]}", hint)


def _run(job: Job, where: str, argv: Sequence[str | Path], suite: bytes) -> dict[str, str]:
    log = job.log.with_name(f"check:busybox-{where}.log")
    log.unlink(missing_ok=True)
    process.run(argv, log=log, input=suite, timeout=TIMEOUT)
    results = busybox_suite.parse(log.read_bytes())
    if len(results) < 500:
        raise CheckError(f"busybox's test suite ended early ({where}): {len(results)} results", f"see {relative(log)}")
    return results
