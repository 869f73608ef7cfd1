# SPDX-License-Identifier: Apache-2.0
"""The report about a release: one HTML page that says what it holds, how it was made, and what was found out about it.

    inputs (artifacts, records of packages, results of the checkers, digests, measurements)
        -> report_tables (each part as a table) -> report_page + templates/report.html.j2 -> index.html

The page needs no other file and no network. Its links lead to places in itself, to the projects' own pages, and to
files of the release, beside whose folder `report` they lie. Same inputs, same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nabla.packages import catalog
from nabla.packages.catalog import Built
from nabla.policy import document, model
from nabla.policy.compiler import compile_policy
from nabla.report import benchmarks, graph, html, tables
from nabla.report.tables import Sums
from nabla.sources import recipe
from verify.release import layout

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Inputs:
    """Where the report finds what it tells.

    `images`: name -> ext3 file. `further`: other files of the release, as paths in it -> file. `verified`: folder with
    what the checkers wrote about the images. `components`: recipes of which something is in the release.
    `expected`: the sums that each build must have, by groups; `sums`: those that this one has.
    """

    vmlinux: Path
    launcher: Path
    images: dict[str, Path]
    repository: Path
    verified: Path
    built: Sequence[Built]
    components: Sequence[str]
    expected: Sums
    sums: Sums
    further: dict[str, Path] = field(default_factory=dict)
    results: Path = benchmarks.RESULTS
    policy: Path = model.POLICY
    busybox: Path = benchmarks.BUSYBOX


def page(version: str, commit: str | None, inputs: Inputs) -> str:
    """Return the text of index.html. Raises `NablaError` when an input is absent or malformed."""
    products = tables.products(
        version, inputs.vmlinux, inputs.launcher, inputs.images, inputs.repository, inputs.further
    )
    packages = tables.packages(inputs.built, inputs.repository)
    images = [tables.examined(name, inputs.verified) for name in sorted(inputs.images)]
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
            "words": document.words,
            "rates": rates,
            "host_calls": tables.rate_table(rates),
            "digests": sums,
            "wrong_sums": tables.faults(sums),
            "benchmarks": [tables.benchmark_table(each) for each in measured],
            "upstream": tables.upstream_table(upstream, inputs.built),
            "busybox": benchmarks.read_busybox(inputs.busybox),
            "licences": tables.licence_table(components),
            "licence_count": len({each.license for each in components}),
        },
    )


def made_for(version: str, commit: str | None) -> str:
    """Return what the page says in its head of the version and the commit that it is about."""
    return f"{version} {commit or ''}".rstrip()


def needs(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return what each recipe is built against, the libc included, which is in every sysroot."""
    return {
        name: (*catalog.needs(name), *((catalog.LIBC,) if name != catalog.LIBC and catalog.LIBC in names else ()))
        for name in names
    }


def write(target: Path, version: str, commit: str | None, inputs: Inputs) -> None:
    """Write the page to a file."""
    target.write_text(page(version, commit, inputs), encoding="utf-8")
