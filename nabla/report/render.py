# SPDX-License-Identifier: Apache-2.0
"""The report about a release: one HTML page about its content, its build, and the results of all checks.

    inputs (artifacts, records of packages, results of the checkers, digests, measurements)
        -> tables (each part as a table) -> html + templates/report.html.j2 -> index.html

The page needs no other file and no network. Its links lead to its own sections, to home pages of projects, and to files
of the release, relative to the folder `report`. The page is reproducible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nabla.packages import catalog
from nabla.packages.catalog import BuildRecord
from nabla.policy import document, model
from nabla.policy.compiler import compile_policy
from nabla.report import benchmarks, graph, html, tables
from nabla.report.tables import Sums
from nabla.sources import recipe
from verify.release import layout

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Inputs:
    """The inputs of the report.

    `images`: name -> ext3 file. `further`: path in the release -> additional file. `verified`: folder with the
    checkers' reports about images. `components`: recipes of the components of the release. `expected`: the committed
    sums by group; `sums`: the sums of this build.
    """

    vmlinux: Path
    launcher: Path
    images: dict[str, Path]
    repository: Path
    verified: Path
    built: Sequence[BuildRecord]
    components: Sequence[str]
    expected: Sums
    sums: Sums
    further: dict[str, Path] = field(default_factory=dict)
    results: Path = benchmarks.RESULTS
    policy: Path = model.POLICY
    busybox: Path = benchmarks.BUSYBOX


def page(version: str, commit: str | None, inputs: Inputs) -> str:
    """Return the text of index.html. Raises `NablaError` if an input is absent or malformed."""
    products = tables.products(
        version, inputs.vmlinux, inputs.launcher, inputs.images, inputs.repository, inputs.further
    )
    packages = tables.packages(inputs.built, inputs.repository)
    images = [tables.read_checks(name, inputs.verified) for name in sorted(inputs.images)]
    build = benchmarks.read_build(inputs.results / benchmarks.BUILD.name)
    rules = model.load(inputs.policy)
    rates = document.read_rates(inputs.results / document.RATES.name)
    measured = benchmarks.benchmarks(
        *(inputs.results / path.name for path in (benchmarks.BOOT, benchmarks.LATENCY, benchmarks.NETWORK))
    )
    upstream = benchmarks.read_upstream(inputs.results / benchmarks.UPSTREAM.name)
    components = [recipe.load(name) for name in sorted(inputs.components)]
    sums = tables.digest_table(inputs.expected, inputs.sums)
    return html.render(
        TEMPLATE,
        {
            "version": version,
            "commit": commit,
            "made_for": made_for(version, commit),
            "signer": layout.SIGNER,
            "namespace": layout.NAMESPACE,
            "products": tables.product_table(products),
            "sizes": tables.size_chart(products),
            "packages": tables.package_table(packages),
            "package_sizes": tables.package_chart(packages),
            "package_count": len(packages),
            "recipe_count": len(inputs.built),
            "build": build,
            "build_seconds": sum(step.seconds for step in build.steps),
            "build_times": tables.time_chart(build),
            "graph": graph.draw(needs([each.recipe for each in inputs.built])),
            "images": images,
            "programs": sum(image.programs for image in images),
            "pie": tables.pie_table(images),
            "pie_files": tables.pie_files,
            "syscall_files": tables.syscall_files,
            "syscalls": tables.syscall_table(images),
            "policy": rules,
            "policy_size": len(compile_policy(rules)),
            "describe": document.describe,
            "rates": rates,
            "host_calls": tables.rate_table(rates),
            "digests": sums,
            "wrong_sums": tables.faults(sums),
            "benchmarks": [tables.benchmark_table(each) for each in measured],
            "upstream": tables.upstream_table(upstream, inputs.built),
            "busybox": benchmarks.read_busybox(inputs.busybox),
            "licenses": tables.license_table(components),
            "license_count": len({each.license for each in components}),
        },
    )


def made_for(version: str, commit: str | None) -> str:
    """Return the version and the commit for the head of the page."""
    return f"{version} {commit or ''}".rstrip()


def needs(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return recipe -> its build dependencies, including the libc, which is in every sysroot."""
    return {
        name: (*catalog.needs(name), *((catalog.LIBC,) if name != catalog.LIBC and catalog.LIBC in names else ()))
        for name in names
    }


def write(target: Path, version: str, commit: str | None, inputs: Inputs) -> None:
    """Write the page to a file."""
    target.write_text(page(version, commit, inputs), encoding="utf-8")
