# SPDX-License-Identifier: Apache-2.0
"""The tables of the report: artifacts, sizes, durations, results of the checkers, sums, licenses."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nabla.core import digest, log
from nabla.core.errors import NablaError
from nabla.core.paths import relative
from nabla.fs.ext3 import SUPERBLOCK
from nabla.images import descriptions
from nabla.packages.catalog import BuildRecord
from nabla.policy.document import Rates
from nabla.release import digests
from nabla.report import benchmarks
from nabla.report.benchmarks import Benchmark, BuildTimes, UpstreamTests
from nabla.report.html import Bar, Cell, Column, Row, Table, anchor, number, size, table
from nabla.sources import recipe
from nabla.sources.recipe import Recipe
from verify import pie, syscalls

OWN_LICENSE = "Apache-2.0"
# Shorter steps of a build share one row.
BRIEF = 5.0  # seconds
Fields = list[list[Cell | str]]
# Group of artifacts -> path -> sha256.
Sums = Mapping[str, Mapping[str, str]]


class ReportError(NablaError):
    """The report cannot be written."""


@dataclass(frozen=True)
class Product:
    """One file of the release. `path`: in the release. `used`: the used bytes of a file with holes."""

    name: str
    path: str
    what: str
    version: str
    license: str
    size: int
    sha256: str
    used: int | None = None


@dataclass(frozen=True)
class PackageFile:
    """One package of the repository."""

    name: str
    recipe: str
    version: str
    license: str
    summary: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class CheckedImage:
    """The results of the checkers for one image."""

    name: str
    pie: tuple[pie.Finding, ...]
    syscalls: tuple[syscalls.Finding, ...]

    @property
    def programs(self) -> int:
        """Number of checked files."""
        return len(self.pie)


def products(
    version: str,
    vmlinux: Path,
    launcher: Path,
    images: Mapping[str, Path],
    repository: Path,
    further: Mapping[str, Path],
) -> list[Product]:
    """Describe the files of a release. Raises `ReportError` if one is missing."""
    linux, own = recipe.load("linux"), recipe.load("nabla-run")
    products = [
        _product("vmlinux", "kernel/vmlinux", linux.summary, linux.version, linux.license, vmlinux),
        _product("nabla-run", "bin/nabla-run", own.summary, version, own.license, launcher),
    ]
    for name, path in sorted(images.items()):
        what = descriptions.load(name).summary
        products.append(
            _product(f"{name}.ext3", f"images/{name}.ext3.zst", what, version, "many", path, used=used_bytes(path))
        )
    index = "apk/x86_64/Packages.adb"
    products.append(
        _product("Packages.adb", index, "index of the packages", version, OWN_LICENSE, repository / "Packages.adb")
    )
    for target, path in sorted(further.items()):
        name = target.rpartition("/")[2]
        what, terms = _further(target)
        products.append(_product(name, target, what, version, terms, path))
    return products


def _further(path: str) -> tuple[str, str]:
    """Return the description and the license of another file of the release."""
    if path == "bin/nabla":
        return recipe.load("nabla").summary, OWN_LICENSE
    if path == "bin/nabla-oci":
        runtime = recipe.load("nabla-oci")
        return runtime.summary, runtime.license
    if path.startswith("oci/"):
        return "VM as a container image, for docker, podman and others", "many"
    if path.endswith(".spdx.json"):
        return "bill of materials, SPDX 2.3", OWN_LICENSE
    if path.endswith(".cdx.json"):
        return "bill of materials, CycloneDX 1.6", OWN_LICENSE
    raise ReportError(f"the report has no description of {path}", "add it to nabla/report/tables.py")


def _product(name: str, target: str, what: str, version: str, terms: str, path: Path, **more: int) -> Product:
    if not path.is_file():
        raise ReportError(
            f"{relative(path)} is missing", "build it: `doit report` builds all artifacts that it describes"
        )
    return Product(name, target, what, version, terms, path.stat().st_size, digest.sha256_file(path), **more)


def used_bytes(image: Path) -> int:
    """Return the used bytes of an ext2, ext3 or ext4 file system, from its superblock."""
    with image.open("rb") as stream:
        stream.seek(SUPERBLOCK)
        block = stream.read(64)
    if len(block) < 64 or block[56:58] != b"\x53\xef":
        raise ReportError(f"{relative(image)} contains no ext file system")
    (blocks,), (free,), (log2,) = (struct.unpack_from("<I", block, at) for at in (4, 12, 24))
    return int((blocks - free) << (10 + log2))


def packages(built: Iterable[BuildRecord], repository: Path) -> list[PackageFile]:
    """Describe all packages. Raises `ReportError` if one is missing."""
    files = []
    for each in built:
        for part in each.parts:
            path = repository / part.apk.name
            if not path.is_file():
                raise ReportError(f"{relative(path)} is missing", f"run `doit packages:{each.recipe}`")
            metadata = (part.name, each.recipe, part.version, each.license, part.summary, path.name)
            files.append(PackageFile(*metadata, path.stat().st_size, digest.sha256_file(path)))
    return sorted(files, key=lambda package: package.name)


def read_checks(name: str, folder: Path) -> CheckedImage:
    """Read the checkers' reports about an image. Raises `ReportError`."""
    paths = [folder / f"{name}-{kind}.json" for kind in ("pie", "syscalls")]
    try:
        return CheckedImage(
            name,
            msgspec.json.decode(paths[0].read_bytes(), type=tuple[pie.Finding, ...]),
            msgspec.json.decode(paths[1].read_bytes(), type=tuple[syscalls.Finding, ...]),
        )
    except (FileNotFoundError, msgspec.DecodeError) as problem:
        raise ReportError(
            f"the reports about the image {name} cannot be read: {problem}", f"run `doit verify:{name}`"
        ) from None


def product_table(products: Sequence[Product]) -> Table:
    """Return the table of artifacts."""
    columns = (
        *(Column("file"), Column("what"), Column("version"), Column("license")),
        *(Column("size", "number"), Column("sha256", "code")),
    )
    rows: Fields = [
        [Cell(p.name, href=f"../{p.path}"), p.what, p.version, _license(p), number(p.size, size(p.size)), p.sha256]
        for p in products
    ]
    return table("products", "The files of this release", columns, rows)


def _license(product: Product) -> Cell:
    return Cell("see licenses", href="#licenses") if product.license == "many" else Cell(product.license)


def size_chart(products: Sequence[Product]) -> Table:
    """Return the chart of sizes. For an image, the bar shows the used part and the whole file."""
    longest = max((p.size for p in products), default=1)
    rows: Fields = []
    for p in sorted(products, key=lambda p: (-p.size, p.name)):
        full, used = p.size / longest, (p.size if p.used is None else p.used) / longest
        text = size(p.size) if p.used is None else f"{size(p.used)} of {size(p.size)}"
        bar = Bar(f"{p.name}: {text}", used, whole=full)
        rows.append([p.name, number(p.size, text), Cell("", bar=bar)])
    return _chart("chart-sizes", "Sizes of files; for images the used part and the whole", "size", rows)


def package_table(packages: Sequence[PackageFile]) -> Table:
    """Return the table of packages."""
    columns = (
        *(Column("package"), Column("what"), Column("version"), Column("license")),
        *(Column("size", "number"), Column("sha256", "code")),
    )
    rows = tuple(
        Row(
            (
                Cell(p.name, href=f"../apk/x86_64/{p.file}"),
                *(Cell(p.summary), Cell(p.version), Cell(p.license)),
                *(number(p.size, size(p.size)), Cell(p.sha256)),
            ),
            id=f"package-{anchor(p.name)}",
        )
        for p in packages
    )
    return Table("packages-table", "All packages of the repository", columns, rows)


def package_chart(packages: Sequence[PackageFile]) -> Table:
    """Return the chart of the total size of each recipe's packages."""
    sums: dict[str, list[int]] = {}
    for p in packages:
        sums.setdefault(p.recipe, []).append(p.size)
    longest = max(map(sum, sums.values()), default=1)
    rows: Fields = []
    for name, sizes in sorted(sums.items(), key=lambda item: (-sum(item[1]), item[0])):
        text = size(sum(sizes))
        bar = Bar(f"{name}: {text} in {len(sizes)} packages", sum(sizes) / longest)
        rows.append([name, number(sum(sizes), text), Cell("", bar=bar)])
    return _chart("chart-packages", "Total size of each recipe's packages, compressed", "size", rows)


def time_chart(build: BuildTimes) -> Table:
    """Return the chart of durations; downloads and brief steps share a row each."""
    groups: dict[str, list[float]] = {}
    for step in build.steps:
        if step.name.startswith("fetch:"):
            name = "download and check"
        else:
            name = step.name if step.seconds >= BRIEF else f"each below {BRIEF:.0f} s"
        groups.setdefault(name, []).append(step.seconds)
    longest = max(map(sum, groups.values()))
    rows: Fields = []
    for name, times in sorted(groups.items(), key=lambda item: (-sum(item[1]), item[0])):
        label = name if len(times) == 1 else f"{len(times)} steps: {name}"
        text = log.seconds(sum(times))
        bar = Bar(f"{label}: {text}", sum(times) / longest)
        rows.append([label, number(sum(times), text), Cell("", bar=bar)])
    return _chart("chart-times", "Duration of each step", "time", rows)


def _chart(name: str, caption: str, unit: str, rows: Fields) -> Table:
    return table(name, caption, (Column("name"), Column(unit, "number"), Column("", "bar")), rows, sortable=False)


def pie_table(images: Sequence[CheckedImage]) -> Table:
    """Return the number of programs and libraries in each image, and of those with faults."""
    kinds = ("program", "static program", "library", "object")
    columns = (
        Column("image"),
        *(Column({"library": "libraries"}.get(kind, f"{kind}s"), "number") for kind in kinds),
        *(Column("all", "number"), Column("result")),
    )
    rows: Fields = []
    for image in images:
        counts = [sum(finding.kind == kind for finding in image.pie) for kind in kinds]
        bad = sum(bool(finding.problems) for finding in image.pie)
        verdict = Cell("all sound", mark="good") if not bad else Cell(f"{bad} with faults", mark="bad")
        rows.append([image.name, *map(number, counts), number(len(image.pie)), verdict])
    return table("pie-table", "Programs and libraries by image", columns, rows, sortable=False)


def pie_files(image: CheckedImage) -> Table:
    """Return each file of an image with its verdict."""
    columns = (Column("file"), Column("kind"), Column("package"), Column("result"))
    rows: Fields = [
        [
            *(finding.path, finding.kind, finding.owner or "–"),
            Cell(", ".join(finding.problems) or "sound", mark="bad" if finding.problems else ""),
        ]
        for finding in image.pie
    ]
    return table(f"pie-{anchor(image.name)}", f"{image.name}: {len(rows)} files", columns, rows)


def syscall_table(images: Sequence[CheckedImage]) -> Table:
    """Return the number of system call instructions in the programs of each image, libc excluded."""
    columns = (
        Column("image"),
        *(Column("files", "number"), Column("with such instructions", "number")),
        *(Column("instructions", "number"), Column("result")),
    )
    rows: Fields = []
    for image in images:
        own = [finding for finding in image.syscalls if not finding.sound]
        uses = sum(len(finding.uses) for finding in own)
        verdict = Cell("libc only", mark="good") if not own else Cell("these calls trap: slower, but correct")
        rows.append([image.name, number(len(image.syscalls)), number(len(own)), number(uses), verdict])
    return table("syscalls-table", "Raw system calls by image", columns, rows, sortable=False)


def syscall_files(image: CheckedImage) -> Table:
    """Return each function of an image with system call instructions, including libc's."""
    columns = (Column("file"), Column("package"), Column("function"), Column("number", "number"), Column("what"))
    rows: Fields = []
    for finding in image.syscalls:
        if finding.problem:
            rows.append([finding.path, finding.owner or "–", "–", number(0), Cell(finding.problem, mark="bad")])
        functions: dict[str, list[syscalls.Use]] = {}
        for use in finding.uses:
            functions.setdefault(use.function, []).append(use)
        for name, uses in functions.items():
            kinds = sorted({use.instruction + ("" if use.sure else " (uncertain)") for use in uses})
            what = "libc" if finding.allowed else ", ".join(kinds)
            rows.append([finding.path, finding.owner or "–", name, number(len(uses)), what])
    return table(f"syscalls-{anchor(image.name)}", f"{image.name}: {len(rows)} functions", columns, rows)


def rate_table(rates: Rates) -> Table:
    """Return the host calls per second by kind and load."""
    head, rows = benchmarks.host_calls(rates)
    columns = (Column(head[0]), *(Column(name, "number") for name in head[1:]))
    return table("rates", "Host calls per second", columns, rows, sortable=False)


def digest_table(expected: Sums, got: Sums) -> Table:
    """Return the committed sums, and whether this build has them."""
    columns = (Column("artifact"), Column("file"), Column("expected sha256", "code"), Column("this build"))
    rows: Fields = []
    for group in sorted({*expected, *got}):
        wanted, actual = expected.get(group, {}), got.get(group, {})
        wrong = dict(digests.differences(wanted, actual))
        for name in sorted({*wanted, *actual}):
            verdict = Cell(wrong[name], mark="bad") if name in wrong else Cell("equal", mark="good")
            rows.append([group, name, wanted.get(name, "–"), verdict])
    return table("digests-table", f"{len(rows)} sums", columns, rows)


def faults(rows: Table) -> int:
    """Return the number of rows with a bad cell."""
    return sum(any(cell.mark == "bad" for cell in row.cells) for row in rows.rows)


def benchmark_table(benchmark: Benchmark) -> tuple[Benchmark, Table]:
    """Return a measurement with its table; names and units are text."""
    columns = tuple(Column(name, "text" if name in ("operation", "unit") else "number") for name in benchmark.head)
    return benchmark, table(
        f"bench-{anchor(benchmark.title)}", benchmark.about, columns, benchmark.rows, sortable=False
    )


def upstream_table(results: Sequence[UpstreamTests], built: Sequence[BuildRecord]) -> Table:
    """Return the results of upstream's tests, and whether they tested the files of this release."""
    trees = {each.recipe: each.tree for each in built}
    columns = (
        *(Column("package"), Column("version"), Column("tests", "number"), Column("failed", "number")),
        *(Column("result"), Column("tested files")),
    )
    rows: Fields = []
    for each in results:
        result = Cell("passed", mark="good") if not each.failed else Cell("failed", mark="bad")
        same = "those of this release" if trees.get(each.recipe) == each.tree else "those of an earlier build"
        rows.append([each.recipe, each.version, number(each.tests), number(each.failed), result, same])
    return table("upstream-table", "Upstream's tests, run in a VM", columns, rows, sortable=False)


def license_table(recipes: Sequence[Recipe]) -> Table:
    """Return the license and the home page of each component."""
    columns = (Column("component"), Column("version"), Column("license"), Column("what"), Column("patches", "number"))
    rows: Fields = [
        [Cell(r.name, href=r.homepage), r.version, r.license, r.summary, number(len(r.patches))] for r in recipes
    ]
    return table("licenses-table", "Components", columns, rows)
